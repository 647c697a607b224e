//! The names of what is always in the table.

/// The table's name, in the families `ip` and `ip6`.
pub const TABLE: &str = "portcullis";

/// The chain that finds Services.
pub(super) const SERVICES: &str = "services";
/// The chain that answers for Services without endpoints.
pub(super) const REJECT: &str = "reject-chain";

/// Cluster IPs, external IPs and load balancer IPs with protocol and port: what is served. The chain that serves it.
pub(super) const SERVICE_IPS: &str = "service-ips";
/// The same by protocol and node port.
pub(super) const SERVICE_NODE_PORTS: &str = "service-nodeports";
/// External addresses where policy Local is for what comes from outside only.
pub(super) const LOCAL_IPS: &str = "local-ips";
/// The same by node port.
pub(super) const LOCAL_NODE_PORTS: &str = "local-nodeports";
/// The chain that serves pods and this node there.
pub(super) const INSIDE_IPS: &str = "service-ips-inside";
/// The same by node port.
pub(super) const INSIDE_NODE_PORTS: &str = "service-nodeports-inside";
/// By address, protocol and port of a Service with affinity: its own chain. The chain that looks for it.
pub(super) const AFFINE_IPS: &str = "affinity-ips";
/// The same by node port.
pub(super) const AFFINE_NODE_PORTS: &str = "affinity-nodeports";
/// Endpoints that talk to themselves.
pub(super) const HAIRPIN: &str = "hairpin-connections";
/// All cluster IPs.
pub(super) const CLUSTER_IPS: &str = "cluster-ips";
/// This node's addresses that serve node ports.
pub(super) const NODE_PORT_IPS: &str = "nodeport-ips";
/// Addresses and ports of Services without endpoints: reject or drop.
pub(super) const NO_ENDPOINTS: &str = "no-endpoint-services";
/// Node ports of Services without endpoints: reject or drop.
pub(super) const NO_ENDPOINT_NODE_PORTS: &str = "no-endpoint-nodeports";
/// Load balancers' addresses and ports that only some may use.
pub(super) const FIREWALL_IPS: &str = "firewall-ips";
/// Who may use them: address, protocol, port, source.
pub(super) const FIREWALL_SOURCES: &str = "firewall-sources";
/// The blocks that cluster IPs are of.
pub(super) const SERVICE_CIDRS: &str = "service-cidrs";
/// Clients, and the endpoints that served them last: client, cluster IP, protocol and port, endpoint, its port.
pub(super) const AFFINITY: &str = "affinity";
