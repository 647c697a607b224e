//! Raw settings, as read from flags and files and not yet validated.
//!
//! Like upstream's versioned configuration, they have a section for each mode.
//! [`validation`](super::validation) turns them into a [`Config`](super::Config).

use std::collections::BTreeMap;

use portcullis_podnet::Vxlan;

use super::go_duration::GoDuration;

/// Default port of the health server.
pub(super) const HEALTHZ_PORT: u16 = 10256;
/// Default port of the metrics server.
pub(super) const METRICS_PORT: u16 = 10249;
/// Default path of the Unix socket of the local API.
pub(super) const SOCKET: &str = "/run/portcullis/portcullis.sock";
/// Default port of the status page.
pub(super) const STATUS_PAGE_PORT: u16 = 10262;

/// All settings; the table in [`setting_table`](super::setting_table) documents each field.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) actions: Actions,
    pub(super) compatibility: Compatibility,
    pub(super) mode: String,
    pub(super) manifests: String,
    pub(super) master: String,
    pub(super) request_timeout: GoDuration,
    pub(super) list_jitter: GoDuration,
    pub(super) client_connection: ClientConnection,
    pub(super) hostname_override: String,
    pub(super) bind_address: String,
    pub(super) healthz_bind_address: String,
    pub(super) metrics_bind_address: String,
    pub(super) status_page_bind_address: String,
    pub(super) bind_address_hard_fail: bool,
    pub(super) socket: String,
    pub(super) enable_profiling: bool,
    pub(super) show_hidden_metrics_for_version: String,
    pub(super) feature_gates: BTreeMap<String, bool>,
    pub(super) detect_local_mode: String,
    pub(super) cluster_cidrs: Vec<String>,
    pub(super) bridge_interface: String,
    pub(super) interface_name_prefix: String,
    pub(super) node_port_addresses: Vec<String>,
    pub(super) external_address_cidrs: Vec<String>,
    pub(super) oom_score_adj: i32,
    pub(super) tool_timeout: GoDuration,
    pub(super) config_sync_period: GoDuration,
    pub(super) iptables: Iptables,
    pub(super) ipvs: Ipvs,
    pub(super) nftables: Nftables,
    pub(super) conntrack: Conntrack,
    pub(super) network_policy: NetworkPolicy,
    pub(super) pod_network: PodNetwork,
    pub(super) logging: Logging,
}

/// Settings that have a flag but no field in files.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Actions {
    pub(super) config: String,
    pub(super) write_config_to: String,
    pub(super) cleanup: bool,
    pub(super) init_only: bool,
    pub(super) once: bool,
    pub(super) force: bool,
}

