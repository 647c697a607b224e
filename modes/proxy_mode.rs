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

    /// Returns true if the mode writes iptables rules, and so needs the tools.
    pub const fn uses_iptables(self) -> bool {
        matches!(self, Self::Iptables | Self::Ipvs)
    }

    /// Returns true if the mode uses IPVS and its kernel settings.
    pub const fn uses_ipvs(self) -> bool {
        matches!(self, Self::Ipvs)
    }

    /// Returns true if the mode's rules depend on all addresses of the node: each has its own node port objects.
    pub const fn has_node_ports_per_address(self) -> bool {
        matches!(self, Self::Ipvs)
    }

    /// Returns true if the mode's rules depend on the cluster IP ranges (`ServiceCIDR` objects).
    pub const fn uses_service_cidrs(self) -> bool {
        matches!(self, Self::Nftables)
    }

    /// Returns true if kube-proxy's metrics of this mode distinguish full and partial syncs.
    pub const fn has_partial_sync_metrics(self) -> bool {
        matches!(self, Self::Iptables | Self::Nftables)
    }

    /// Returns true if kube-proxy has metrics of iptables rules in this mode.
    pub const fn has_iptables_metrics(self) -> bool {
        matches!(self, Self::Iptables)
    }

    /// Returns the mode with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}
