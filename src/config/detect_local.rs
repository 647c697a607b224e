//! How this node's pods are told from everybody else (`--detect-local-mode`).

use ipnet::{Ipv4Net, Ipv6Net};

/// What counts as traffic of a pod on this node. Such traffic is not masqueraded on its way to a cluster
/// IP, and short-cuts `externalTrafficPolicy: Local`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetectLocal {
    /// It has a source address of the cluster's pods. Strictly this says "a pod", not "a pod here", and
    /// is upstream's default all the same. A family without a CIDR can't be told.
    ClusterCidr {
        /// The pods' IPv4 addresses.
        v4: Option<Ipv4Net>,
        /// The pods' IPv6 addresses.
        v6: Option<Ipv6Net>,
    },
    /// It has a source address of the Node's `spec.podCIDRs`.
    NodeCidr,
    /// It comes from this bridge.
    BridgeInterface(InterfaceName),
    /// It comes from an interface whose name begins so.
    InterfaceNamePrefix(InterfaceName),
}

impl Default for DetectLocal {
    fn default() -> Self {
        Self::ClusterCidr { v4: None, v6: None }
    }
}

/// The name of a network interface, or the beginning of one: 1 to 15 bytes (the kernel's `IFNAMSIZ` less
/// the terminating zero), without white space, `/` and `:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// `None` for what the kernel takes for no name.
    pub fn new(name: &str) -> Option<Self> {
        let fits = (1..=15).contains(&name.len()) && name != "." && name != "..";
        let clean = !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ':');
        (fits && clean).then(|| Self(name.to_owned()))
    }

    /// As text.
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
