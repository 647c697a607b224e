//! Detection of traffic from this node's pods (`--detect-local-mode`).

use ipnet::IpNet;
use portcullis_cluster::Family;

/// The property by which traffic of this node's pods is recognised. Such traffic to a cluster IP is not masqueraded, and
/// with `externalTrafficPolicy: Local` it is routed as inside the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetectLocal {
    /// Its source address is in one of these CIDRs, at most one per family. With the cluster's CIDRs this means pods of any
    /// node, which is kube-proxy's default. In a family without a CIDR local traffic is not recognised.
    Cidrs(Box<[IpNet]>),
    /// It arrives on this bridge.
    BridgeInterface(InterfaceName),
    /// It arrives on an interface whose name has this prefix.
    InterfaceNamePrefix(InterfaceName),
}

impl Default for DetectLocal {
    fn default() -> Self {
        Self::Cidrs(Box::default())
    }
}

/// A rule's match on traffic of this node's pods, in one family.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LocalMatch {
    /// The source address is in this block.
    Source(IpNet),
    /// The incoming interface has this name.
    Interface(String),
    /// The name of the incoming interface has this prefix.
    InterfacePrefix(String),
}

impl DetectLocal {
    /// Returns the match in one family, or `None` where local traffic is not recognised.
    pub(crate) fn matching(&self, family: Family) -> Option<LocalMatch> {
        match self {
            DetectLocal::Cidrs(cidrs) => {
                cidrs.iter().find(|cidr| Family::from_net(cidr) == family).copied().map(LocalMatch::Source)
            }
            DetectLocal::BridgeInterface(name) => Some(LocalMatch::Interface(name.as_str().to_owned())),
            DetectLocal::InterfaceNamePrefix(prefix) => {
                Some(LocalMatch::InterfacePrefix(prefix.as_str().to_owned()))
            }
        }
    }
}

/// The name of a network interface, or a prefix of one: 1 to 15 bytes (the kernel's `IFNAMSIZ` without the terminating
/// zero), without white space, `/` and `:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// Returns the name, or `None` if the kernel does not allow it.
    pub fn new(name: &str) -> Option<Self> {
        let fits = (1..=15).contains(&name.len()) && name != "." && name != "..";
        let is_clean = !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ':');
        (fits && is_clean).then(|| Self(name.to_owned()))
    }

    /// Returns the name as text.
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
