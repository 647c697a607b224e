//! The configuration after validation: what the rest of the program works with.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use portcullis_cluster::IpvsScheduler;
use portcullis_modes::ProxyMode;

use super::detect_local::DetectLocal;
use super::feature_gates::FeatureGates;
use super::node_port_addresses::NodePortAddresses;

/// The configuration of a proxy. It has been checked: whatever it says can be done, as far as can be
/// told without looking at the node.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How Services are served.
    pub mode: ProxyMode,
    /// Where the cluster's objects come from.
    pub source: Source,
    /// The node's name in the cluster, without blanks around it and in lower case. `None`: the host name.
    pub hostname_override: Option<String>,
    /// The node's primary address, unless it is unspecified (`0.0.0.0`, `::`): then the one in the Node
    /// object counts. In any case its family is the primary one where nothing else decides that.
    pub bind_address: IpAddr,
    /// Where the health of the proxy is served. `None`: nowhere.
    pub healthz_bind_address: Option<SocketAddr>,
    /// Where metrics are served. `None`: nowhere.
    pub metrics_bind_address: Option<SocketAddr>,
    /// End if one of these addresses can't be listened on, rather than trying again.
    pub bind_address_hard_fail: bool,
    /// On which of the node's addresses NodePorts are served.
    pub node_port_addresses: NodePortAddresses,
    /// The blocks to which external IPs and load balancer addresses of Services are restricted, without host bits.
    /// None: all addresses are allowed.
    pub external_address_cidrs: Vec<IpNet>,
    /// How this node's pods are told from others.
    pub detect_local: DetectLocal,
    /// How often rules are synchronised, in the chosen mode.
    pub sync: SyncPeriods,
    /// Masquerading, in the chosen mode.
    pub masquerade: Masquerade,
    /// What concerns iptables mode only.
    pub iptables: Iptables,
    /// What concerns ipvs mode only.
    pub ipvs: Ipvs,
    /// The kernel's connection tracking.
    pub conntrack: Conntrack,
    /// How policies are enforced. `None`: they are not.
    pub network_policy: Option<NetworkPolicy>,
    /// How often everything known from the API server is looked at anew. More than zero.
    pub config_sync_period: Duration,
    /// The process' `oom_score_adj`, from -1000 to 1000.
    pub oom_score_adj: i32,
    /// The log.
    pub logging: Logging,
    /// Kubernetes' feature gates.
    pub feature_gates: FeatureGates,
    /// Whether kube-proxy would serve profiles. Without effect here.
    pub profiling: bool,
    /// The version whose hidden metrics kube-proxy would show. Without effect here.
    pub show_hidden_metrics_for_version: Option<String>,
}

/// Where the cluster's objects come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// An API server.
    ApiServer(ApiServer),
    /// A file or a folder with manifests.
    Manifests(PathBuf),
}

/// How to reach the API server.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiServer {
    /// The kubeconfig. `None`, without `master`: the service account of the pod this runs in.
    pub kubeconfig: Option<PathBuf>,
    /// The server's URL, which beats the one in the kubeconfig.
    pub master: Option<String>,
    /// How long a command that ends by itself waits for an answer.
    pub request_timeout: Duration,
    /// Requests a second, on average. Negative: without limit, as in client-go.
    pub qps: f32,
    /// Requests that may come at once.
    pub burst: u32,
    /// The content type asked for. JSON is what is spoken.
    pub content_type: String,
}

/// How often rules are synchronised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncPeriods {
    /// How often the rules are looked after though nothing changed. More than zero.
    pub period: Duration,
    /// The least time between two synchronisations; zero for one at every change. At most `period`.
    pub min_period: Duration,
}

/// How packets are marked for masquerading, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// All traffic to cluster IPs, not only that from outside of the cluster.
    pub all: bool,
    /// The bit of the packet mark that asks for it.
    pub bit: MasqueradeBit,
}

/// A bit of the packet mark, 0 to 31.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MasqueradeBit(u8);

impl MasqueradeBit {
    /// `None` unless from 0 to 31.
    pub fn new(bit: i32) -> Option<Self> {
        u8::try_from(bit).ok().filter(|bit| *bit <= 31).map(Self)
    }

    /// Its number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The mark with this bit alone: `0x4000` for 14.
    pub const fn mark(self) -> u32 {
        1 << self.0
    }
}

/// What concerns iptables mode only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iptables {
    /// Serve NodePorts on 127.0.0.1 (IPv4 only), which needs the sysctl `route_localnet`.
    pub localhost_node_ports: bool,
}

/// What concerns ipvs mode only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipvs {
    /// The scheduler of Services that ask for none.
    pub scheduler: IpvsScheduler,
    /// Virtual servers with addresses in here belong to others.
    pub exclude_cidrs: Vec<IpNet>,
    /// Set `arp_ignore` to 1 and `arp_announce` to 2.
    pub strict_arp: bool,
    /// For idle TCP connections. `None`: the kernel's setting stays.
    pub tcp_timeout: Option<Duration>,
    /// For TCP connections after a FIN. `None`: the kernel's setting stays.
    pub tcp_fin_timeout: Option<Duration>,
    /// For idle UDP flows. `None`: the kernel's setting stays.
    pub udp_timeout: Option<Duration>,
}

/// Settings of the kernel's connection tracking. `None` leaves the kernel's setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// Connections that may be tracked, for each core. `None`: the limit stays, and `min` is void.
    pub max_per_core: Option<NonZeroU32>,
    /// Connections that may be tracked at least, however few cores there are.
    pub min: u32,
    /// For idle established TCP connections.
    pub tcp_established_timeout: Option<Duration>,
    /// For TCP connections in CLOSE_WAIT.
    pub tcp_close_wait_timeout: Option<Duration>,
    /// Set `nf_conntrack_tcp_be_liberal`.
    pub tcp_be_liberal: bool,
    /// For unanswered UDP flows.
    pub udp_timeout: Option<Duration>,
    /// For answered UDP flows.
    pub udp_stream_timeout: Option<Duration>,
}

/// How NetworkPolicies are enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// What becomes of connections that a changed policy forbids.
    pub established: Established,
    /// Count and log what would be dropped, and drop nothing.
    pub audit: bool,
    /// What becomes of connections of pods that are not known yet.
    pub unknown_pods: UnknownPods,
    /// Where dropped packets are logged, if anywhere.
    pub log: Option<DropLog>,
}

/// What becomes of connections that a changed policy forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Established {
    /// They live on.
    Keep,
    /// They are ended: what conntrack knows of them is deleted.
    Cut,
}

/// What becomes of connections of pods that are not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownPods {
    /// They pass.
    Allow,
    /// They are dropped, except those with the node itself.
    Deny,
}

/// Where dropped packets are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropLog {
    /// The NFLOG group, not 0.
    pub group: u16,
    /// At most so many packets a second for pods that the same policies isolate; not 0.
    pub rate: u32,
}

/// The log's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// An object a line. (kube-proxy itself has the text format only.)
    Json,
}

/// The log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logging {
    /// Its form.
    pub format: LogFormat,
    /// Upstream's level: 0 the least, 2 the usual, 4 for debugging, 9 and above for everything.
    pub verbosity: u32,
    /// How often kube-proxy would flush. Without effect here: nothing is buffered.
    pub flush_frequency: Duration,
}
