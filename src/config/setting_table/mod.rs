//! Every setting, one row each: the single place where the names of the three inputs meet.
//!
//! Some flags of kube-proxy fill two places and have a row for each, the first of which has the help:
//! `--masquerade-all` is for every mode, `--iptables-sync-period` for iptables and nftables mode. The
//! mode, in turn, has two flags, of which the later row wins. What has no effect here has no name in our TOML.

mod kernel;
mod network_policy;

use kernel::{CONNTRACK, IPTABLES, IPVS, NFTABLES};

use network_policy::NETWORK_POLICY;

use super::field_ref::FieldRef;
use super::setting::Setting;

const NOT_BUFFERED: &str = "Portcullis does not buffer its log";
const NO_WINDOWS: &str = "it is for Windows";
const NO_CADVISOR: &str = "kube-proxy has it from a library and does not use it either";

/// The rows by subject, with its heading in the help.
pub(super) const SUBJECTS: &[(&str, &[Setting])] = &[
    ("What to do", ACTIONS),
    ("General", GENERAL),
    ("API server", API_SERVER),
    ("Listening addresses", LISTENERS),
    ("Telling local traffic", DETECT_LOCAL),
    ("Mode iptables", IPTABLES),
    ("Mode ipvs", IPVS),
    ("Mode nftables", NFTABLES),
    ("Connection tracking", CONNTRACK),
    ("NetworkPolicy", NETWORK_POLICY),
    ("Logging", LOGGING),
    ("Without effect", COMPATIBILITY),
];

/// All rows.
pub(super) fn settings() -> impl Iterator<Item = &'static Setting> {
    SUBJECTS.iter().flat_map(|(_, rows)| rows.iter())
}

const ACTIONS: &[Setting] = &[
    Setting::new(|s| FieldRef::Text(&mut s.actions.config)).override_flag(
        "config",
        "Read the settings from this file: a KubeProxyConfiguration (YAML or JSON) or Portcullis' TOML. \
             As in kube-proxy, most other flags are then ignored (with a warning)",
    ),
    Setting::new(|s| FieldRef::Text(&mut s.actions.write_config_to)).override_flag(
        "write-config-to",
        "Write the settings to this file, and exit: as a KubeProxyConfiguration, or in Portcullis' TOML if \
             the file's name ends in .toml or a setting has no field there",
    ),
    Setting::new(|s| FieldRef::Bool(&mut s.actions.cleanup)).override_flag(
        "cleanup",
        "Remove what any mode has left in the kernel, and exit (as the subcommand of that name)",
    ),
    Setting::new(|s| FieldRef::Bool(&mut s.actions.init_only)).override_flag(
        "init-only",
        "Do what needs full root privileges, and exit; CAP_NET_ADMIN is enough for the next start",
    ),
    Setting::new(|s| FieldRef::Bool(&mut s.actions.once)).override_flag(
        "once",
        "Sync once and exit, leaving the rules in place. The exit code is 0 if every Service is served",
    ),
    Setting::new(|s| FieldRef::Bool(&mut s.actions.force)).override_flag(
        "force",
        "Write or remove the NetworkPolicy table although another process of this network namespace enforces policies",
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
            "How to serve Services: iptables (the default), ipvs or nftables. Also counts beside --config",
        )
        .with_type_name("ProxyMode"),
    Setting::new(|s| FieldRef::Text(&mut s.manifests))
        .toml("manifests")
        .override_flag(
            "manifests",
            "Take the cluster's objects from this file or folder of YAML or JSON instead of an API server, \
             and follow its changes",
        )
        .with_type_name("path"),
    Setting::new(|s| FieldRef::Text(&mut s.hostname_override))
        .yaml("hostnameOverride")
        .toml("hostname-override")
        .override_flag(
            "hostname-override",
            "The name of the Node this runs on. Without it, the host name in lower case",
        ),
    Setting::new(|s| FieldRef::Text(&mut s.bind_address))
        .yaml("bindAddress")
        .toml("bind-address")
        .zero_is_default()
        .flag(
            "bind-address",
            "The node's primary address, where the one in its Node object is not to be used. Nothing is \
             bound to it, whatever the name says; its family is the primary one; ignored with --config",
        )
        .with_type_name("ip"),
    Setting::new(|s| FieldRef::List(&mut s.node_port_addresses))
        .yaml("nodePortAddresses")
        .toml("nodeport-addresses")
        .flag(
            "nodeport-addresses",
            "The addresses of the node on which NodePorts are served: CIDRs, or \"primary\" for those of \
             the Node object. \"localhost\" may be added. Without it, all addresses (in nftables mode: \
             primary); ignored with --config",
        ),
    Setting::new(|s| FieldRef::List(&mut s.external_address_cidrs))
        .toml("external-address-cidrs")
        .override_flag(
            "external-address-cidrs",
            "Restrict the external IPs and load balancer addresses of Services to these CIDRs; a Service is \
             not served at any other. Without it, all addresses are allowed",
        ),
    Setting::new(|s| FieldRef::Integer(&mut s.oom_score_adj)).yaml("oomScoreAdj").toml("oom-score-adj").flag(
        "oom-score-adj",
        "How gladly the kernel kills this process when memory runs out, from -1000 (never) to 1000; \
             ignored with --config",
    ),
    Setting::new(|s| FieldRef::Duration(&mut s.config_sync_period))
        .yaml("configSyncPeriod")
        .toml("config-sync-period")
        .zero_is_default()
        .flag(
            "config-sync-period",
            "How often everything known from the API server is looked at anew; more than 0",
        ),
    Setting::new(|s| FieldRef::Gates(&mut s.feature_gates)).yaml("featureGates").toml("feature-gates").flag(
        "feature-gates",
        "Kubernetes' feature gates, as GATE=true,GATE=false. Those of kube-proxy v1.36 are known",
    ),
    Setting::new(|s| FieldRef::Bool(&mut s.enable_profiling))
        .yaml("enableProfiling")
        .unused("there are no Go profiles to serve at /debug/pprof")
        .flag("profiling", "Accepted for kube-proxy's sake, without effect; ignored with --config"),
];

