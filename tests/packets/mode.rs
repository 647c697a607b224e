//! Modes of the daemons under test.

use std::os::unix::fs::symlink;
use std::path::Path;

use portcullis_lab::DataPath;
use portcullis_machines::uml;

use crate::tools::Flavour;

/// A proxy mode, and the node's variant of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Iptables(Flavour),
    /// Needs a kernel with IPVS.
    Ipvs,
    /// Needs no tools.
    Nftables,
}

impl Mode {
    pub(crate) const IPTABLES_NFT: Self = Self::Iptables(Flavour::Nft);
    pub(crate) const IPTABLES_LEGACY: Self = Self::Iptables(Flavour::Legacy);

    /// Returns the value of `--mode`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Iptables(_) => "iptables",
            Self::Ipvs => "ipvs",
            Self::Nftables => "nftables",
        }
    }

    /// Returns the arguments for this mode, without delay of syncs, followed by other arguments.
    pub(crate) fn with_args(self, others: &[String]) -> Vec<String> {
        let own = match self {
            Self::Iptables(_) => ["--mode=iptables", "--iptables-min-sync-period=0s"],
            Self::Ipvs => ["--mode=ipvs", "--ipvs-min-sync-period=0s"],
            Self::Nftables => ["--mode=nftables", "--iptables-min-sync-period=0s"],
        };
        own.map(str::to_owned).into_iter().chain(others.iter().cloned()).collect()
    }

    /// Returns the kernel data path of the mode.
    pub(crate) fn data_path(self) -> DataPath {
        match self {
            Self::Ipvs => DataPath::Ipvs,
            Self::Iptables(_) | Self::Nftables => DataPath::Netfilter,
        }
    }

    /// Returns the node's variant of iptables.
    pub(crate) fn flavour(self) -> Flavour {
        match self {
            Self::Iptables(flavour) => flavour,
            // User-mode Linux supports only the legacy variant.
            Self::Ipvs if uml::is_inside() => Flavour::Legacy,
            Self::Ipvs | Self::Nftables => Flavour::Nft,
        }
    }

    /// Returns the search path of the daemons; `folder` is for symbolic links. In nftables mode it contains only `ip`,
    /// which enters the node's namespace.
    pub(crate) fn path(self, folder: &Path) -> String {
        match self {
            Self::Nftables => {
                let ip =
                    ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"].into_iter().find(|ip| Path::new(ip).exists());
                symlink(ip.unwrap(), folder.join("ip")).unwrap();
                folder.display().to_string()
            }
            Self::Iptables(_) | Self::Ipvs => self.flavour().path(folder),
        }
    }
}
