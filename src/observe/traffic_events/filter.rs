//! Filters of traffic events, and their form in a query.

use std::net::IpAddr;

use ipnet::IpNet;

use super::document::{ObjectRef, Peer, TrafficEvent, Verdict};
use super::label_filter::LabelFilter;

/// The events that an observer receives: those that match all conditions. The default matches all drops.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventFilter {
    /// The verdicts; none: all that are observed.
    pub(crate) verdicts: Vec<Verdict>,
    /// New and ended connections are observed, in place of drops unless `verdicts` has both.
    pub(crate) connections: bool,
    /// The source.
    pub(crate) from: Option<PeerFilter>,
    /// The destination, before or after DNAT.
    pub(crate) to: Option<PeerFilter>,
    /// The namespace of the source or the destination.
    pub(crate) namespace: Option<String>,
    /// The destination port, before or after DNAT.
    pub(crate) port: Option<u16>,
    /// The protocol in upper case.
    pub(crate) protocol: Option<String>,
    /// `namespace/name` of a NetworkPolicy, or the name of a ClusterNetworkPolicy.
    pub(crate) policy: Option<String>,
}

/// A condition on one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerFilter {
    /// Its address is in the block.
    Addresses(IpNet),
    /// Its pod.
    Pod(NamePattern),
    /// Its Service: a frontend of the Service, or an endpoint.
    Service(NamePattern),
    /// The labels of its pod.
    Labels(LabelFilter),
}

/// A namespace and a name, which may end in `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamePattern {
    namespace: String,
    name: String,
}

/// A parameter that is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value {value:?} of {parameter}: expected {expected}")]
pub struct FilterError {
    parameter: String,
    value: String,
    expected: String,
}

/// The forms of a peer.
const PEER_FORMS: &str =
    "an address, a CIDR, POD, NAMESPACE/POD, NAMESPACE/PREFIX*, svc/[NAMESPACE/]NAME or LABEL=VALUE";

