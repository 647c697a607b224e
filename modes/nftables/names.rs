//! The names of the table, its chains and its sets.

/// The name of the table, in the families `ip` and `ip6`.
pub const TABLE: &str = "portcullis";

/// The chain that looks up frontends.
pub(super) const SERVICES: &str = "services";
/// The chain that rejects packets to Services without endpoints.
pub(super) const REJECT: &str = "reject-chain";

/// The set of cluster IPs, external IPs and load balancer IPs with protocol and port that have endpoints, and their
/// dispatch chain.
pub(super) const SERVICE_IPS: &str = "service-ips";
/// The set of node ports with protocol that have endpoints, and their dispatch chain.
pub(super) const SERVICE_NODE_PORTS: &str = "service-nodeports";
/// The set of external addresses with external traffic policy Local.
pub(super) const LOCAL_IPS: &str = "local-ips";
/// The set of node ports with external traffic policy Local.
pub(super) const LOCAL_NODE_PORTS: &str = "local-nodeports";
/// The dispatch chain for internal clients of [`LOCAL_IPS`].
pub(super) const INSIDE_IPS: &str = "service-ips-inside";
/// The dispatch chain for internal clients of [`LOCAL_NODE_PORTS`].
pub(super) const INSIDE_NODE_PORTS: &str = "service-nodeports-inside";
/// The map from addresses of Services with session affinity to the numbers of Services, and the chain that looks up entries.
pub(super) const AFFINE_IPS: &str = "affinity-ips";
/// The map from node ports of Services with session affinity to the numbers of Services, and the chain that looks up entries.
pub(super) const AFFINE_NODE_PORTS: &str = "affinity-nodeports";
/// The set of connections from endpoints to themselves, which need masquerading.
pub(super) const HAIRPIN: &str = "hairpin-connections";
/// The set of all cluster IPs.
pub(super) const CLUSTER_IPS: &str = "cluster-ips";
/// The set of this node's addresses that serve node ports.
pub(super) const NODE_PORT_IPS: &str = "nodeport-ips";
/// The verdict map of addresses and ports without endpoints: reject or drop.
pub(super) const NO_ENDPOINTS: &str = "no-endpoint-services";
/// The verdict map of node ports without endpoints: reject or drop.
pub(super) const NO_ENDPOINT_NODE_PORTS: &str = "no-endpoint-nodeports";
/// The set of load balancer IPs and ports with `loadBalancerSourceRanges`.
pub(super) const FIREWALL_IPS: &str = "firewall-ips";
/// The interval set of allowed sources: address, protocol, port, source range.
pub(super) const FIREWALL_SOURCES: &str = "firewall-sources";
/// The interval set of Service CIDRs.
pub(super) const SERVICE_CIDRS: &str = "service-cidrs";
/// The map of session-affinity entries: client and Service number to endpoint number.
pub(super) const AFFINITY: &str = "affinity";
/// The map from endpoints of Services with session affinity to their numbers.
pub(super) const AFFINITY_ENDPOINTS: &str = "affinity-endpoints";
/// The chain that updates session-affinity entries.
pub(super) const AFFINITY_UPDATE: &str = "affinity-update";
