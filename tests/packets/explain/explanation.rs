//! The JSON output of `explain` for one connection, compared with outcomes of probes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portcullis_lab::plan::NodePlan;
use portcullis_lab::{ClusterPlan, Family, ProbeOutcome, ProbeTally};
use serde_json::Value;

use crate::row::ANSWER;

/// Explanation of one connection.
#[derive(Debug)]
pub(super) enum Explanation {
    Rejected,
    Dropped,
    NotServed,
    /// Routed to one of these destinations.
    Arrives(Vec<Destination>),
    /// Client and destination have no family in common.
    Impossible,
}

#[derive(Debug)]
pub(super) struct Destination {
    allowed: bool,
    at: SocketAddr,
    /// The client's address.
    from: IpAddr,
    masqueraded_by: Option<String>,
    /// The reply does not reach the client.
    is_lost: bool,
}

impl Explanation {
    pub(super) fn parse(json: &str) -> Option<Self> {
        let answer: Value = serde_json::from_str(json).ok()?;
        let Some(connection) = answer["connections"].get(0) else { return Some(Explanation::Impossible) };
        match connection["noRoute"]["kind"].as_str() {
            Some("rejected") => return Some(Explanation::Rejected),
            Some("dropped") => return Some(Explanation::Dropped),
            Some("notServed") => return Some(Explanation::NotServed),
            _ => {}
        }
        let destination = |path: &Value| {
            Some(Destination {
                allowed: path["allowed"].as_bool()?,
                at: path["to"].as_str()?.parse().ok()?,
                from: connection["from"].as_str()?.parse().ok()?,
                masqueraded_by: path["masqueradedBy"].as_str().map(str::to_owned),
                is_lost: path["lost"].is_string(),
            })
        };
        let destinations: Option<Vec<Destination>> =
            connection["paths"].as_array()?.iter().map(destination).collect();
        destinations.map(Explanation::Arrives)
    }

    /// Returns the number of destinations that policies allow.
    fn allowed(&self) -> usize {
        match self {
            Explanation::Arrives(destinations) => {
                destinations.iter().filter(|destination| destination.allowed).count()
            }
            _ => 0,
        }
    }

    /// Returns true if every connection gets a response.
    pub(super) fn expects_responses_only(&self) -> bool {
        matches!(self, Explanation::Arrives(destinations) if self.allowed() == destinations.len())
    }

    /// Returns the number of probes needed to check the explanation.
    pub(super) fn probes(&self) -> usize {
        match (self, self.allowed()) {
            (Explanation::Arrives(_), 0)
            | (Explanation::Dropped | Explanation::NotServed | Explanation::Impossible, _) => 2,
            (Explanation::Rejected, _) => 3,
            (_, n) => 4 + 3 * n,
        }
    }

    /// Returns the timeout of a probe; long if a response is expected, because the machine may be busy.
    pub(super) fn timeout(&self, family: Family) -> Duration {
        match self {
            Explanation::Arrives(destinations)
                if destinations.iter().all(|destination| destination.allowed) =>
            {
                ANSWER
            }
            // Over IPv6 only the second ICMP error is reported, after a second.
            Explanation::Rejected if family == Family::V6 => Duration::from_millis(2500),
            Explanation::Rejected => Duration::from_millis(1500),
            _ => Duration::from_millis(600),
        }
    }

    /// Returns how the outcomes differ from the explanation, if they do.
    pub(super) fn violation(&self, plan: &ClusterPlan, tally: &ProbeTally) -> Option<String> {
        let silent =
            |outcome: &ProbeOutcome| matches!(outcome, ProbeOutcome::TimedOut | ProbeOutcome::Unreachable);
        let refused =
            |outcome: &ProbeOutcome| matches!(outcome, ProbeOutcome::Refused | ProbeOutcome::Unreachable);
        let all =
            |fits: &dyn Fn(&ProbeOutcome) -> bool| tally.answered() == 0 && tally.failures.keys().all(fits);
        match self {
            Explanation::Rejected => (!all(&refused)).then(|| "expected refused".to_owned()),
            Explanation::Dropped => (!all(&silent)).then(|| "expected lost".to_owned()),
            Explanation::NotServed | Explanation::Impossible => {
                (tally.answered() > 0).then(|| "expected no response".to_owned())
            }
            Explanation::Arrives(destinations) => {
                let open: Vec<&Destination> =
                    destinations.iter().filter(|destination| destination.allowed).collect();
                if open.is_empty() {
                    // A client may reject a reply from an unexpected address.
                    let is_lost = destinations.iter().any(|destination| destination.is_lost);
                    let right = if is_lost { tally.answered() == 0 } else { all(&silent) };
                    return (!right).then(|| "expected denied, and therefore lost".to_owned());
                }
                if open.len() == destinations.len() && !tally.failures.is_empty() {
                    return Some("expected a response to every probe".to_owned());
                }
                let named = |by: &str| open.iter().find(|destination| is_at(plan, by, destination.at.ip()));
                if let Some(responder) = tally.by_responder.keys().find(|by| named(by).is_none()) {
                    return Some(format!("unexpected response from {responder}"));
                }
                let right =
                    |source: &IpAddr| open.iter().any(|destination| destination.may_see(plan, *source));
                let wrong = tally.sources.iter().find(|source| !right(source))?;
                Some(format!("unexpected source address {wrong}"))
            }
        }
    }
}

impl Destination {
    /// Returns true if the server may see an address as the source. A node has several, and its routes choose.
    fn may_see(&self, plan: &ClusterPlan, source: IpAddr) -> bool {
        let has = |node: &NodePlan, ip: IpAddr| {
            node.addresses.contains(&ip) || node.bridge_addresses().contains(&ip)
        };
        match &self.masqueraded_by {
            None => {
                source == self.from || plan.nodes.iter().any(|node| has(node, self.from) && has(node, source))
            }
            Some(name) => plan.node(name).is_some_and(|node| has(node, source)),
        }
    }
}

/// Returns true if the pod or node with a name has an address.
fn is_at(plan: &ClusterPlan, by: &str, address: IpAddr) -> bool {
    let pod = plan.pods.iter().any(|pod| pod.name == by && pod.addresses.contains(&address));
    let node = plan.node(by);
    pod || node
        .is_some_and(|node| node.addresses.contains(&address) || node.bridge_addresses().contains(&address))
}
