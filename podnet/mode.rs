//! How pods of different nodes reach each other.

/// How pods of different nodes reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodNetworkMode {
    /// Routes by way of the nodes' addresses, which are on the same link.
    HostGw,
    /// A VXLAN overlay.
    Vxlan,
    /// Routes by way of the nodes' addresses to nodes on the same link, and an overlay to all others.
    CrossSubnet,
}

impl PodNetworkMode {
    /// All modes.
    pub const ALL: [PodNetworkMode; 3] =
        [PodNetworkMode::HostGw, PodNetworkMode::Vxlan, PodNetworkMode::CrossSubnet];

    /// Returns the name, as `--pod-network` spells it.
    pub fn name(self) -> &'static str {
        match self {
            PodNetworkMode::HostGw => "host-gw",
            PodNetworkMode::Vxlan => "vxlan",
            PodNetworkMode::CrossSubnet => "cross-subnet",
        }
    }

    /// Returns the mode with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// Returns true if packets to some nodes are encapsulated.
    pub fn has_overlay(self) -> bool {
        self != PodNetworkMode::HostGw
    }
}

/// The VXLAN of the overlay, the same on all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// The VXLAN network identifier (VNI), of 24 bits.
    pub id: u32,
    /// The UDP port.
    pub port: u16,
}

impl Default for Vxlan {
    /// Returns the port that IANA assigned to VXLAN (RFC 7348), and an identifier that neither flannel (1) nor Calico (4096) uses,
    /// so that links of both can exist during a migration.
    fn default() -> Self {
        Vxlan { id: 4097, port: 4789 }
    }
}