impl EventFilter {
    /// Sets a parameter.
    ///
    /// # Errors
    /// The parameter does not exist, or the value is not valid.
    pub(crate) fn set(&mut self, parameter: &str, value: &str) -> Result<(), FilterError> {
        let error = |expected: &str| FilterError {
            parameter: parameter.to_owned(),
            value: value.to_owned(),
            expected: expected.to_owned(),
        };
        match parameter {
            "verdict" => {
                for word in value.split(',') {
                    let verdict = Verdict::ALL.into_iter().find(|verdict| verdict.as_str() == word);
                    self.verdicts.push(verdict.ok_or_else(|| error("dropped, audit, new or ended"))?);
                }
            }
            "connections" => {
                self.connections = value.parse().map_err(|_| error("true or false"))?;
            }
            "from" => self.from = Some(PeerFilter::parse(value).ok_or_else(|| error(PEER_FORMS))?),
            "to" => self.to = Some(PeerFilter::parse(value).ok_or_else(|| error(PEER_FORMS))?),
            "namespace" => self.namespace = Some(value.to_owned()),
            "port" => self.port = Some(value.parse().map_err(|_| error("a number from 0 to 65535"))?),
            "protocol" => {
                let known = ["TCP", "UDP", "SCTP", "ICMP", "ICMPV6"];
                let name = value.to_ascii_uppercase();
                if !known.contains(&&*name) && value.parse::<u8>().is_err() {
                    return Err(error("TCP, UDP, SCTP, ICMP, ICMPv6 or a number"));
                }
                self.protocol = Some(name);
            }
            "policy" => self.policy = Some(value.to_owned()),
            _ => {
                return Err(FilterError {
                    parameter: "the query".to_owned(),
                    value: parameter.to_owned(),
                    expected: "connections, from, namespace, policy, port, protocol, to or verdict"
                        .to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Parses the query of a URL.
    ///
    /// # Errors
    /// A parameter is not valid.
    pub(crate) fn parse(query: &str) -> Result<Self, FilterError> {
        let mut filter = EventFilter::default();
        for (parameter, value) in form_urlencoded::parse(query.as_bytes()) {
            filter.set(&parameter, &value)?;
        }
        Ok(filter)
    }

    /// Returns true if it has conditions on names of objects.
    pub(crate) fn has_names(&self) -> bool {
        let has_name = |filter: &Option<PeerFilter>| {
            filter.as_ref().is_some_and(|filter| !matches!(filter, PeerFilter::Addresses(_)))
        };
        self.namespace.is_some() || has_name(&self.from) || has_name(&self.to)
    }

    /// Returns true if it has conditions on names or labels of pods.
    pub(crate) fn needs_pods(&self) -> bool {
        let is_of_pod =
            |filter: &Option<PeerFilter>| matches!(filter, Some(PeerFilter::Pod(_) | PeerFilter::Labels(_)));
        is_of_pod(&self.from) || is_of_pod(&self.to)
    }

    /// Returns true if packets that are dropped, or would be, have to be observed.
    pub(crate) fn needs_drops(&self) -> bool {
        match self.verdicts[..] {
            [] => !self.connections,
            _ => self.verdicts.iter().any(|verdict| !verdict.is_connection()),
        }
    }

    /// Returns true if connections have to be observed.
    pub(crate) fn needs_connections(&self) -> bool {
        match self.verdicts[..] {
            [] => self.connections,
            _ => self.verdicts.iter().any(|verdict| verdict.is_connection()),
        }
    }

    /// Returns true if an event matches all conditions.
    pub(crate) fn matches(&self, event: &TrafficEvent) -> bool {
        let is_observed = match event.verdict.is_connection() {
            true => self.needs_connections(),
            false => self.needs_drops(),
        };
        is_observed
            && (self.verdicts.is_empty() || self.verdicts.contains(&event.verdict))
            && self.from.as_ref().is_none_or(|filter| filter.matches_source(event))
            && self.to.as_ref().is_none_or(|filter| filter.matches_destination(event))
            && self.namespace.as_deref().is_none_or(|namespace| has_namespace(event, namespace))
            && self.port.is_none_or(|port| has_port(event, port))
            && self.protocol.as_deref().is_none_or(|name| event.protocol.eq_ignore_ascii_case(name))
            && self.policy.as_deref().is_none_or(|policy| has_policy(event, policy))
    }
}

impl PeerFilter {
    /// Parses a peer.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(PeerFilter::Addresses(address.into()));
        }
        if let Ok(block) = text.parse::<IpNet>() {
            return Some(PeerFilter::Addresses(block.trunc()));
        }
        if LabelFilter::is_meant(text) {
            return LabelFilter::parse(text).map(PeerFilter::Labels);
        }
        let service = text.strip_prefix("svc/").or_else(|| text.strip_prefix("service/"));
        match service {
            Some(service) => NamePattern::parse(service).map(PeerFilter::Service),
            None => NamePattern::parse(text.strip_prefix("pod/").unwrap_or(text)).map(PeerFilter::Pod),
        }
    }

    /// Adds a namespace to a peer that is a name without one.
    pub(crate) fn with_namespace(text: &str, namespace: Option<&str>) -> String {
        let (kind, name) = match text.split_once('/') {
            Some((kind @ ("svc" | "service" | "pod"), name)) => (Some(kind), name),
            _ => (None, text),
        };
        let has_no_name = kind.is_none() && (text.parse::<IpAddr>().is_ok() || LabelFilter::is_meant(text));
        match namespace {
            Some(namespace) if !name.contains('/') && !has_no_name => {
                format!("{}/{namespace}/{name}", kind.unwrap_or("pod"))
            }
            _ => text.to_owned(),
        }
    }

    fn matches_source(&self, event: &TrafficEvent) -> bool {
        event.source.as_ref().is_some_and(|peer| self.matches(peer))
    }

    fn matches_destination(&self, event: &TrafficEvent) -> bool {
        let frontend = event.frontend.as_ref().is_some_and(|frontend| match self {
            PeerFilter::Addresses(block) => block.contains(&frontend.address),
            PeerFilter::Service(pattern) => {
                frontend.service.as_ref().is_some_and(|name| pattern.matches(name))
            }
            PeerFilter::Pod(_) | PeerFilter::Labels(_) => false,
        });
        frontend || event.destination.as_ref().is_some_and(|peer| self.matches(peer))
    }

    fn matches(&self, peer: &Peer) -> bool {
        match self {
            PeerFilter::Addresses(block) => block.contains(&peer.address),
            PeerFilter::Pod(pattern) => peer.pod.as_ref().is_some_and(|pod| pattern.matches(pod)),
            PeerFilter::Service(pattern) => {
                peer.service.as_ref().is_some_and(|service| pattern.matches(service))
            }
            PeerFilter::Labels(filter) => {
                peer.labels.as_ref().is_some_and(|labels| filter.matches(|key| labels.get(key)))
            }
        }
    }
}

impl NamePattern {
    /// Parses `NAMESPACE/NAME`; a name without namespace is in the namespace `default`.
    fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        let is_name = |text: &str| {
            !text.is_empty()
                && text
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
        };
        let is_pattern = match name.strip_suffix('*') {
            Some(prefix) => prefix.is_empty() || is_name(prefix),
            None => is_name(name),
        };
        // Unlike names of objects, those of namespaces have no dots; an address is none.
        (is_name(namespace) && !namespace.contains('.') && is_pattern)
            .then(|| NamePattern { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    pub(super) fn matches(&self, object: &ObjectRef) -> bool {
        let name = match self.name.strip_suffix('*') {
            Some(prefix) => object.name.starts_with(prefix),
            None => *object.name == *self.name,
        };
        name && *object.namespace == *self.namespace
    }
}

impl std::fmt::Display for NamePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

fn has_namespace(event: &TrafficEvent, namespace: &str) -> bool {
    let peers = [&event.source, &event.destination].into_iter().flatten();
    let objects = peers.flat_map(|peer| [&peer.pod, &peer.service]);
    let frontend = event.frontend.iter().map(|frontend| &frontend.service);
    objects.chain(frontend).flatten().any(|object| *object.namespace == *namespace)
}

fn has_port(event: &TrafficEvent, port: u16) -> bool {
    let destination = event.destination.as_ref().and_then(|peer| peer.port);
    let frontend = event.frontend.as_ref().and_then(|frontend| frontend.port);
    [destination, frontend].contains(&Some(port))
}

/// Returns true if the event names the policy. A policy that is omitted, because there are too many, does not match.
fn has_policy(event: &TrafficEvent, policy: &str) -> bool {
    event.policies.iter().any(|found| found.rsplit(' ').next() == Some(policy))
}

#[cfg(test)]
mod tests {
    use super::super::test_events::{connection, dropped};
    use super::*;

    #[test]
    fn events_are_matched_by_all_conditions() {
        let (dropped, connection) = (dropped(), connection());
        // (query, matches the drop, matches the connection)
        let rows = [
            ("", true, false),
            ("connections=true", false, true),
            ("verdict=dropped,new", true, true),
            ("verdict=dropped&verdict=ended", true, false),
            ("verdict=audit", false, false),
            ("from=shop/web-1", true, true),
            ("verdict=dropped,new&from=shop%2Fweb-*", true, true),
            ("from=shop/db-1", false, false),
            ("from=web-1", false, false),
            ("from=10.244.1.5", true, true),
            ("from=10.244.1.0/24", true, true),
            ("from=10.244.2.0/24", false, false),
            ("to=shop/db-1", true, true),
            ("to=svc/shop/db", true, true),
            ("to=svc/db", false, false),
            ("to=10.96.0.20", true, true),
            ("to=10.244.1.6", true, true),
            ("from=app%3Dweb", true, true),
            ("from=app%3Dweb%2Ctier!%3Dtest", true, true),
            ("from=app%3Ddb", false, false),
            ("to=app%3Dweb", false, false),
            ("namespace=shop", true, true),
            ("namespace=default", false, false),
            ("port=5432", true, true),
            ("port=15432", true, true),
            ("port=40000", false, false),
            ("protocol=tcp", true, true),
            ("protocol=UDP", false, false),
            ("policy=shop/db-from-web", true, false),
            ("policy=db-from-web", false, false),
            ("from=shop/web-1&to=shop/other", false, false),
        ];
        for (query, matches_drop, matches_connection) in rows {
            let mut filter = EventFilter::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
            assert_eq!(filter.matches(&dropped), matches_drop, "{query}: drop");
            if !query.contains("verdict") && !query.contains("connections") {
                filter.connections = !query.is_empty();
            }
            assert_eq!(filter.matches(&connection), matches_connection, "{query}: connection");
        }
    }

    #[test]
    fn names_are_of_the_given_namespace() {
        for (text, expected) in [
            ("web-1", "pod/shop/web-1"),
            ("svc/db", "svc/shop/db"),
            ("pod/web-*", "pod/shop/web-*"),
            ("other/web-1", "other/web-1"),
            ("svc/other/db", "svc/other/db"),
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("app=web", "app=web"),
            ("app.kubernetes.io/name=web", "app.kubernetes.io/name=web"),
        ] {
            assert_eq!(PeerFilter::with_namespace(text, Some("shop")), expected);
            assert_eq!(PeerFilter::with_namespace(text, None), text);
            assert!(PeerFilter::parse(expected).is_some(), "{expected}");
        }
    }

    #[test]
    fn invalid_parameters_are_errors() {
        let rows = [
            ("verdict=drop", "invalid value \"drop\" of verdict: expected dropped, audit, new or ended"),
            ("port=http", "invalid value \"http\" of port: expected a number from 0 to 65535"),
            (
                "protocol=tpc",
                "invalid value \"tpc\" of protocol: expected TCP, UDP, SCTP, ICMP, ICMPv6 or a number",
            ),
            ("from=a/b/c", &format!("invalid value \"a/b/c\" of from: expected {PEER_FORMS}")),
            ("to=10.0.0.0/33", &format!("invalid value \"10.0.0.0/33\" of to: expected {PEER_FORMS}")),
            ("to=a%3Db%20c", &format!("invalid value \"a=b c\" of to: expected {PEER_FORMS}")),
            ("to=We*b", &format!("invalid value \"We*b\" of to: expected {PEER_FORMS}")),
            ("connections=yes", "invalid value \"yes\" of connections: expected true or false"),
            (
                "pod=x",
                "invalid value \"pod\" of the query: expected connections, from, namespace, policy, port, protocol, to or verdict",
            ),
        ];
        for (query, message) in rows {
            assert_eq!(EventFilter::parse(query).map_err(|error| error.to_string()), Err(message.to_owned()));
        }
    }
}
