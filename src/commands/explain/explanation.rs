//! The explanation of connections: the data that `-o json` prints. No key is left out; `null` means that something does not apply.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::probe::ProbeExplanation;
use crate::proxy_modes::ObjectRules;

/// The explanation of all connections that the arguments name.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explanation {
    /// The worst verdict of all connections.
    pub(super) verdict: Verdict,
    pub(super) client: ClientExplanation,
    pub(super) connections: Vec<ConnectionExplanation>,
    /// The reason why there is no connection to explain.
    pub(super) reason: Option<String>,
    /// Additional notes.
    pub(super) notes: Vec<String>,
}

/// The verdict on a connection, ordered from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Verdict {
    /// The connection reaches all endpoints that it may be sent to.
    Allowed,
    /// Policies deny it at some of the endpoints.
    PartlyAllowed,
    /// Policies deny it.
    Denied,
    /// There is no route for it.
    Unreachable,
}

impl Verdict {
    /// Returns true if the connection can reach an endpoint.
    pub(super) fn arrives(self) -> bool {
        matches!(self, Verdict::Allowed | Verdict::PartlyAllowed)
    }
}

/// The client.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClientExplanation {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) node: Option<String>,
    pub(super) addresses: Vec<IpAddr>,
}

/// The explanation of one connection.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConnectionExplanation {
    pub(super) verdict: Verdict,
    pub(super) family: &'static str,
    pub(super) protocol: &'static str,
    pub(super) from: IpAddr,
    pub(super) to: SocketAddr,
    /// The destination as named on the command line.
    pub(super) target: String,
    pub(super) service: Option<ServiceExplanation>,
    /// The reason why it has no route.
    pub(super) no_route: Option<NoRouteExplanation>,
    pub(super) paths: Vec<PathExplanation>,
    /// Changes that would allow it.
    pub(super) advice: Vec<Advice>,
    /// The rules of `--rules`, in the order in which the connection meets them.
    pub(super) rules: Option<Vec<NodeRules>>,
    /// The result of `--probe`.
    pub(super) probe: Option<ProbeExplanation>,
}

/// The rules of a node for a Service, or for the policies of a pod.
#[derive(PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeRules {
    pub(super) node: String,
    /// The Service, or the pod and the direction.
    pub(super) subject: String,
    pub(super) objects: Vec<ObjectRules>,
}

/// The Service that the connection uses.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceExplanation {
    /// `namespace/name:port`.
    pub(super) port: String,
    /// The kind of the frontend.
    pub(super) frontend: &'static str,
    /// The node whose rules route the connection.
    pub(super) node: String,
    /// `Cluster` or `Local`.
    pub(super) traffic_policy: &'static str,
    /// The number of endpoints among which new connections are distributed.
    pub(super) chosen: usize,
    /// The number of ready endpoints.
    pub(super) ready: usize,
    /// The number of endpoints.
    pub(super) total: usize,
    pub(super) affinity_seconds: Option<u32>,
    /// `kept` or `masqueraded`.
    pub(super) source: &'static str,
    pub(super) source_reason: Option<&'static str>,
    /// Additional remarks.
    pub(super) remarks: Vec<String>,
}

/// The reason why a connection has no route.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NoRouteExplanation {
    /// `rejected`: the client gets an error; `dropped`: it gets no response; `notServed`: no rule matches.
    pub(super) kind: &'static str,
    pub(super) reason: String,
    pub(super) hint: String,
}

/// A destination that a connection can reach.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PathExplanation {
    pub(super) allowed: bool,
    pub(super) to: SocketAddr,
    /// The pod or node that has the address.
    pub(super) name: Option<String>,
    pub(super) node: Option<String>,
    /// One in this many new connections is sent here.
    pub(super) one_in: usize,
    /// The source address that the destination's policies see, if it is not the client's.
    pub(super) seen_as: Option<IpAddr>,
    /// The reason why replies do not reach the client.
    pub(super) lost: Option<String>,
    /// A note if no container of the destination declares the port, although a process may listen on it.
    pub(super) undeclared_port: Option<String>,
    /// The node that masquerades the connection.
    pub(super) masqueraded_by: Option<String>,
    /// What the pod network does with it; `null` without `--pod-network`.
    pub(super) pod_network: Option<PodNetworkExplanation>,
    pub(super) egress: PolicyExplanation,
    pub(super) ingress: PolicyExplanation,
}

impl PathExplanation {
    /// Returns true if the pod network has no way to the destination.
    pub(super) fn lacks_route(&self) -> bool {
        self.pod_network.as_ref().is_some_and(|network| network.no_route.is_some())
    }
}

/// What the pod network does with a connection.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodNetworkExplanation {
    /// The node whose host port is forwarded to the pod.
    pub(super) host_port_of: Option<String>,
    /// The node that masquerades the connection, because it leaves the pod network.
    pub(super) masqueraded_by: Option<String>,
    /// The way to the node of the pod; `null` if the connection does not change nodes, or the way is not one of the pod network.
    pub(super) route: Option<NodeRouteExplanation>,
    /// The reason why there is no way to the node of the pod.
    pub(super) no_route: Option<String>,
}

/// The way between two nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeRouteExplanation {
    pub(super) from: String,
    pub(super) to: String,
    /// The pod CIDR.
    pub(super) destination: String,
    pub(super) way: NodeWay,
    /// The address of the node to which packets are sent.
    pub(super) via: IpAddr,
}

/// How packets get to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum NodeWay {
    /// By way of an address on a common link.
    Link,
    /// In the overlay.
    Overlay,
    /// By a common link, if there is one, otherwise in the overlay.
    LinkOrOverlay,
}

/// The decision of the policies at one end of a connection.
#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PolicyExplanation {
    pub(super) allowed: bool,
    /// `notEvaluated` (no policy applies), `notSelected`, `ownNode`, `itself`, `rule`, `noRuleMatches` or `undecided`.
    pub(super) reason: &'static str,
    /// The reason as text.
    pub(super) text: String,
    /// The rule that decided.
    pub(super) rule: Option<RuleExplanation>,
    /// The policies that isolate the pod, none of which allows the connection.
    pub(super) isolated_by: Vec<String>,
    /// Pass rules that matched before.
    pub(super) passed: Vec<RuleExplanation>,
}

/// A rule of a policy.
#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RuleExplanation {
    pub(super) policy: String,
    /// As in `spec.ingress[0]`.
    pub(super) place: String,
    pub(super) name: Option<String>,
    pub(super) action: String,
    pub(super) tier: String,
    pub(super) priority: Option<u16>,
}

/// A change that would allow the connection at one end.
#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Advice {
    /// `ingress` or `egress`.
    pub(super) direction: &'static str,
    /// What to change, in lines of text.
    pub(super) instructions: Vec<String>,
    /// A NetworkPolicy to apply.
    pub(super) manifest: Option<String>,
    /// A rule to insert.
    pub(super) rule: Option<String>,
}
