//! Features of the iptables tools and of the kernel's matches.

/// Features of iptables on this node that the rules depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IptablesFeatures {
    /// The tools support `--random-fully`.
    pub random_fully: bool,
    /// The kernel supports nfacct, and the objects named in the rules exist.
    pub nfacct: bool,
}
