//! What `explain -o json` says of one connection, and whether packets do so.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portcullis_lab::plan::NodePlan;
use portcullis_lab::{Family, Outcome, Plan, Tally};
use serde_json::Value;

use crate::row::ANSWER;

/// The explanation of one connection.
#[derive(Debug)]
pub(super) enum Said {
    Rejected,
    Dropped,
    NotServed,
    /// It goes to these places.
    Arrives(Vec<Place>),
    /// There is no such connection, as both ends have no family in common.
    Impossible,
}

#[derive(Debug)]
pub(super) struct Place {
    allowed: bool,
    at: SocketAddr,
    /// The client's address.
    from: IpAddr,
    masqueraded_by: Option<String>,
    /// Its answer does not reach the client.
    is_lost: bool,
}

impl Said {
    pub(super) fn read(json: &str) -> Option<Self> {
        let answer: Value = serde_json::from_str(json).ok()?;
        let Some(connection) = answer["connections"].get(0) else { return Some(Said::Impossible) };
        match connection["refusal"]["how"].as_str() {
            Some("rejected") => return Some(Said::Rejected),
            Some("dropped") => return Some(Said::Dropped),
            Some("notServed") => return Some(Said::NotServed),
            _ => {}
        }
        let place = |path: &Value| {
            Some(Place {
                allowed: path["allowed"].as_bool()?,
                at: path["to"].as_str()?.parse().ok()?,
                from: connection["from"].as_str()?.parse().ok()?,
                masqueraded_by: path["masqueradedBy"].as_str().map(str::to_owned),
                is_lost: path["lost"].is_string(),
            })
        };
        let places: Option<Vec<Place>> = connection["paths"].as_array()?.iter().map(place).collect();
        places.map(Said::Arrives)
    }

    /// How many of the places let it in.
    fn allowed(&self) -> usize {
        match self {
            Said::Arrives(places) => places.iter().filter(|place| place.allowed).count(),
            _ => 0,
        }
    }

    /// How many probes it takes to tell.
    pub(super) fn probes(&self) -> usize {
        match (self, self.allowed()) {
            (Said::Arrives(_), 0) | (Said::Dropped | Said::NotServed | Said::Impossible, _) => 2,
            (Said::Rejected, _) => 3,
            (_, n) => 4 + 3 * n,
        }
    }

    /// How long to wait for each. Who must be answered has time, as the machine may be busy.
    pub(super) fn patience(&self, family: Family) -> Duration {
        match self {
            Said::Arrives(places) if places.iter().all(|place| place.allowed) => ANSWER,
            // Over IPv6 the second error counts, after a second.
            Said::Rejected if family == Family::V6 => Duration::from_millis(2500),
            Said::Rejected => Duration::from_millis(1500),
            _ => Duration::from_millis(600),
        }
    }

    /// What packets did otherwise, if they did.
    pub(super) fn complaint(&self, plan: &Plan, seen: &Tally) -> Option<String> {
        let silent = |outcome: &Outcome| matches!(outcome, Outcome::TimedOut | Outcome::Unreachable);
        let refused = |outcome: &Outcome| matches!(outcome, Outcome::Refused | Outcome::Unreachable);
        let all = |fits: &dyn Fn(&Outcome) -> bool| seen.answered() == 0 && seen.others.keys().all(fits);
        match self {
            Said::Rejected => (!all(&refused)).then(|| "must be refused".to_owned()),
            Said::Dropped => (!all(&silent)).then(|| "must be lost".to_owned()),
            Said::NotServed | Said::Impossible => {
                (seen.answered() > 0).then(|| "must not be answered".to_owned())
            }
            Said::Arrives(places) => {
                let open: Vec<&Place> = places.iter().filter(|place| place.allowed).collect();
                if open.is_empty() {
                    // Who gets an answer from a stranger may refuse it.
                    let is_lost = places.iter().any(|place| place.is_lost);
                    let right = if is_lost { seen.answered() == 0 } else { all(&silent) };
                    return (!right).then(|| "must be denied, and so be lost".to_owned());
                }
                if open.len() == places.len() && !seen.others.is_empty() {
                    return Some("must always be answered".to_owned());
                }
                let named = |by: &str| open.iter().find(|place| is_at(plan, by, place.at.ip()));
                if let Some(stranger) = seen.by.keys().find(|by| named(by).is_none()) {
                    return Some(format!("{stranger} must not answer"));
                }
                let right = |source: &IpAddr| open.iter().any(|place| place.may_see(plan, *source));
                let wrong = seen.sources.iter().find(|source| !right(source))?;
                Some(format!("the server must not see {wrong}"))
            }
        }
    }
}

impl Place {
    /// Whether the server may see a connection come from an address. A node has several, and its routes choose.
    fn may_see(&self, plan: &Plan, source: IpAddr) -> bool {
        let has = |node: &NodePlan, ip: IpAddr| node.addresses.contains(&ip) || node.bridge().contains(&ip);
        match &self.masqueraded_by {
            None => {
                source == self.from || plan.nodes.iter().any(|node| has(node, self.from) && has(node, source))
            }
            Some(name) => plan.node(name).is_some_and(|node| has(node, source)),
        }
    }
}

/// Whether the server of that name is at an address: a pod's, or a node's.
fn is_at(plan: &Plan, by: &str, address: IpAddr) -> bool {
    let pod = plan.pods.iter().any(|pod| pod.name == by && pod.addresses.contains(&address));
    let node = plan.node(by);
    pod || node.is_some_and(|node| node.addresses.contains(&address) || node.bridge().contains(&address))
}