const API_SERVER: &[Setting] = &[
    Setting::new(|s| FieldRef::Text(&mut s.client_connection.kubeconfig))
        .yaml("clientConnection.kubeconfig")
        .toml("api-server.kubeconfig")
        .flag(
            "kubeconfig",
            "How to reach the API server, and as whom. Without it, and without --master: as a pod of the \
             cluster",
        ),
    Setting::new(|s| FieldRef::Text(&mut s.master))
        .toml("api-server.master")
        .override_flag("master", "The API server's URL; beats the one in the kubeconfig"),
    Setting::new(|s| FieldRef::Duration(&mut s.request_timeout)).toml("api-server.request-timeout").override_flag(
        "request-timeout",
        "How long render, diff, explain, policy, migrate and --once wait for an answer of the API server before \
         they fail; more than 0",
    ),
    Setting::new(|s| FieldRef::Float(&mut s.client_connection.qps))
        .yaml("clientConnection.qps")
        .zero_is_default()
        .unused("Portcullis keeps one watch open for each kind, which is nothing to limit")
        .flag("kube-api-qps", "Accepted for kube-proxy's sake; requests are too few to be limited"),
    Setting::new(|s| FieldRef::Integer(&mut s.client_connection.burst))
        .yaml("clientConnection.burst")
        .zero_is_default()
        .unused("Portcullis keeps one watch open for each kind, which is nothing to limit")
        .flag("kube-api-burst", "Accepted for kube-proxy's sake; requests are too few to be limited"),
    Setting::new(|s| FieldRef::Text(&mut s.client_connection.content_type))
        .yaml("clientConnection.contentType")
        .zero_is_default()
        .unused("Portcullis speaks JSON with the API server")
        .flag("kube-api-content-type", "Accepted for kube-proxy's sake; JSON is what is spoken"),
    Setting::new(|s| FieldRef::Text(&mut s.client_connection.accept_content_types))
        .yaml("clientConnection.acceptContentTypes")
        .unused("Portcullis speaks JSON with the API server"),
];

const LISTENERS: &[Setting] = &[
    Setting::new(|s| FieldRef::Text(&mut s.healthz_bind_address))
        .yaml("healthzBindAddress")
        .toml("healthz-bind-address")
        .zero_is_default()
        .flag(
            "healthz-bind-address",
            "Where /healthz and /livez are served: an IP address, or one with a port. Empty for nowhere; \
             ignored with --config",
        )
        .with_type_name("ipport"),
    Setting::new(|s| FieldRef::Text(&mut s.metrics_bind_address))
        .yaml("metricsBindAddress")
        .toml("metrics-bind-address")
        .zero_is_default()
        .flag(
            "metrics-bind-address",
            "Where /metrics is served: an IP address, or one with a port. Empty for nowhere; ignored with \
             --config",
        )
        .with_type_name("ipport"),
    Setting::new(|s| FieldRef::Bool(&mut s.bind_address_hard_fail))
        .yaml("bindAddressHardFail")
        .toml("bind-address-hard-fail")
        .flag(
            "bind-address-hard-fail",
            "End if a port that is to be listened on is taken, rather than trying again",
        ),
    Setting::new(|s| FieldRef::Text(&mut s.show_hidden_metrics_for_version))
        .yaml("showHiddenMetricsForVersion")
        .unused("no metric is hidden")
        .flag(
            "show-hidden-metrics-for-version",
            "Accepted for kube-proxy's sake, without effect: the previous minor version of Kubernetes, \
             1.35; ignored with --config",
        ),
];

