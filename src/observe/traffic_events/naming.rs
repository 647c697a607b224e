//! From events of the kernel to documents: names of addresses, rules, protocols and interfaces.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use jiff::Timestamp;
use portcullis_netlink::conntrack::FlowCounters;
use portcullis_netlink::route::Rtnetlink;
use portcullis_policy::Direction;
use portcullis_policy::table::{self as policy_table, DropLabels};

use super::document::{ConnectionTraffic, DropReason, FrontendRef, Peer, TrafficEvent};
use super::names::NameCache;
use super::raw_event::{DropRule, End, RawEvent};
use crate::control::DropCounterLabels;

/// The wait between two lists of interfaces, while there are events of unknown ones.
const LIST_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

/// What a drop rule means.
#[derive(Clone, Debug)]
struct RuleNames {
    direction: Option<Arc<str>>,
    reason: DropReason,
    policies: Arc<[Arc<str>]>,
    omitted_policies: usize,
    tier: Option<Arc<str>>,
}

/// Names of everything but addresses.
#[derive(Debug, Default)]
pub(super) struct Naming {
    rules: HashMap<DropRule, RuleNames>,
    labels: DropCounterLabels,
    protocols: HashMap<u8, Arc<str>>,
    tcp_flags: HashMap<u8, Arc<str>>,
    interfaces: HashMap<u32, Arc<str>>,
    interfaces_listed: Option<Instant>,
    no_policies: Option<Arc<[Arc<str>]>>,
}

impl Naming {
    /// Sets the labels of the counters.
    pub(super) fn set_labels(&mut self, labels: DropCounterLabels) {
        if !Arc::ptr_eq(&labels, &self.labels) {
            self.labels = labels;
            self.rules.clear();
        }
    }

    /// Reads the names of the interfaces in events, if some are not known. Blocks for the time of a system call.
    pub(super) fn list_interfaces(&mut self, events: &[RawEvent], now: Instant) {
        let is_known = |index: u32| index == 0 || self.interfaces.contains_key(&index);
        let all_known = events.iter().all(|event| is_known(event.key.input) && is_known(event.key.output));
        if all_known || self.interfaces_listed.is_some_and(|at| now.duration_since(at) < LIST_INTERVAL) {
            return;
        }
        self.interfaces_listed = Some(now);
        let listed = Rtnetlink::open().and_then(|mut netlink| netlink.links());
        match listed {
            Ok(links) => {
                let names = links.into_iter().map(|link| (link.index, link.name.as_str().into()));
                self.interfaces = names.collect();
            }
            Err(error) => {
                tracing::debug!(%error, "cannot list interfaces; their names are missing in events")
            }
        }
    }

    /// Returns the document of an event.
    pub(super) fn document(&mut self, event: &RawEvent, names: &NameCache) -> TrafficEvent {
        let key = &event.key;
        let rule = key.rule.as_ref().map(|rule| self.rule(rule));
        let frontend = event.frontend().and_then(|frontend| {
            let found = names.frontend(&frontend);
            let is_translated = key.original_destination.is_some();
            (found.is_some() || is_translated).then(|| FrontendRef {
                address: frontend.0,
                port: Some(frontend.2),
                service: found.map(|found| found.service.clone()),
                port_name: found.map(|found| Arc::clone(&found.port_name)),
            })
        });
        let destination = key.destination.map(|end| {
            let peer = peer(end, names);
            // Of several Services with the endpoint, the one through which it was reached.
            let through = frontend.as_ref().filter(|_| key.original_destination.is_some());
            match through.and_then(|frontend| frontend.service.clone()) {
                Some(service) => Peer { service: Some(service), ..peer },
                None => peer,
            }
        });
        let no_policies = self.no_policies.get_or_insert_with(|| Arc::from([])).clone();
        let (direction, reason, policies, omitted_policies, tier) = match rule {
            Some(rule) => {
                let tier = rule
                    .tier
                    .clone()
                    .or_else(|| names.tier(rule.policies.first()?.strip_prefix("ClusterNetworkPolicy ")?));
                (rule.direction, Some(rule.reason), rule.policies, rule.omitted_policies, tier)
            }
            None => (None, None, no_policies, 0, None),
        };
        TrafficEvent {
            time: timestamp(event.time),
            verdict: key.verdict,
            direction,
            reason,
            policies,
            omitted_policies,
            tier,
            protocol: self.protocol(key.protocol),
            tcp_flags: key.tcp_flags.map(|flags| self.tcp_flags(flags)),
            icmp_type: key.icmp.map(|(kind, _)| kind),
            icmp_code: key.icmp.map(|(_, code)| code),
            source: key.source.map(|end| peer(end, names)),
            destination,
            frontend,
            input_interface: self.interface(key.input),
            output_interface: self.interface(key.output),
            bytes: event.bytes,
            count: event.count,
            traffic: event.counters.as_ref().and_then(traffic),
            duration_seconds: event
                .counters
                .and_then(|counters| counters.duration)
                .map(|duration| duration.as_micros() as f64 / 1e6),
        }
    }

    fn rule(&mut self, rule: &DropRule) -> RuleNames {
        if let Some(names) = self.rules.get(rule) {
            return names.clone();
        }
        let names = rule_names(rule, &self.labels);
        self.rules.insert(rule.clone(), names.clone());
        names
    }

