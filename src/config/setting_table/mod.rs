//! Table of all settings, one row each, with the name of the setting as a flag, in a `KubeProxyConfiguration` and in TOML.
//!
//! Some flags of kube-proxy set two fields and have a row for each, the first of which has the help text:
//! `--masquerade-all` is for every mode, `--iptables-sync-period` for iptables and nftables mode. The
//! mode has two flags; the later row wins. Settings without effect have no name in TOML.

mod kernel;
mod network_policy;
mod pod_network;

use kernel::{CONNTRACK, IPTABLES, IPVS, NFTABLES};

use network_policy::NETWORK_POLICY;
use pod_network::POD_NETWORK;

use super::field_ref::FieldRef;
use super::setting::Setting;

const NOT_BUFFERED: &str = "Portcullis does not buffer its log";
const NO_WINDOWS: &str = "it is for Windows only";
pub(super) const NO_REFRESH: &str = "Portcullis watches the API server and needs no periodic refresh";
const NO_CADVISOR: &str = "it comes from a library, and kube-proxy does not use it either";

/// The rows by subject, with the subject's heading in the help.
pub(super) const SUBJECTS: &[(&str, &[Setting])] = &[
    ("Actions", ACTIONS),
    ("General", GENERAL),
    ("API server", API_SERVER),
    ("Listening addresses", LISTENERS),
    ("Local traffic detection", DETECT_LOCAL),
    ("iptables mode", IPTABLES),
    ("ipvs mode", IPVS),
    ("nftables mode", NFTABLES),
    ("Connection tracking", CONNTRACK),
    ("NetworkPolicy", NETWORK_POLICY),
    ("Pod network", POD_NETWORK),
    ("Logging", LOGGING),
    ("Compatibility with kube-proxy", COMPATIBILITY),
];

/// Iterates over all rows.
pub(super) fn settings() -> impl Iterator<Item = &'static Setting> {
    SUBJECTS.iter().flat_map(|(_, rows)| rows.iter())
}

const ACTIONS: &[Setting] = &[
    Setting::new(|s| FieldRef::Text(&mut s.actions.config)).override_flag(
        "config",
        "Read settings from this file: a KubeProxyConfiguration (YAML or JSON) or Portcullis TOML. \
             As in kube-proxy, most other flags are then ignored (with a warning)",
    ),
    Setting::new(|s| FieldRef::Text(&mut s.actions.write_config_to)).override_flag(
        "write-config-to",
        "Write the settings to this file and exit: as a KubeProxyConfiguration, or as Portcullis TOML if \
             the file name ends in .toml or a setting has no field in a KubeProxyConfiguration",
    ),
    Setting::new(|s| FieldRef::Bool(&mut s.actions.cleanup)).override_flag(
        "cleanup",
        "Remove the rules of all proxy modes from the kernel and exit (same as the cleanup subcommand)",
    ),
    Setting::new(|s| FieldRef::Bool(&mut s.actions.init_only)).override_flag(
        "init-only",
        "Perform the setup that needs full root privileges and exit; later starts need only CAP_NET_ADMIN",
    ),
    Setting::new(|s| FieldRef::Bool(&mut s.actions.once)).override_flag(
        "once",
        "Sync once and exit, leaving the rules in place. The exit status is 0 if every Service is served",
    ),
    Setting::new(|s| FieldRef::Bool(&mut s.actions.force)).override_flag(
        "force",
        "Write or remove the NetworkPolicy table even if another process in this network namespace enforces policies",
    ),
];

