//! How policies are enforced.

use ipnet::IpNet;

/// How policies are enforced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyOptions {
    /// Count and log what would be dropped, and drop nothing.
    pub audit: bool,
    /// Log what is dropped, or would be.
    pub log: Option<DropLog>,
    /// What becomes of pods that are not known yet.
    pub unknown_pods: UnknownPods,
    /// Connections that policies forbid are cut, and are not taken up again in their midst by the end that may speak:
    /// by an answer of a pod that is isolated inwards, or to one that is isolated outwards.
    pub terminates_connections: bool,
}

/// Where dropped packets are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropLog {
    /// The NFLOG group.
    pub group: u16,
    /// At most so many packets a second from each profile.
    pub rate: u32,
}

/// What becomes of connections of addresses in this node's pod ranges that belong to no pod which is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UnknownPods {
    /// They pass.
    #[default]
    Allow,
    /// They are dropped, except those with this node itself.
    Deny {
        /// This node's pod ranges.
        ranges: Vec<IpNet>,
    },
}
