//! The proxy modes by name.

/// A proxy mode: the kernel interface that serves Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyMode {
    /// iptables rules, written with `iptables-restore`.
    Iptables,
    /// IPVS virtual servers.
    Ipvs,
    /// nf_tables rules, written over netlink.
    Nftables,
}

impl ProxyMode {
    /// All modes, the default first.
    pub const ALL: [Self; 3] = [Self::Iptables, Self::Ipvs, Self::Nftables];

    /// Returns its name, as in flags and configuration files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
            Self::Nftables => "nftables",
        }
    }

    /// Returns the mode with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}