const GENERAL: &[Setting] = &[
    Setting::new(|s| FieldRef::Text(&mut s.mode))
        .yaml("mode")
        .flag("proxy-mode", "kube-proxy's name for --mode; ignored with --config")
        .with_type_name("ProxyMode"),
    Setting::new(|s| FieldRef::Text(&mut s.mode))
        .yaml("mode")
        .toml("mode")
        .override_flag(
            "mode",
            "Proxy mode: iptables (the default), ipvs or nftables. Overrides the file of --config",
        )
        .with_type_name("ProxyMode"),
    Setting::new(|s| FieldRef::Text(&mut s.manifests))
        .toml("manifests")
        .override_flag(
            "manifests",
            "Read the cluster's objects from this file or folder of YAML or JSON instead of an API server, \
             and watch it for changes",
        )
        .with_type_name("path"),
    Setting::new(|s| FieldRef::Text(&mut s.hostname_override))
        .yaml("hostnameOverride")
        .toml("hostname-override")
        .override_flag(
            "hostname-override",
            "Name of this node's Node object. Defaults to the host name in lower case",
        ),
    Setting::new(|s| FieldRef::Text(&mut s.bind_address))
        .yaml("bindAddress")
        .toml("bind-address")
        .zero_is_default()
        .flag(
            "bind-address",
            "Primary IP address of the node, overriding the one in its Node object. Despite the name, nothing \
             listens on it; its family is the primary IP family; ignored with --config",
        )
        .with_type_name("ip"),
    Setting::new(|s| FieldRef::List(&mut s.node_port_addresses))
        .yaml("nodePortAddresses")
        .toml("nodeport-addresses")
        .flag(
            "nodeport-addresses",
            "Node addresses on which NodePorts are served: CIDRs, or \"primary\" for the addresses in the \
             Node object. \"localhost\" may be added. Defaults to all addresses (nftables mode: \
             primary); ignored with --config",
        ),
    Setting::new(|s| FieldRef::List(&mut s.external_address_cidrs))
        .toml("external-address-cidrs")
        .override_flag(
            "external-address-cidrs",
            "Serve only the external IPs and load balancer addresses of Services that are in these CIDRs. \
             Defaults to all addresses",
        ),
    Setting::new(|s| FieldRef::Integer(&mut s.oom_score_adj)).yaml("oomScoreAdj").toml("oom-score-adj").flag(
        "oom-score-adj",
        "oom_score_adj of this process, from -1000 (never killed when memory runs out) to 1000; \
             ignored with --config",
    ),
    Setting::new(|s| FieldRef::Duration(&mut s.tool_timeout)).toml("tool-timeout").override_flag(
        "tool-timeout",
        "Time after which an iptables tool, modprobe or exec plugin of a kubeconfig that has not ended is killed; it gets a \
         second more for every 256 KiB that it reads or prints, and waits for a processor do not count; must be greater than 0",
    ),
    Setting::new(|s| FieldRef::Duration(&mut s.config_sync_period))
        .yaml("configSyncPeriod")
        .zero_is_default()
        .unused(NO_REFRESH)
        .flag("config-sync-period", "Accepted for compatibility with kube-proxy, no effect"),
    Setting::new(|s| FieldRef::Gates(&mut s.feature_gates)).yaml("featureGates").toml("feature-gates").flag(
        "feature-gates",
        "Kubernetes feature gates, as GATE=true,GATE=false. The gates of kube-proxy v1.36 are accepted, but none of \
         them changes how Services are served",
    ),
    Setting::new(|s| FieldRef::Bool(&mut s.enable_profiling))
        .yaml("enableProfiling")
        .unused("there are no Go profiles to serve at /debug/pprof")
        .flag("profiling", "Accepted for compatibility with kube-proxy, no effect; ignored with --config"),
];

const API_SERVER: &[Setting] = &[
    Setting::new(|s| FieldRef::Text(&mut s.client_connection.kubeconfig))
        .yaml("clientConnection.kubeconfig")
        .toml("api-server.kubeconfig")
        .flag(
            "kubeconfig",
            "kubeconfig with the API server's address and credentials. Without it and without --master, the \
             service account of the pod is used",
        ),
    Setting::new(|s| FieldRef::Text(&mut s.master))
        .toml("api-server.master")
        .override_flag("master", "URL of the API server; overrides the one in the kubeconfig"),
    Setting::new(|s| FieldRef::Duration(&mut s.request_timeout)).toml("api-server.request-timeout").override_flag(
        "request-timeout",
        "Time after which render, diff, explain, policy, migrate and --once fail without a response from the API \
         server; must be greater than 0",
    ),
    Setting::new(|s| FieldRef::Duration(&mut s.list_jitter)).toml("api-server.list-jitter").override_flag(
        "list-jitter",
        "Longest random wait before all objects are listed, at the start and when a watch cannot be continued, so that \
         the nodes of a large cluster that restart together spread their lists; up to 2m; 0 lists without a wait at the start",
    ),
    Setting::new(|s| FieldRef::Float(&mut s.client_connection.qps))
        .yaml("clientConnection.qps")
        .zero_is_default()
        .unused("Portcullis keeps one watch per kind, so there is nothing to limit")
        .flag("kube-api-qps", "Accepted for compatibility with kube-proxy; requests are too few to be limited"),
    Setting::new(|s| FieldRef::Integer(&mut s.client_connection.burst))
        .yaml("clientConnection.burst")
        .zero_is_default()
        .unused("Portcullis keeps one watch per kind, so there is nothing to limit")
        .flag("kube-api-burst", "Accepted for compatibility with kube-proxy; requests are too few to be limited"),
    Setting::new(|s| FieldRef::Text(&mut s.client_connection.content_type))
        .yaml("clientConnection.contentType")
        .zero_is_default()
        .unused("Portcullis always requests JSON from the API server")
        .flag("kube-api-content-type", "Accepted for compatibility with kube-proxy; responses are always JSON"),
    Setting::new(|s| FieldRef::Text(&mut s.client_connection.accept_content_types))
        .yaml("clientConnection.acceptContentTypes")
        .unused("Portcullis always requests JSON from the API server"),
];