/// Settings accepted for compatibility with kube-proxy.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Compatibility {
    pub(super) boot_id_file: String,
    pub(super) machine_id_file: String,
    pub(super) healthz_port: i32,
    pub(super) metrics_port: i32,
    pub(super) port_range: String,
    pub(super) windows_run_as_service: bool,
    pub(super) winkernel: Winkernel,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Winkernel {
    pub(super) network_name: String,
    pub(super) source_vip: String,
    pub(super) enable_dsr: bool,
    pub(super) root_hns_endpoint_name: String,
    pub(super) forward_health_check_vip: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ClientConnection {
    pub(super) kubeconfig: String,
    pub(super) accept_content_types: String,
    pub(super) content_type: String,
    pub(super) qps: f32,
    pub(super) burst: i32,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Iptables {
    pub(super) masquerade_all: bool,
    pub(super) masquerade_bit: i32,
    pub(super) localhost_node_ports: bool,
    pub(super) sync_period: GoDuration,
    pub(super) min_sync_period: GoDuration,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ipvs {
    pub(super) scheduler: String,
    pub(super) exclude_cidrs: Vec<String>,
    pub(super) strict_arp: bool,
    pub(super) tcp_timeout: GoDuration,
    pub(super) tcp_fin_timeout: GoDuration,
    pub(super) udp_timeout: GoDuration,
    pub(super) sync_period: GoDuration,
    pub(super) min_sync_period: GoDuration,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Nftables {
    pub(super) masquerade_all: bool,
    pub(super) masquerade_bit: i32,
    pub(super) sync_period: GoDuration,
    pub(super) min_sync_period: GoDuration,
    pub(super) service_counters: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Conntrack {
    pub(super) max_per_core: i32,
    pub(super) min: i32,
    pub(super) tcp_established_timeout: GoDuration,
    pub(super) tcp_close_wait_timeout: GoDuration,
    pub(super) tcp_be_liberal: bool,
    pub(super) udp_timeout: GoDuration,
    pub(super) udp_stream_timeout: GoDuration,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct NetworkPolicy {
    pub(super) enabled: bool,
    pub(super) established: String,
    pub(super) audit: bool,
    pub(super) unknown_pods: String,
    pub(super) log_group: i32,
    pub(super) log_rate: i32,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct PodNetwork {
    pub(super) mode: String,
    pub(super) wiring: String,
    pub(super) mtu: i32,
    pub(super) vxlan_id: i32,
    pub(super) vxlan_port: i32,
    pub(super) masquerade: bool,
    pub(super) masquerade_exclude_cidrs: Vec<String>,
    pub(super) cni_bin_dir: String,
    pub(super) cni_conf_dir: String,
    pub(super) state_dir: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Logging {
    pub(super) format: String,
    pub(super) verbosity: i32,
    pub(super) flush_frequency: GoDuration,
    pub(super) vmodule: Vec<VModule>,
    pub(super) text: OutputRouting,
    pub(super) json: OutputRouting,
}

/// Verbosity of the source files that match a pattern.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct VModule {
    pub(super) file_pattern: String,
    pub(super) verbosity: i32,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct OutputRouting {
    pub(super) split_stream: bool,
    pub(super) info_buffer_size: String,
}

const SYNC_PERIOD: GoDuration = GoDuration::seconds(30);
const MIN_SYNC_PERIOD: GoDuration = GoDuration::seconds(1);

impl Default for Settings {
    /// Returns kube-proxy's defaults without a configuration file. (Defaults with a file:
    /// [`Settings::for_kube_proxy_file`].)
    fn default() -> Self {
        Self {
            actions: Actions::default(),
            compatibility: Compatibility::default(),
            mode: String::new(),
            manifests: String::new(),
            master: String::new(),
            request_timeout: GoDuration::seconds(5),
            list_jitter: GoDuration::ZERO,
            client_connection: ClientConnection {
                kubeconfig: String::new(),
                accept_content_types: String::new(),
                content_type: "application/vnd.kubernetes.protobuf".into(),
                qps: 5.0,
                burst: 10,
            },
            hostname_override: String::new(),
            bind_address: "0.0.0.0".into(),
            healthz_bind_address: format!("0.0.0.0:{HEALTHZ_PORT}"),
            metrics_bind_address: format!("127.0.0.1:{METRICS_PORT}"),
            status_page_bind_address: String::new(),
            bind_address_hard_fail: false,
            socket: SOCKET.into(),
            enable_profiling: false,
            show_hidden_metrics_for_version: String::new(),
            feature_gates: BTreeMap::new(),
            detect_local_mode: String::new(),
            cluster_cidrs: Vec::new(),
            bridge_interface: String::new(),
            interface_name_prefix: String::new(),
            external_address_cidrs: Vec::new(),
            node_port_addresses: Vec::new(),
            oom_score_adj: -999,
            tool_timeout: GoDuration::seconds(40),
            config_sync_period: GoDuration::seconds(15 * 60),
            iptables: Iptables::default(),
            ipvs: Ipvs::default(),
            nftables: Nftables::default(),
            conntrack: Conntrack::default(),
            network_policy: NetworkPolicy::default(),
            pod_network: PodNetwork::default(),
            logging: Logging::default(),
        }
    }
}

impl Settings {
    /// Returns the defaults of a `KubeProxyConfiguration` file. Upstream has no default for `ipvs.minSyncPeriod`
    /// there, so it is 0, while without a file IPVS mode uses the 1 s of iptables mode.
    pub(super) fn for_kube_proxy_file() -> Self {
        let mut settings = Self::default();
        settings.ipvs.min_sync_period = GoDuration::ZERO;
        settings
    }
}

impl Default for Compatibility {
    fn default() -> Self {
        Self {
            boot_id_file: "/proc/sys/kernel/random/boot_id".into(),
            machine_id_file: "/etc/machine-id,/var/lib/dbus/machine-id".into(),
            healthz_port: HEALTHZ_PORT.into(),
            metrics_port: METRICS_PORT.into(),
            port_range: String::new(),
            windows_run_as_service: false,
            winkernel: Winkernel::default(),
        }
    }
}

impl Default for Iptables {
    fn default() -> Self {
        Self {
            masquerade_all: false,
            masquerade_bit: 14,
            localhost_node_ports: true,
            sync_period: SYNC_PERIOD,
            min_sync_period: MIN_SYNC_PERIOD,
        }
    }
}

impl Default for Ipvs {
    fn default() -> Self {
        Self {
            scheduler: String::new(),
            exclude_cidrs: Vec::new(),
            strict_arp: false,
            tcp_timeout: GoDuration::ZERO,
            tcp_fin_timeout: GoDuration::ZERO,
            udp_timeout: GoDuration::ZERO,
            sync_period: SYNC_PERIOD,
            min_sync_period: MIN_SYNC_PERIOD,
        }
    }
}

impl Default for Nftables {
    fn default() -> Self {
        Self {
            masquerade_all: false,
            masquerade_bit: 14,
            sync_period: SYNC_PERIOD,
            min_sync_period: MIN_SYNC_PERIOD,
            service_counters: false,
        }
    }
}

impl Default for Conntrack {
    fn default() -> Self {
        Self {
            max_per_core: 32 * 1024,
            min: 128 * 1024,
            tcp_established_timeout: GoDuration::seconds(24 * 3600),
            tcp_close_wait_timeout: GoDuration::seconds(3600),
            tcp_be_liberal: false,
            udp_timeout: GoDuration::ZERO,
            udp_stream_timeout: GoDuration::ZERO,
        }
    }
}

impl Default for NetworkPolicy {
    fn default() -> Self {
        Self {
            enabled: false,
            established: String::new(),
            audit: false,
            unknown_pods: String::new(),
            log_group: 0,
            log_rate: 10,
        }
    }
}

impl Default for PodNetwork {
    fn default() -> Self {
        Self {
            mode: String::new(),
            wiring: String::new(),
            mtu: 0,
            vxlan_id: Vxlan::default().id as i32,
            vxlan_port: Vxlan::default().port.into(),
            masquerade: true,
            masquerade_exclude_cidrs: Vec::new(),
            cni_bin_dir: "/opt/cni/bin".into(),
            cni_conf_dir: "/etc/cni/net.d".into(),
            state_dir: portcullis_podnet::STATE_DIR.into(),
        }
    }
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            format: "text".into(),
            verbosity: 0,
            flush_frequency: GoDuration::seconds(5),
            vmodule: Vec::new(),
            text: OutputRouting::default(),
            json: OutputRouting::default(),
        }
    }
}

impl Default for OutputRouting {
    fn default() -> Self {
        Self { split_stream: false, info_buffer_size: "0".into() }
    }
}
