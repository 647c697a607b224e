//! Peers of a connection, as named on the command line.

use std::fmt;
use std::net::IpAddr;

use portcullis_cluster::address::parse_ip;
use portcullis_cluster::{Name, NamespacedName};

use super::argument::MalformedArgument;

/// A peer of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A pod or a Service.
    Named(NamespacedName),
    /// A pod.
    Pod(NamespacedName),
    /// A Service.
    Service(NamespacedName),
    /// A node.
    Node(Name),
    /// An address.
    Address(IpAddr),
}

/// A peer as named on the command line. Some names need the cluster to be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PeerArgument {
    /// A name that says what it is.
    Peer(Peer),
    /// `deploy/NAME` and others: one of its pods.
    Workload(WorkloadKind, NamespacedName),
    /// `node`: the client's own node.
    OwnNode,
    /// A name with a dot: a pod with this name, else the Service `NAME.NAMESPACE`.
    Dotted {
        /// The pod.
        pod: NamespacedName,
        /// The Service.
        service: NamespacedName,
    },
}

/// A kind of objects that create pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkloadKind {
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Job,
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// The kind of a name with a prefix.
#[derive(Clone, Copy)]
enum Kind {
    Pod,
    Service,
    Node,
    Workload(WorkloadKind),
}

/// The prefixes of names, with the short names of `kubectl api-resources`.
const KINDS: [(&[&str], Kind); 8] = [
    (&["pod", "pods", "po"], Kind::Pod),
    (&["service", "services", "svc"], Kind::Service),
    (&["node", "nodes", "no"], Kind::Node),
    (&["deployment", "deployments", "deploy"], Kind::Workload(WorkloadKind::Deployment)),
    (&["replicaset", "replicasets", "rs"], Kind::Workload(WorkloadKind::ReplicaSet)),
    (&["statefulset", "statefulsets", "sts"], Kind::Workload(WorkloadKind::StatefulSet)),
    (&["daemonset", "daemonsets", "ds"], Kind::Workload(WorkloadKind::DaemonSet)),
    (&["job", "jobs"], Kind::Workload(WorkloadKind::Job)),
];

const EXPECTED: &str =
    "NAME, NAMESPACE/NAME, KIND/NAME, KIND/NAMESPACE/NAME, a DNS name of a Service, a URL or an address";

/// Returns all prefixes of names.
pub(super) fn kind_names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().flat_map(|(names, _)| names.iter().copied())
}

fn kind(text: &str) -> Option<Kind> {
    KINDS.iter().find(|(names, _)| names.contains(&text)).map(|(_, kind)| *kind)
}

impl PeerArgument {
    /// Parses a peer without a port. A name without a namespace is in `namespace`.
    pub(super) fn parse(text: &str, namespace: &str) -> Result<PeerArgument, MalformedArgument> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Some(address) = parse_ip(bare) {
            return Ok(PeerArgument::Peer(Peer::Address(address)));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let wrong = || MalformedArgument::new(text, EXPECTED);
        if parts.iter().any(|part| part.is_empty() || part.contains([':', '[', ']', ' '])) {
            return Err(wrong());
        }
        let key = NamespacedName::new;
        Ok(match parts[..] {
            ["node"] => PeerArgument::OwnNode,
            [name] if name.contains('.') => from_dns_name(name, namespace).ok_or_else(wrong)?,
            [name] => PeerArgument::Peer(Peer::Named(key(namespace, name))),
            [first, name] => match kind(first) {
                Some(kind) => of_kind(kind, key(namespace, name)),
                None => PeerArgument::Peer(Peer::Named(key(first, name))),
            },
            [first, inner, name] => match kind(first) {
                None | Some(Kind::Node) => return Err(wrong()),
                Some(kind) => of_kind(kind, key(inner, name)),
            },
            _ => return Err(wrong()),
        })
    }
}

fn of_kind(kind: Kind, key: NamespacedName) -> PeerArgument {
    match kind {
        Kind::Pod => PeerArgument::Peer(Peer::Pod(key)),
        Kind::Service => PeerArgument::Peer(Peer::Service(key)),
        Kind::Node => PeerArgument::Peer(Peer::Node(Name::new(&key.name))),
        Kind::Workload(kind) => PeerArgument::Workload(kind, key),
    }
}

/// Parses a DNS name of the cluster (the Kubernetes specification "DNS-Based Service Discovery"), with any cluster domain:
/// `SERVICE.NAMESPACE.svc`, `POD.SERVICE.NAMESPACE.svc`, `10-0-0-1.NAMESPACE.pod`. Other names with a dot may be a pod, or
/// `SERVICE.NAMESPACE`.
fn from_dns_name(text: &str, namespace: &str) -> Option<PeerArgument> {
    let labels: Vec<&str> = text.strip_suffix('.').unwrap_or(text).split('.').collect();
    if labels.iter().any(|label| label.is_empty()) {
        return None;
    }
    let key = NamespacedName::new;
    Some(match labels[..] {
        [service, of, "svc", ..] => PeerArgument::Peer(Peer::Service(key(of, service))),
        [pod, _, of, "svc", ..] => PeerArgument::Peer(Peer::Pod(key(of, pod))),
        [address, _, "pod", ..] => {
            let v4 = parse_ip(&address.replace('-', "."));
            PeerArgument::Peer(Peer::Address(v4.or_else(|| parse_ip(&address.replace('-', ":")))?))
        }
        [service, of, ..] => PeerArgument::Dotted { pod: key(namespace, text), service: key(of, service) },
        _ => return None,
    })
}

/// Parses the host of a URL, which is an address or a DNS name.
pub(super) fn from_host(host: &str, namespace: &str) -> Option<PeerArgument> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Some(address) = parse_ip(bare) {
        return Some(PeerArgument::Peer(Peer::Address(address)));
    }
    if host.is_empty() || host.contains([':', '[', ']', ' ', '/']) {
        return None;
    }
    match host.contains('.') {
        true => from_dns_name(host, namespace),
        false => Some(PeerArgument::Peer(Peer::Service(NamespacedName::new(namespace, host)))),
    }
}