const LISTENERS: &[Setting] = &[
    Setting::new(|s| FieldRef::Text(&mut s.healthz_bind_address))
        .yaml("healthzBindAddress")
        .toml("healthz-bind-address")
        .zero_is_default()
        .flag(
            "healthz-bind-address",
            "Listening address of /healthz and /livez: an IP address, optionally with a port. Empty disables \
             the server; ignored with --config",
        )
        .with_type_name("ipport"),
    Setting::new(|s| FieldRef::Text(&mut s.metrics_bind_address))
        .yaml("metricsBindAddress")
        .toml("metrics-bind-address")
        .zero_is_default()
        .flag(
            "metrics-bind-address",
            "Listening address of /metrics: an IP address, optionally with a port. Empty disables the server; \
             ignored with --config",
        )
        .with_type_name("ipport"),
    Setting::new(|s| FieldRef::Text(&mut s.status_page_bind_address))
        .toml("status-page-bind-address")
        .override_flag(
            "status-page-bind-address",
            "Listening address of the status page for browsers: an IP address, optionally with a port (10262 by default). \
             Empty disables the page. Every host that reaches the address can read the page, so use a loopback address",
        )
        .with_type_name("ipport"),
    Setting::new(|s| FieldRef::Bool(&mut s.bind_address_hard_fail))
        .yaml("bindAddressHardFail")
        .toml("bind-address-hard-fail")
        .flag(
            "bind-address-hard-fail",
            "Exit if a listening address is in use, instead of retrying",
        ),
    Setting::new(|s| FieldRef::Text(&mut s.socket))
        .toml("socket")
        .override_flag(
            "socket",
            "Unix socket of the local API, which portcullis status and other commands read. Only the user of the daemon and root \
             may connect. Empty disables it",
        )
        .with_type_name("path"),
    Setting::new(|s| FieldRef::Text(&mut s.show_hidden_metrics_for_version))
        .yaml("showHiddenMetricsForVersion")
        .unused("no metric is hidden")
        .flag(
            "show-hidden-metrics-for-version",
            "Accepted for compatibility with kube-proxy, no effect: the previous minor version of Kubernetes, \
             1.35; ignored with --config",
        ),
];

const DETECT_LOCAL: &[Setting] = &[
    Setting::new(|s| FieldRef::Text(&mut s.detect_local_mode))
        .yaml("detectLocalMode")
        .toml("detect-local.mode")
        .flag(
            "detect-local-mode",
            "How traffic of this node's pods is detected: ClusterCIDR (the default), NodeCIDR (the default with --pod-network and \
             without --cluster-cidr), BridgeInterface or InterfaceNamePrefix; ignored with --config",
        )
        .with_type_name("LocalMode"),
    Setting::new(|s| FieldRef::Joined(&mut s.cluster_cidrs))
        .yaml("clusterCIDR")
        .toml("detect-local.cluster-cidrs")
        .flag(
            "cluster-cidr",
            "ClusterCIDR mode: CIDR of the cluster's pods, or one CIDR of each IP family, separated by a \
             comma; ignored with --config",
        ),
    Setting::new(|s| FieldRef::Text(&mut s.bridge_interface))
        .yaml("detectLocal.bridgeInterface")
        .toml("detect-local.bridge-interface")
        .flag("pod-bridge-interface", "BridgeInterface mode: name of the bridge of this node's pods"),
    Setting::new(|s| FieldRef::Text(&mut s.interface_name_prefix))
        .yaml("detectLocal.interfaceNamePrefix")
        .toml("detect-local.interface-name-prefix")
        .flag(
            "pod-interface-name-prefix",
            "InterfaceNamePrefix mode: name prefix of the interfaces of this node's pods",
        ),
];

