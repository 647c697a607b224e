//! NetworkPolicy: none of it is kube-proxy's, so it has no place in its file, and its flags count beside one.

use crate::config::setting::Setting;
use crate::config::slot::Slot;

pub(in crate::config) const NETWORK_POLICY: &[Setting] = &[
    Setting::new(|s| Slot::Bool(&mut s.network_policy.enabled)).toml("network-policy.enabled").lasting_flag(
        "network-policy",
        "Enforce NetworkPolicies for this node's pods, and ClusterNetworkPolicies where the cluster has them",
    ),
    Setting::new(|s| Slot::Text(&mut s.network_policy.established))
        .toml("network-policy.established")
        .lasting_flag(
            "network-policy-established",
            "What becomes of connections that a changed policy forbids: keep (the default) lets them live, \
             cut ends them",
        )
        .typed("keep|cut"),
    Setting::new(|s| Slot::Bool(&mut s.network_policy.audit)).toml("network-policy.audit").lasting_flag(
        "network-policy-audit",
        "Count (and log, with a log group) what policies would drop, and drop nothing",
    ),
    Setting::new(|s| Slot::Text(&mut s.network_policy.unknown_pods))
        .toml("network-policy.unknown-pods")
        .lasting_flag(
            "network-policy-unknown-pods",
            "What becomes of connections of pods that are not known yet: allow (the default), or deny, for \
             which the Node object must name the node's pod CIDRs",
        )
        .typed("allow|deny"),
    Setting::new(|s| Slot::Integer(&mut s.network_policy.log_group))
        .toml("network-policy.log-group")
        .lasting_flag(
            "network-policy-log-group",
            "The NFLOG group that gets the headers of packets which policies drop, 1 to 65535; 0 for none",
        ),
    Setting::new(|s| Slot::Integer(&mut s.network_policy.log_rate))
        .toml("network-policy.log-rate")
        .lasting_flag(
            "network-policy-log-rate",
            "How many packets a second are logged at most for pods that the same policies isolate; more than 0",
        ),
];
