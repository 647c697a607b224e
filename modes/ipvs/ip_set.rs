//! The ipsets that the rules of IPVS mode match against. Their names and types are kube-proxy's, and public.

use std::ops::{Index, IndexMut};

use portcullis_cluster::{Family, Protocol};
use portcullis_netlink::ipset::{MAX_NAME_LEN, SetType};

/// An ipset. Each exists once per family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IpSet {
    /// Endpoints on this node, with themselves as client: connections that need hairpin masquerading.
    LoopBack,
    /// ClusterIPs with ports.
    ClusterIp,
    /// External IPs with ports.
    ExternalIp,
    /// External IPs with ports, of Services with external traffic policy Local.
    ExternalIpLocal,
    /// Load balancer IPs with ports.
    LoadBalancer,
    /// Load balancer IPs with ports, of Services with source ranges.
    LoadBalancerFirewall,
    /// Load balancer IPs with ports, of Services with external traffic policy Local.
    LoadBalancerLocal,
    /// Source IPs that may connect to a load balancer IP with source ranges.
    LoadBalancerSourceIp,
    /// Source ranges that may connect to a load balancer IP.
    LoadBalancerSourceCidr,
    /// TCP node ports.
    NodePortTcp,
    /// TCP node ports of Services with external traffic policy Local.
    NodePortLocalTcp,
    /// UDP node ports.
    NodePortUdp,
    /// UDP node ports of Services with external traffic policy Local.
    NodePortLocalUdp,
    /// SCTP node ports, with node addresses.
    NodePortSctp,
    /// SCTP node ports of Services with external traffic policy Local, with node addresses.
    NodePortLocalSctp,
    /// Health check node ports of Services.
    HealthCheckNodePort,
    /// All addresses of `kube-ipvs0`.
    IpvsIps,
}

impl IpSet {
    /// All sets in declaration order. Sets that narrow another, such as source ranges, come after it.
    pub const ALL: [IpSet; 17] = [
        IpSet::LoopBack,
        IpSet::ClusterIp,
        IpSet::ExternalIp,
        IpSet::ExternalIpLocal,
        IpSet::LoadBalancer,
        IpSet::LoadBalancerFirewall,
        IpSet::LoadBalancerLocal,
        IpSet::LoadBalancerSourceIp,
        IpSet::LoadBalancerSourceCidr,
        IpSet::NodePortTcp,
        IpSet::NodePortLocalTcp,
        IpSet::NodePortUdp,
        IpSet::NodePortLocalUdp,
        IpSet::NodePortSctp,
        IpSet::NodePortLocalSctp,
        IpSet::HealthCheckNodePort,
        IpSet::IpvsIps,
    ];

    /// The name after `KUBE-`, and the type.
    fn row(self) -> (&'static str, SetType) {
        match self {
            IpSet::LoopBack => ("LOOP-BACK", SetType::HashIpPortIp),
            IpSet::ClusterIp => ("CLUSTER-IP", SetType::HashIpPort),
            IpSet::ExternalIp => ("EXTERNAL-IP", SetType::HashIpPort),
            IpSet::ExternalIpLocal => ("EXTERNAL-IP-LOCAL", SetType::HashIpPort),
            IpSet::LoadBalancer => ("LOAD-BALANCER", SetType::HashIpPort),
            IpSet::LoadBalancerFirewall => ("LOAD-BALANCER-FW", SetType::HashIpPort),
            IpSet::LoadBalancerLocal => ("LOAD-BALANCER-LOCAL", SetType::HashIpPort),
            IpSet::LoadBalancerSourceIp => ("LOAD-BALANCER-SOURCE-IP", SetType::HashIpPortIp),
            IpSet::LoadBalancerSourceCidr => ("LOAD-BALANCER-SOURCE-CIDR", SetType::HashIpPortNet),
            IpSet::NodePortTcp => ("NODE-PORT-TCP", SetType::BitmapPort),
            IpSet::NodePortLocalTcp => ("NODE-PORT-LOCAL-TCP", SetType::BitmapPort),
            IpSet::NodePortUdp => ("NODE-PORT-UDP", SetType::BitmapPort),
            IpSet::NodePortLocalUdp => ("NODE-PORT-LOCAL-UDP", SetType::BitmapPort),
            IpSet::NodePortSctp => ("NODE-PORT-SCTP-HASH", SetType::HashIpPort),
            IpSet::NodePortLocalSctp => ("NODE-PORT-LOCAL-SCTP-HASH", SetType::HashIpPort),
            IpSet::HealthCheckNodePort => ("HEALTH-CHECK-NODE-PORT", SetType::BitmapPort),
            IpSet::IpvsIps => ("IPVS-IPS", SetType::HashIp),
        }
    }

    /// Returns the name in a family, truncated to the longest possible.
    pub fn name(self, family: Family) -> String {
        let prefix = match family {
            Family::V4 => "KUBE-",
            Family::V6 => "KUBE-6-",
        };
        let mut name = format!("{prefix}{}", self.row().0);
        name.truncate(MAX_NAME_LEN);
        name
    }

    /// Returns the type.
    pub fn set_type(self) -> SetType {
        self.row().1
    }

    /// Returns the set for the node ports of a protocol.
    pub fn node_ports(protocol: Protocol) -> IpSet {
        match protocol {
            Protocol::Tcp => IpSet::NodePortTcp,
            Protocol::Udp => IpSet::NodePortUdp,
            Protocol::Sctp => IpSet::NodePortSctp,
        }
    }

    /// Returns the set for the node ports of Services with external traffic policy Local.
    pub(super) fn local_node_ports(protocol: Protocol) -> IpSet {
        match protocol {
            Protocol::Tcp => IpSet::NodePortLocalTcp,
            Protocol::Udp => IpSet::NodePortLocalUdp,
            Protocol::Sctp => IpSet::NodePortLocalSctp,
        }
    }
}

/// One value for each set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PerSet<T>([T; IpSet::ALL.len()]);

impl<T> PerSet<T> {
    pub(super) fn from_fn(value: impl FnMut(IpSet) -> T) -> Self {
        PerSet(IpSet::ALL.map(value))
    }
}

impl<T> Index<IpSet> for PerSet<T> {
    type Output = T;

    fn index(&self, set: IpSet) -> &T {
        &self.0[set as usize]
    }
}

impl<T> IndexMut<IpSet> for PerSet<T> {
    fn index_mut(&mut self, set: IpSet) -> &mut T {
        &mut self.0[set as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_truncated() {
        for (family, set, name) in [
            (Family::V4, IpSet::LoadBalancerSourceCidr, "KUBE-LOAD-BALANCER-SOURCE-CIDR"),
            (Family::V6, IpSet::LoadBalancerSourceCidr, "KUBE-6-LOAD-BALANCER-SOURCE-CID"),
            (Family::V6, IpSet::NodePortLocalSctp, "KUBE-6-NODE-PORT-LOCAL-SCTP-HAS"),
            (Family::V6, IpSet::ClusterIp, "KUBE-6-CLUSTER-IP"),
        ] {
            assert_eq!(set.name(family), name);
        }
    }

    #[test]
    fn all_sets_are_in_declaration_order() {
        for (i, set) in IpSet::ALL.into_iter().enumerate() {
            assert_eq!(set as usize, i, "{set:?}");
        }
    }
}