const LOGGING: &[Setting] = &[
    Setting::new(|s| FieldRef::Text(&mut s.logging.format))
        .yaml("logging.format")
        .toml("logging.format")
        .zero_is_default()
        .override_flag("logging-format", "Log format: text or json"),
    Setting::new(|s| FieldRef::Integer(&mut s.logging.verbosity))
        .yaml("logging.verbosity")
        .toml("logging.verbosity")
        .override_flag(
            "v",
            "Log verbosity, as in kube-proxy: 0 is the lowest, 2 is usual, 4 is for debugging, 9 is the highest",
        )
        .short('v')
        .with_type_name("Level"),
    Setting::new(|s| FieldRef::VModules(&mut s.logging.vmodule))
        .yaml("logging.vmodule")
        .unused("Portcullis has no log levels by source file")
        .override_flag("vmodule", "Accepted for compatibility with kube-proxy, no effect"),
    Setting::new(|s| FieldRef::DurationOrNanoseconds(&mut s.logging.flush_frequency))
        .yaml("logging.flushFrequency")
        .zero_is_default()
        .unused(NOT_BUFFERED)
        .override_flag("log-flush-frequency", "Accepted for compatibility with kube-proxy, no effect"),
    Setting::new(|s| FieldRef::Bool(&mut s.logging.text.split_stream))
        .yaml("logging.options.text.splitStream")
        .unused("Portcullis logs to one stream")
        .override_flag("log-text-split-stream", "Accepted for compatibility with kube-proxy, no effect"),
    Setting::new(|s| FieldRef::Quantity(&mut s.logging.text.info_buffer_size))
        .yaml("logging.options.text.infoBufferSize")
        .unused(NOT_BUFFERED)
        .override_flag("log-text-info-buffer-size", "Accepted for compatibility with kube-proxy, no effect"),
    Setting::new(|s| FieldRef::Bool(&mut s.logging.json.split_stream))
        .yaml("logging.options.json.splitStream")
        .unused("Portcullis logs to one stream"),
    Setting::new(|s| FieldRef::Quantity(&mut s.logging.json.info_buffer_size))
        .yaml("logging.options.json.infoBufferSize")
        .unused(NOT_BUFFERED),
];

const COMPATIBILITY: &[Setting] = &[
    Setting::new(|s| FieldRef::Text(&mut s.compatibility.boot_id_file))
        .unused(NO_CADVISOR)
        .override_flag("boot-id-file", "Accepted for compatibility with kube-proxy, no effect"),
    Setting::new(|s| FieldRef::Text(&mut s.compatibility.machine_id_file))
        .unused(NO_CADVISOR)
        .override_flag("machine-id-file", "Accepted for compatibility with kube-proxy, no effect"),
    Setting::new(|s| FieldRef::Integer(&mut s.compatibility.healthz_port))
        .flag(
            "healthz-port",
            "Deprecated upstream: port of --healthz-bind-address if that has none; 0 disables the server",
        )
        .hidden(),
    Setting::new(|s| FieldRef::Integer(&mut s.compatibility.metrics_port))
        .flag(
            "metrics-port",
            "Deprecated upstream: port of --metrics-bind-address if that has none; 0 disables the server",
        )
        .hidden(),
    Setting::new(|s| FieldRef::Text(&mut s.compatibility.port_range))
        .yaml("portRange")
        .unused("it is for userspace mode, which kube-proxy no longer has"),
    Setting::new(|s| FieldRef::Bool(&mut s.compatibility.windows_run_as_service))
        .yaml("windowsRunAsService")
        .unused(NO_WINDOWS),
    Setting::new(|s| FieldRef::Text(&mut s.compatibility.winkernel.network_name))
        .yaml("winkernel.networkName")
        .unused(NO_WINDOWS),
    Setting::new(|s| FieldRef::Text(&mut s.compatibility.winkernel.source_vip))
        .yaml("winkernel.sourceVip")
        .unused(NO_WINDOWS),
    Setting::new(|s| FieldRef::Bool(&mut s.compatibility.winkernel.enable_dsr))
        .yaml("winkernel.enableDSR")
        .unused(NO_WINDOWS),
    Setting::new(|s| FieldRef::Text(&mut s.compatibility.winkernel.root_hns_endpoint_name))
        .yaml("winkernel.rootHnsEndpointName")
        .unused(NO_WINDOWS),
    Setting::new(|s| FieldRef::Bool(&mut s.compatibility.winkernel.forward_health_check_vip))
        .yaml("winkernel.forwardHealthCheckVip")
        .unused(NO_WINDOWS),
];
