//! Names of the iptables chains of kube-proxy, of all its modes and versions, and of the kubelet.

/// kube-proxy's chains in table filter.
pub(super) const FILTER: [&str; 10] = [
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-FORWARD",
    "KUBE-PROXY-FIREWALL",
    "KUBE-PROXY-CANARY",
    "KUBE-NODE-PORT",
    "KUBE-SOURCE-RANGES-FIREWALL",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
];

/// kube-proxy's chains in table nat, besides those of Services.
pub(super) const NAT: [&str; 8] = [
    "KUBE-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-POSTROUTING",
    "KUBE-PROXY-CANARY",
    "KUBE-NODE-PORT",
    "KUBE-LOAD-BALANCER",
    "KUBE-FIRE-WALL",
    "KUBE-MARK-MASQ",
];

/// kube-proxy's chains in table mangle.
pub(super) const MANGLE: [&str; 1] = ["KUBE-PROXY-CANARY"];

/// A chain that both the kubelet and kube-proxy create. It is removed only where no kubelet runs.
pub(super) const FIREWALL: &str = "KUBE-FIREWALL";

/// The kubelet's chains in table mangle.
pub(super) const KUBELET_CHAINS: [&str; 2] = ["KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT"];