const DETECT_LOCAL: &[Setting] = &[
    Setting::new(|s| FieldRef::Text(&mut s.detect_local_mode))
        .yaml("detectLocalMode")
        .toml("detect-local.mode")
        .flag(
            "detect-local-mode",
            "How the traffic of this node's pods is told from other traffic: ClusterCIDR (the default), \
             NodeCIDR, BridgeInterface or InterfaceNamePrefix; ignored with --config",
        )
        .with_type_name("LocalMode"),
    Setting::new(|s| FieldRef::Joined(&mut s.cluster_cidrs))
        .yaml("clusterCIDR")
        .toml("detect-local.cluster-cidrs")
        .flag(
            "cluster-cidr",
            "For the mode ClusterCIDR: the pods' addresses, one CIDR or, with two families, one of each \
             with a comma between; ignored with --config",
        ),
    Setting::new(|s| FieldRef::Text(&mut s.bridge_interface))
        .yaml("detectLocal.bridgeInterface")
        .toml("detect-local.bridge-interface")
        .flag(
            "pod-bridge-interface",
            "For the mode BridgeInterface: the bridge from which the pods' traffic comes",
        ),
    Setting::new(|s| FieldRef::Text(&mut s.interface_name_prefix))
        .yaml("detectLocal.interfaceNamePrefix")
        .toml("detect-local.interface-name-prefix")
        .flag(
            "pod-interface-name-prefix",
            "For the mode InterfaceNamePrefix: how the names of the interfaces begin from which the pods' \
             traffic comes",
        ),
];

const LOGGING: &[Setting] = &[
    Setting::new(|s| FieldRef::Text(&mut s.logging.format))
        .yaml("logging.format")
        .toml("logging.format")
        .zero_is_default()
        .override_flag("logging-format", "text or json"),
    Setting::new(|s| FieldRef::Integer(&mut s.logging.verbosity))
        .yaml("logging.verbosity")
        .toml("logging.verbosity")
        .override_flag(
            "v",
            "How much to log, by upstream's levels: 0 the least, 2 the usual, 4 for debugging, up to 9",
        )
        .short('v')
        .with_type_name("Level"),
    Setting::new(|s| FieldRef::VModules(&mut s.logging.vmodule))
        .yaml("logging.vmodule")
        .unused("the levels of Portcullis are not by source file")
        .override_flag("vmodule", "Accepted for kube-proxy's sake, without effect"),
    Setting::new(|s| FieldRef::DurationOrNanoseconds(&mut s.logging.flush_frequency))
        .yaml("logging.flushFrequency")
        .zero_is_default()
        .unused(NOT_BUFFERED)
        .override_flag("log-flush-frequency", "Accepted for kube-proxy's sake, without effect"),
    Setting::new(|s| FieldRef::Bool(&mut s.logging.text.split_stream))
        .yaml("logging.options.text.splitStream")
        .unused("Portcullis logs to one stream")
        .override_flag("log-text-split-stream", "Accepted for kube-proxy's sake, without effect"),
    Setting::new(|s| FieldRef::Quantity(&mut s.logging.text.info_buffer_size))
        .yaml("logging.options.text.infoBufferSize")
        .unused(NOT_BUFFERED)
        .override_flag("log-text-info-buffer-size", "Accepted for kube-proxy's sake, without effect"),
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
        .override_flag("boot-id-file", "Accepted for kube-proxy's sake, without effect"),
    Setting::new(|s| FieldRef::Text(&mut s.compatibility.machine_id_file))
        .unused(NO_CADVISOR)
        .override_flag("machine-id-file", "Accepted for kube-proxy's sake, without effect"),
    Setting::new(|s| FieldRef::Integer(&mut s.compatibility.healthz_port))
        .flag(
            "healthz-port",
            "Deprecated upstream: the port of --healthz-bind-address where that has none; 0 for no server",
        )
        .hidden(),
    Setting::new(|s| FieldRef::Integer(&mut s.compatibility.metrics_port))
        .flag(
            "metrics-port",
            "Deprecated upstream: the port of --metrics-bind-address where that has none; 0 for no server",
        )
        .hidden(),
    Setting::new(|s| FieldRef::Text(&mut s.compatibility.port_range))
        .yaml("portRange")
        .unused("it was for a mode that kube-proxy no longer has"),
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
