//! Detection of traffic from this node's pods (`--detect-local-mode`).

use ipnet::IpNet;
use portcullis_cluster::Family;

/// The property by which traffic of this node's pods is recognised.
#[derive(Clone, Debug, PartialEq)]
pub enum DetectLocal {
    /// Its source address: in the cluster's or this node's pod CIDRs. In a family without a CIDR it is not recognised.
    Cidrs(Box<[IpNet]>),
    /// The bridge on which it arrives.
    Bridge(String),
    /// The prefix of the name of the interface on which it arrives.
    InterfacePrefix(String),
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
            DetectLocal::Bridge(name) => Some(LocalMatch::Interface(name.clone())),
            DetectLocal::InterfacePrefix(prefix) => Some(LocalMatch::InterfacePrefix(prefix.clone())),
        }
    }
}
