//! NetworkPolicy: none of it is kube-proxy's, so it has no place in its file, and its flags count beside one.

use crate::config::field_ref::FieldRef;
use crate::config::setting::Setting;

pub(in crate::config) const NETWORK_POLICY: &[Setting] = &[
    Setting::new(|s| FieldRef::Bool(&mut s.network_policy.enabled)).toml("network-policy.enabled").override_flag(
        "network-policy",
        "Enforce NetworkPolicies for this node's pods, and ClusterNetworkPolicies where the cluster has them",
    ),
    Setting::new(|s| FieldRef::Text(&mut s.network_policy.established))
        .toml("network-policy.established")
        .override_flag(
            "network-policy-established",
            "What becomes of connections that a changed policy forbids: keep (the default) lets them live, \
             cut ends them",
        )
        .with_type_name("keep|cut"),
    Setting::new(|s| FieldRef::Bool(&mut s.network_policy.audit)).toml("network-policy.audit").override_flag(
        "network-policy-audit",
        "Count (and log, with a log group) what policies would drop, and drop nothing",
    ),
    Setting::new(|s| FieldRef::Text(&mut s.network_policy.unknown_pods))
        .toml("network-policy.unknown-pods")
        .override_flag(
            "network-policy-unknown-pods",
            "What becomes of connections of pods that are not known yet: allow (the default), or deny, for \
             which the Node object must name the node's pod CIDRs",
        )
        .with_type_name("allow|deny"),
    Setting::new(|s| FieldRef::Integer(&mut s.network_policy.log_group))
        .toml("network-policy.log-group")
        .override_flag(
            "network-policy-log-group",
            "The NFLOG group that gets the headers of packets which policies drop, 1 to 65535; 0 for none",
        ),
    Setting::new(|s| FieldRef::Integer(&mut s.network_policy.log_rate))
        .toml("network-policy.log-rate")
        .override_flag(
            "network-policy-log-rate",
            "How many packets a second are logged at most for pods that the same policies isolate; more than 0",
        ),
];
