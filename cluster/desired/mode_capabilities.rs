//! Differences between the proxy modes in the routing of connections.

/// The capabilities of a proxy mode: its differences from other modes in the routing of connections. The modes define
/// their values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeCapabilities {
    /// It routes connections by their source: pods and the node itself use an external frontend with traffic policy Local
    /// as one with policy Cluster.
    pub routes_by_source: bool,
    /// With traffic policy Local and no endpoint on this node, it uses the endpoints of policy Cluster.
    pub falls_back_to_policy_cluster: bool,
    /// It masquerades the node's own connections to ClusterIPs also if pods are not detected.
    pub masquerades_own_connections: bool,
    /// It masquerades hairpin connections (a pod that reaches itself through a Service) also if the pod is on another node.
    pub masquerades_remote_hairpins: bool,
    /// It applies `loadBalancerSourceRanges` also to Services without usable endpoints.
    pub filters_sources_without_endpoints: bool,
    /// It rejects the node's own connections to external frontends without usable endpoints.
    pub rejects_own_connections: bool,
    /// It rejects connections to a ClusterIP at a port that the Service does not have.
    pub rejects_unused_cluster_ip_ports: bool,
    /// It rejects connections to an external address at a port that the Service does not have.
    pub rejects_unused_external_ports: bool,
    /// It drops connections to addresses of a ServiceCIDR that no Service has.
    pub drops_unallocated_cluster_ips: bool,
    /// It has schedulers (`--ipvs-scheduler`).
    pub has_schedulers: bool,
}
