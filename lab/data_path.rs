//! Kernel data paths that a proxy mode uses.

/// The kernel data path of the daemons under test, as far as it affects what probes observe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DataPath {
    /// DNAT by netfilter rules: iptables mode, nftables mode.
    #[default]
    Netfilter,
    /// IPVS virtual servers.
    Ipvs,
}
