//! The documents of the stream of traffic events: one JSON object in each line.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use portcullis_cluster::labels::Labels;
use serde::{Deserialize, Serialize};

/// A line of the stream. The first one is an [`Observation`](StreamLine::Observation).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub(crate) enum StreamLine {
    /// The start of the stream.
    Observation(Observation),
    /// A dropped packet, or a new or ended connection.
    TrafficEvent(Box<TrafficEvent>),
    /// Events were lost.
    LostEvents(LostEvents),
    /// Something cannot be observed, or could not until now.
    Notice(Notice),
}

/// The head of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Observation {
    /// [`API_VERSION`](crate::document::API_VERSION).
    pub(crate) api_version: String,
    /// The name of the node.
    pub(crate) node: String,
}

/// Lost events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LostEvents {
    /// Where they were lost.
    pub(crate) reason: LossReason,
    /// Their number; `null` if it is not known.
    pub(crate) events: Option<u64>,
}

/// Where events are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum LossReason {
    /// The kernel could not deliver them: more arrived than the daemon reads.
    Kernel,
    /// A rule had more drops than it logs in a second.
    RateLimit,
    /// The observer reads too slowly.
    Observer,
}

/// A message about the observation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Notice {
    /// The message.
    pub(crate) message: String,
}

/// The kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Verdict {
    /// A packet was dropped.
    Dropped,
    /// A packet would have been dropped without `--network-policy-audit`.
    Audit,
    /// A connection began.
    New,
    /// A connection ended.
    Ended,
}

impl Verdict {
    /// All kinds.
    pub(crate) const ALL: [Verdict; 4] = [Verdict::Dropped, Verdict::Audit, Verdict::New, Verdict::Ended];

    /// Returns the name, as in documents.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verdict::Dropped => "dropped",
            Verdict::Audit => "audit",
            Verdict::New => "new",
            Verdict::Ended => "ended",
        }
    }

    /// Returns true for connections, and false for packets.
    pub(crate) fn is_connection(self) -> bool {
        matches!(self, Verdict::New | Verdict::Ended)
    }
}

/// Why a packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum DropReason {
    /// A policy denies it, or no policy that isolates the pod allows it.
    Policies,
    /// `loadBalancerSourceRanges` of the Service do not contain its source.
    SourceRanges,
    /// It is of or to a pod that the daemon does not know.
    UnknownPod,
    /// It belongs to a connection that policies terminated.
    TerminatedConnection,
    /// A router advertisement or redirect of a pod.
    RouterAdvertisement,
    /// It is neither IP nor ARP.
    OtherProtocol,
}

impl DropReason {
    /// Returns a description.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            DropReason::Policies => "policies",
            DropReason::SourceRanges => "loadBalancerSourceRanges",
            DropReason::UnknownPod => "pod is not known (unknown-pods=deny)",
            DropReason::TerminatedConnection => "connection was terminated by policies",
            DropReason::RouterAdvertisement => "router advertisement or redirect of a pod",
            DropReason::OtherProtocol => "neither IP nor ARP, from or to an isolated pod",
        }
    }
}

/// A dropped packet, or a new or ended connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TrafficEvent {
    /// The time of the (first) packet.
    pub(crate) time: Timestamp,
    /// The kind of event.
    pub(crate) verdict: Verdict,
    /// The direction that policies deny: `ingress` or `egress`.
    pub(crate) direction: Option<Arc<str>>,
    /// Why the packet is dropped.
    pub(crate) reason: Option<DropReason>,
    /// The policies that isolate the pod, or the one that denies the packet.
    pub(crate) policies: Arc<[Arc<str>]>,
    /// The number of further policies.
    pub(crate) omitted_policies: usize,
    /// The tier of a ClusterNetworkPolicy, or `NetworkPolicy`.
    pub(crate) tier: Option<Arc<str>>,
    /// The transport protocol: `TCP`, `UDP`, `SCTP`, `ICMP`, `ICMPv6` or a number.
    pub(crate) protocol: Arc<str>,
    /// The flags of TCP, such as `SYN`.
    pub(crate) tcp_flags: Option<Arc<str>>,
    /// The type of ICMP.
    pub(crate) icmp_type: Option<u8>,
    /// The code of ICMP.
    pub(crate) icmp_code: Option<u8>,
    /// The source.
    pub(crate) source: Option<Peer>,
    /// The destination: after DNAT, so the endpoint of a Service.
    pub(crate) destination: Option<Peer>,
    /// The destination before DNAT, if it differs or is that of a Service.
    pub(crate) frontend: Option<FrontendRef>,
    /// The interface that received the packet.
    pub(crate) input_interface: Option<Arc<str>>,
    /// The interface to which the packet was going.
    pub(crate) output_interface: Option<Arc<str>>,
    /// The length of the (first) packet.
    pub(crate) bytes: Option<u32>,
    /// The number of equal packets within a tenth of a second.
    pub(crate) count: u32,
    /// Counters of an ended connection; `null` without accounting.
    pub(crate) traffic: Option<ConnectionTraffic>,
    /// The time between start and end of a connection, if the kernel records it.
    pub(crate) duration_seconds: Option<f64>,
}

/// Packets and bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConnectionTraffic {
    /// Packets of the client.
    pub(crate) sent_packets: u64,
    /// Bytes of the client.
    pub(crate) sent_bytes: u64,
    /// Packets of the server.
    pub(crate) received_packets: u64,
    /// Bytes of the server.
    pub(crate) received_bytes: u64,
}

/// One end of a packet or connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Peer {
    /// The address.
    pub(crate) address: IpAddr,
    /// The port.
    pub(crate) port: Option<u16>,
    /// The pod that has the address.
    pub(crate) pod: Option<ObjectRef>,
    /// The node of the pod, or the node that has the address.
    pub(crate) node: Option<Arc<str>>,
    /// A Service of which it is an endpoint.
    pub(crate) service: Option<ObjectRef>,
    /// The labels of the pod, for filters. They are no part of the document.
    #[serde(skip)]
    pub(crate) labels: Option<Arc<Labels>>,
}

/// The destination before DNAT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FrontendRef {
    /// The address.
    pub(crate) address: IpAddr,
    /// The port.
    pub(crate) port: Option<u16>,
    /// The Service.
    pub(crate) service: Option<ObjectRef>,
    /// The name of the Service port.
    pub(crate) port_name: Option<Arc<str>>,
}

/// The namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ObjectRef {
    /// The namespace.
    pub(crate) namespace: Arc<str>,
    /// The name.
    pub(crate) name: Arc<str>,
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
