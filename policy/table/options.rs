//! Options of enforcement.

use ipnet::IpNet;

/// Options of enforcement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyOptions {
    /// Counts and logs packets that would be dropped, and drops nothing.
    pub audit: bool,
    /// Logs packets that are dropped or would be.
    pub log: Option<DropLog>,
    /// Treatment of unknown pods.
    pub unknown_pods: UnknownPods,
    /// Forbidden connections are terminated, and must not be picked up by a packet in the allowed direction: a reply of
    /// a pod that is isolated for ingress, or to one that is isolated for egress.
    pub terminates_connections: bool,
    /// The NFLOG group to which drops are logged while an observer is connected, in addition to `log`.
    pub observed: Option<u16>,
}

/// NFLOG settings of dropped packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropLog {
    /// The NFLOG group.
    pub group: u16,
    /// Maximum number of packets a second from each profile.
    pub rate: u32,
}

/// Treatment of connections of addresses in this node's pod CIDRs that belong to no known pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UnknownPods {
    /// They are allowed.
    #[default]
    Allow,
    /// They are dropped, except those with this node.
    Deny {
        /// This node's pod CIDRs.
        ranges: Vec<IpNet>,
    },
}
