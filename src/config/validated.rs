//! Validated configuration, which the rest of the program uses.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use portcullis_cluster::IpvsScheduler;
use portcullis_modes::{NodePortAddresses, ProxyMode};
use portcullis_podnet::installation::Installation;
use portcullis_podnet::{PodNetworkMode, Vxlan, Wiring};

use super::detect_local_mode::DetectLocalMode;

/// Configuration of a proxy. It is valid, as far as can be checked without looking at the node.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Proxy mode.
    pub mode: ProxyMode,
    /// Source of the cluster's objects.
    pub source: Source,
    /// Name of this node's Node object, trimmed and in lower case. `None`: the host name.
    pub hostname_override: Option<String>,
    /// Primary IP address of the node, or an unspecified address (`0.0.0.0`, `::`) to use the one in the Node
    /// object. Its family is the primary IP family unless something else determines that.
    pub bind_address: IpAddr,
    /// Listening address of the health server. `None`: disabled.
    pub healthz_bind_address: Option<SocketAddr>,
    /// Listening address of the metrics server. `None`: disabled.
    pub metrics_bind_address: Option<SocketAddr>,
    /// Listening address of the status page. `None`: disabled.
    pub status_page_bind_address: Option<SocketAddr>,
    /// Exit if one of these addresses is in use, instead of retrying.
    pub bind_address_hard_fail: bool,
    /// Path of the Unix socket of the local API. `None`: disabled.
    pub socket: Option<PathBuf>,
    /// Node addresses on which NodePorts are served.
    pub node_port_addresses: NodePortAddresses,
    /// CIDRs that contain all allowed external IPs and load balancer addresses of Services, without host bits.
    /// Empty: all addresses are allowed.
    pub external_address_cidrs: Vec<IpNet>,
    /// Detection of traffic from this node's pods.
    pub detect_local: DetectLocalMode,
    /// Time limit of iptables tools and modprobe.
    pub tool_timeout: Duration,
    /// Intervals between syncs, in the configured mode.
    pub sync: SyncPeriods,
    /// Masquerading, in the configured mode.
    pub masquerade: Masquerade,
    /// Settings of iptables mode only.
    pub iptables: Iptables,
    /// Settings of nftables mode only.
    pub nftables: Nftables,
    /// Settings of ipvs mode only.
    pub ipvs: Ipvs,
    /// Settings of the kernel's connection tracking.
    pub conntrack: Conntrack,
    /// NetworkPolicy enforcement. `None`: disabled.
    pub network_policy: Option<NetworkPolicy>,
    /// The pod network. `None`: another CNI plugin provides it.
    pub pod_network: Option<PodNetwork>,
    /// Folders of the CNI plugin, also without a pod network: an earlier run may have had one.
    pub cni_installation: Installation,
    /// `oom_score_adj` of the process, from -1000 to 1000.
    pub oom_score_adj: i32,
    /// Logging.
    pub logging: Logging,
}

/// Source of the cluster's objects.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// An API server.
    ApiServer(ApiServer),
    /// A manifest file or a folder of manifests.
    Manifests(PathBuf),
}

/// The use of kubectl's credentials by a command: without a kubeconfig in the settings, that of `$KUBECONFIG` or
/// `~/.kube/config` is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubectlCredentials {
    /// The context of `--context`; `None` for the current one.
    pub context: Option<String>,
}

/// Connection to the API server.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiServer {
    /// Path of the kubeconfig. `None` without `master`: the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// A command that may use the credentials of kubectl; `None` for the daemon.
    pub kubectl: Option<KubectlCredentials>,
    /// URL of the server, which overrides the one in the kubeconfig.
    pub master: Option<String>,
    /// Time that commands other than the daemon wait for a response.
    pub request_timeout: Duration,
    /// Longest random wait of the daemon before it lists all objects. At most 2 minutes.
    pub list_jitter: Duration,
}

/// Intervals between syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncPeriods {
    /// Interval of the periodic sync, even if nothing changed. Greater than zero.
    pub period: Duration,
    /// Minimum interval between two syncs; with zero, every change triggers a sync. At most `period`.
    pub min_period: Duration,
}

/// Masquerading settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// Masquerade all traffic to cluster IPs, not only traffic from outside of the cluster.
    pub all: bool,
    /// Bit of the packet mark that requests masquerading.
    pub bit: MasqueradeBit,
}

/// A bit of the packet mark, 0 to 31.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MasqueradeBit(u8);

impl MasqueradeBit {
    /// Returns `None` unless the bit is from 0 to 31.
    pub fn new(bit: i32) -> Option<Self> {
        u8::try_from(bit).ok().filter(|bit| *bit <= 31).map(Self)
    }

