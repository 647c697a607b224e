//! Settings of NetworkPolicy. kube-proxy has none of them, so they have no `KubeProxyConfiguration` field, and their flags
//! override a configuration file.

use crate::config::field_ref::FieldRef;
use crate::config::setting::Setting;

pub(in crate::config) const NETWORK_POLICY: &[Setting] = &[
    Setting::new(|s| FieldRef::Bool(&mut s.network_policy.enabled)).toml("network-policy.enabled").override_flag(
        "network-policy",
        "Enforce NetworkPolicies for this node's pods, and ClusterNetworkPolicies if the cluster has them",
    ),
    Setting::new(|s| FieldRef::Text(&mut s.network_policy.established))
        .toml("network-policy.established")
        .override_flag(
            "network-policy-established",
            "Action on established connections that a changed policy forbids: keep (the default), or cut to \
             terminate them",
        )
        .with_type_name("keep|cut"),
    Setting::new(|s| FieldRef::Bool(&mut s.network_policy.audit)).toml("network-policy.audit").override_flag(
        "network-policy-audit",
        "Count (and log, if a log group is set) the packets that policies would drop, without dropping them",
    ),
    Setting::new(|s| FieldRef::Text(&mut s.network_policy.unknown_pods))
        .toml("network-policy.unknown-pods")
        .override_flag(
            "network-policy-unknown-pods",
            "Action on connections of pods that are not known yet: allow (the default), or deny, which \
             requires the pod CIDRs of the Node object",
        )
        .with_type_name("allow|deny"),
    Setting::new(|s| FieldRef::Integer(&mut s.network_policy.log_group))
        .toml("network-policy.log-group")
        .override_flag(
            "network-policy-log-group",
            "NFLOG group that receives the headers of packets dropped by policies, 1 to 65535; 0 disables logging",
        ),
    Setting::new(|s| FieldRef::Integer(&mut s.network_policy.log_rate))
        .toml("network-policy.log-rate")
        .override_flag(
            "network-policy-log-rate",
            "Maximum number of packets logged per second for pods isolated by the same policies; must be greater than 0",
        ),
];
