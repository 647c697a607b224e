//! The capabilities of the proxy modes: their differences in the routing of connections.

use portcullis_cluster::Family;
use portcullis_cluster::desired::{ModeCapabilities, RoutingContext};

use crate::node_facts::NodeFacts;
use crate::options::Options;
use crate::proxy_mode::ProxyMode;

impl ProxyMode {
    /// Returns its capabilities.
    pub const fn capabilities(self) -> ModeCapabilities {
        match self {
            // `KUBE-EXTERNAL-SERVICES` rejects connections in the hooks input and forward only. The rules of a Service without
            // endpoints come before its firewall.
            ProxyMode::Iptables => ModeCapabilities {
                routes_by_source: true,
                falls_back_to_policy_cluster: false,
                masquerades_own_connections: false,
                masquerades_remote_hairpins: true,
                filters_sources_without_endpoints: false,
                rejects_own_connections: false,
                rejects_unused_cluster_ip_ports: false,
                rejects_unused_external_ports: false,
                drops_unallocated_cluster_ips: false,
                has_schedulers: false,
            },
            // A virtual server does not see the source of a connection. All addresses of Services are local, so the kernel
            // rejects connections to other ports.
            ProxyMode::Ipvs => ModeCapabilities {
                routes_by_source: false,
                falls_back_to_policy_cluster: true,
                masquerades_own_connections: true,
                masquerades_remote_hairpins: false,
                filters_sources_without_endpoints: true,
                rejects_own_connections: true,
                rejects_unused_cluster_ip_ports: true,
                rejects_unused_external_ports: true,
                drops_unallocated_cluster_ips: false,
                has_schedulers: true,
            },
            ProxyMode::Nftables => ModeCapabilities {
                routes_by_source: true,
                falls_back_to_policy_cluster: false,
                masquerades_own_connections: false,
                masquerades_remote_hairpins: false,
                filters_sources_without_endpoints: true,
                rejects_own_connections: true,
                rejects_unused_cluster_ip_ports: true,
                rejects_unused_external_ports: false,
                drops_unallocated_cluster_ips: true,
                has_schedulers: false,
            },
        }
    }

    /// Returns the properties of a node, in one family, that the routing of connections depends on in this mode.
    pub fn routing_context(self, family: Family, options: &Options, facts: &NodeFacts) -> RoutingContext {
        RoutingContext {
            node_ip: facts.node_ip(family),
            masquerade_all: options.masquerade_all,
            detects_pods: options.detect_local.matching(family).is_some(),
            capabilities: self.capabilities(),
        }
    }
}
