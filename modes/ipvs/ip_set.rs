//! The sets that the rules of IPVS mode match against. Names and types are kube-proxy's, and public.

use portcullis_cluster::{Family, Protocol};
use portcullis_netlink::ipset::{NAME_MOST, SetType};

/// A set. Each is there once a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IpSet {
    /// Endpoints on this node, which may meet themselves through a Service.
    LoopBack,
    /// ClusterIPs with their ports.
    ClusterIp,
    /// External IPs with their ports.
    ExternalIp,
    /// The same, of Services with external traffic policy Local.
    ExternalIpLocal,
    /// Addresses of load balancers with their ports.
    LoadBalancer,
    /// Those of them that have source ranges.
    LoadBalancerFirewall,
    /// Those of them whose Services have external traffic policy Local.
    LoadBalancerLocal,
    /// Single sources that may use a load balancer's address.
    LoadBalancerSourceIp,
    /// Blocks of sources that may use a load balancer's address.
    LoadBalancerSourceCidr,
    /// Node ports of TCP.
    NodePortTcp,
    /// Those of them whose Services have external traffic policy Local.
    NodePortLocalTcp,
    /// Node ports of UDP.
    NodePortUdp,
    /// Those of them whose Services have external traffic policy Local.
    NodePortLocalUdp,
    /// Node ports of SCTP, with the addresses that serve them.
    NodePortSctp,
    /// Those of them whose Services have external traffic policy Local.
    NodePortLocalSctp,
    /// Ports on which load balancers ask for the health of Services.
    HealthCheckNodePort,
    /// All addresses of `kube-ipvs0`.
    IpvsIps,
}

impl IpSet {
    /// All of them, in the order of their numbers: exceptions stand behind what they are exceptions to.
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

    /// Its name in a family, cut to what a name may have.
    pub fn name(self, family: Family) -> String {
        let prefix = match family {
            Family::V4 => "KUBE-",
            Family::V6 => "KUBE-6-",
        };
        let mut name = format!("{prefix}{}", self.row().0);
        name.truncate(NAME_MOST);
        name
    }

    /// Its type.
    pub fn set_type(self) -> SetType {
        self.row().1
    }

    /// The set that holds the node ports of a protocol.
    pub fn node_ports(protocol: Protocol) -> IpSet {
        match protocol {
            Protocol::Tcp => IpSet::NodePortTcp,
            Protocol::Udp => IpSet::NodePortUdp,
            Protocol::Sctp => IpSet::NodePortSctp,
        }
    }

    /// The set that holds those of them whose Services have external traffic policy Local.
    pub(super) fn local_node_ports(protocol: Protocol) -> IpSet {
        match protocol {
            Protocol::Tcp => IpSet::NodePortLocalTcp,
            Protocol::Udp => IpSet::NodePortLocalUdp,
            Protocol::Sctp => IpSet::NodePortLocalSctp,
        }
    }

    /// Its place in [`IpSet::ALL`].
    pub(super) fn at(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit() {
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
    fn each_stands_at_its_place() {
        for (i, set) in IpSet::ALL.into_iter().enumerate() {
            assert_eq!(set.at(), i, "{set:?}");
        }
    }
}
