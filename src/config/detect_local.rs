//! Detection of traffic from this node's pods (`--detect-local-mode`).

use ipnet::{Ipv4Net, Ipv6Net};

/// Criterion by which traffic is local, that is, from a pod on this node. Local traffic to a cluster IP is not
/// masqueraded, and short-circuits `externalTrafficPolicy: Local`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetectLocal {
    /// The source address is in the cluster CIDR. This matches pods of all nodes, but is upstream's default.
    /// In a family without a CIDR, no traffic is local.
    ClusterCidr {
        /// CIDR of the pods' IPv4 addresses.
        v4: Option<Ipv4Net>,
        /// CIDR of the pods' IPv6 addresses.
        v6: Option<Ipv6Net>,
    },
    /// The source address is in the Node's `spec.podCIDRs`.
    NodeCidr,
    /// The packet arrives on this bridge.
    BridgeInterface(InterfaceName),
    /// The packet arrives on an interface with this name prefix.
    InterfaceNamePrefix(InterfaceName),
}

impl Default for DetectLocal {
    fn default() -> Self {
        Self::ClusterCidr { v4: None, v6: None }
    }
}

/// Name of a network interface, or a prefix of one: 1 to 15 bytes (the kernel's `IFNAMSIZ` less
/// the terminating zero), without white space, `/` and `:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// Returns `None` for a name that the kernel rejects.
    pub fn new(name: &str) -> Option<Self> {
        let fits = (1..=15).contains(&name.len()) && name != "." && name != "..";
        let clean = !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ':');
        (fits && clean).then(|| Self(name.to_owned()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names() {
        for name in ["veth", "cni0", "eth0.100", "fifteen-bytes-x"] {
            assert_eq!(InterfaceName::new(name).as_ref().map(InterfaceName::as_str), Some(name));
        }
        for name in ["", "sixteen-bytes-xy", "a b", "a/b", "eth0:1", "..", "a\n"] {
            assert_eq!(InterfaceName::new(name), None, "{name:?}");
        }
    }
}
