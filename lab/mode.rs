//! How the proxy under test serves.

/// The mode of the daemons, as far as it shows in what probes meet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// By rules that translate addresses: iptables, nftables.
    #[default]
    Rules,
    /// By virtual servers of IPVS.
    Ipvs,
}