    fn protocol(&mut self, number: u8) -> Arc<str> {
        let name = || match i32::from(number) {
            libc::IPPROTO_TCP => "TCP".into(),
            libc::IPPROTO_UDP => "UDP".into(),
            libc::IPPROTO_SCTP => "SCTP".into(),
            libc::IPPROTO_ICMP => "ICMP".into(),
            libc::IPPROTO_ICMPV6 => "ICMPv6".into(),
            other => other.to_string().into(),
        };
        Arc::clone(self.protocols.entry(number).or_insert_with(name))
    }

    fn tcp_flags(&mut self, flags: u8) -> Arc<str> {
        const NAMES: [(u8, &str); 8] = [
            (2, "SYN"),
            (16, "ACK"),
            (1, "FIN"),
            (4, "RST"),
            (8, "PSH"),
            (32, "URG"),
            (64, "ECE"),
            (128, "CWR"),
        ];
        let words = || {
            let set = NAMES.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name);
            set.collect::<Vec<_>>().join(",").into()
        };
        Arc::clone(self.tcp_flags.entry(flags).or_insert_with(words))
    }

    fn interface(&self, index: u32) -> Option<Arc<str>> {
        self.interfaces.get(&index).cloned()
    }
}

fn peer((address, port): End, names: &NameCache) -> Peer {
    let found = names.address(address);
    Peer { address, port, pod: found.pod, node: found.node, service: found.service, labels: found.labels }
}

fn rule_names(rule: &DropRule, labels: &DropCounterLabels) -> RuleNames {
    let without_policies = |reason| RuleNames {
        direction: None,
        reason,
        policies: Arc::from([]),
        omitted_policies: 0,
        tier: None,
    };
    let DropRule::Policy { direction, counter, .. } = rule else {
        return without_policies(DropReason::SourceRanges);
    };
    let direction: Option<Arc<str>> = direction.map(Direction::as_str).map(Into::into);
    let reason = match &**counter {
        policy_table::UNKNOWN_PODS => DropReason::UnknownPod,
        policy_table::CUT => DropReason::TerminatedConnection,
        policy_table::ROUTER_ADVERTISEMENTS => DropReason::RouterAdvertisement,
        policy_table::OTHER_PROTOCOLS => DropReason::OtherProtocol,
        _ => DropReason::Policies,
    };
    if reason != DropReason::Policies {
        return RuleNames { direction, ..without_policies(reason) };
    }
    let (policies, omitted_policies) = labels.get(counter).map(policies).unwrap_or_default();
    let tier = match policies.first() {
        Some(policy) if policy.starts_with("NetworkPolicy ") => Some("NetworkPolicy".into()),
        _ => None,
    };
    RuleNames { direction, reason, policies: policies.into(), omitted_policies, tier }
}

/// Splits the label of a counter into policies and the number of omitted ones.
fn policies(labels: &DropLabels) -> (Vec<Arc<str>>, usize) {
    let (list, omitted) = match labels.policy.rsplit_once(" and ") {
        Some((list, more)) => match more.strip_suffix(" more").and_then(|number| number.parse().ok()) {
            Some(omitted) => (list, omitted),
            None => (&*labels.policy, 0),
        },
        None => (&*labels.policy, 0),
    };
    (list.split(", ").map(Into::into).collect(), omitted)
}

fn traffic(counters: &FlowCounters) -> Option<ConnectionTraffic> {
    let (sent, received) = counters.original.zip(counters.reply)?;
    Some(ConnectionTraffic {
        sent_packets: sent.packets,
        sent_bytes: sent.bytes,
        received_packets: received.packets,
        received_bytes: received.bytes,
    })
}

fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn counters_become_policies() {
        let label = |direction, policy: &str| DropLabels { direction, policy: policy.to_owned() };
        let labels: DropCounterLabels = Arc::new(BTreeMap::from([
            ("one".into(), label("ingress", "NetworkPolicy shop/a")),
            ("many".into(), label("ingress", "NetworkPolicy shop/a, NetworkPolicy shop/b and 148 more")),
            ("cluster".into(), label("egress", "ClusterNetworkPolicy deny and 2 more")),
        ]));
        let rows: [(&str, &[&str], usize, DropReason); 5] = [
            ("one", &["NetworkPolicy shop/a"], 0, DropReason::Policies),
            ("many", &["NetworkPolicy shop/a", "NetworkPolicy shop/b"], 148, DropReason::Policies),
            ("cluster", &["ClusterNetworkPolicy deny"], 2, DropReason::Policies),
            ("removed", &[], 0, DropReason::Policies),
            (policy_table::UNKNOWN_PODS, &[], 0, DropReason::UnknownPod),
        ];
        for (counter, policies, omitted, reason) in rows {
            let rule = DropRule::Policy {
                direction: Some(Direction::Ingress),
                counter: counter.into(),
                is_audit: false,
            };
            let names = rule_names(&rule, &labels);
            let found: Vec<&str> = names.policies.iter().map(|policy| &**policy).collect();
            assert_eq!(
                (&found[..], names.omitted_policies, names.reason),
                (policies, omitted, reason),
                "{counter}"
            );
        }
    }
}