    /// Returns the number of the bit.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Returns the mark with only this bit set: `0x4000` for 14.
    pub const fn mark(self) -> u32 {
        1 << self.0
    }
}

/// Settings of iptables mode only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iptables {
    /// Serve NodePorts on 127.0.0.1 (IPv4 only), which requires the sysctl `route_localnet`.
    pub localhost_node_ports: bool,
}

/// Settings of nftables mode only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nftables {
    /// Count the traffic of each Service.
    pub service_counters: bool,
}

/// Settings of ipvs mode only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipvs {
    /// Default scheduler, for Services that request none.
    pub scheduler: IpvsScheduler,
    /// CIDRs whose virtual servers are not managed by the proxy.
    pub exclude_cidrs: Vec<IpNet>,
    /// Set `arp_ignore` to 1 and `arp_announce` to 2.
    pub strict_arp: bool,
    /// Timeout of idle TCP connections. `None` keeps the kernel's value.
    pub tcp_timeout: Option<Duration>,
    /// Timeout of TCP connections after a FIN. `None` keeps the kernel's value.
    pub tcp_fin_timeout: Option<Duration>,
    /// Timeout of idle UDP flows. `None` keeps the kernel's value.
    pub udp_timeout: Option<Duration>,
}

/// Settings of the kernel's connection tracking. `None` keeps the kernel's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// Maximum number of tracked connections per CPU core. `None`: the kernel's limit is kept, and `min` is ignored.
    pub max_per_core: Option<NonZeroU32>,
    /// Lower bound of the limit on tracked connections, regardless of the number of cores.
    pub min: u32,
    /// Timeout of idle established TCP connections.
    pub tcp_established_timeout: Option<Duration>,
    /// Timeout of TCP connections in CLOSE_WAIT.
    pub tcp_close_wait_timeout: Option<Duration>,
    /// Set `nf_conntrack_tcp_be_liberal`.
    pub tcp_be_liberal: bool,
    /// Timeout of unreplied UDP flows.
    pub udp_timeout: Option<Duration>,
    /// Timeout of replied UDP flows.
    pub udp_stream_timeout: Option<Duration>,
}

/// Settings of NetworkPolicy enforcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Action on established connections that a changed policy forbids.
    pub established: Established,
    /// Count and log packets that policies would drop, without dropping them.
    pub audit: bool,
    /// Action on connections of pods that are not known yet.
    pub unknown_pods: UnknownPods,
    /// Logging of dropped packets, if enabled.
    pub log: Option<DropLog>,
    /// Nodes reach pods of other nodes by the overlay of `--pod-network`, in which they have addresses of their own.
    pub has_overlay: bool,
}

/// Action on established connections that a changed policy forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Established {
    /// Leave them open.
    Keep,
    /// Terminate them by deleting their conntrack entries.
    Cut,
}

/// Action on connections of pods that are not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownPods {
    /// Allow them.
    Allow,
    /// Drop them, except those from and to the node itself.
    Deny,
}

/// Logging of dropped packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropLog {
    /// NFLOG group, not 0.
    pub group: u16,
    /// Maximum number of packets per second for pods isolated by the same policies; not 0.
    pub rate: u32,
}

/// Settings of the pod network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNetwork {
    /// How pods of different nodes reach each other.
    pub mode: PodNetworkMode,
    /// How pods are connected to the node.
    pub wiring: Wiring,
    /// MTU of pods' interfaces. `None`: that of the uplink, minus the header of the overlay.
    pub mtu: Option<NonZeroU32>,
    /// The identifier and port of the overlay.
    pub vxlan: Vxlan,
    /// Masquerade traffic of pods to addresses outside of the pod network.
    pub masquerade: bool,
    /// CIDRs to which traffic of pods is not masqueraded, without host bits.
    pub masquerade_exclude_cidrs: Vec<IpNet>,
    /// Folder of the CNI plugin, as this process sees it.
    pub cni_bin_dir: PathBuf,
    /// Folder of the CNI configuration, as this process sees it.
    pub cni_conf_dir: PathBuf,
    /// Folder of the plugin's records of pods, at the same path for this process and the container runtime.
    pub state_dir: PathBuf,
}

/// Log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line. (kube-proxy has only the text format.)
    Json,
}

/// Logging settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logging {
    /// Log format.
    pub format: LogFormat,
    /// Upstream's verbosity: 0 is the lowest, 2 is usual, 4 is for debugging, 9 and above log everything.
    pub verbosity: u32,
}
