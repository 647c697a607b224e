//! How the daemons of a cluster serve it.

use std::os::unix::fs::symlink;
use std::path::Path;

use portcullis_lab::uml;

use crate::tools::Flavour;

/// A mode of the daemon, and the iptables of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Iptables(Flavour),
    /// Needs a kernel that has IPVS.
    Ipvs,
    /// Needs no tool at all.
    Nftables,
}

impl Mode {
    /// Lets the daemon serve so, and sync at once; with other arguments.
    pub(crate) fn with_args(self, others: &[String]) -> Vec<String> {
        let own = match self {
            Self::Iptables(_) => ["--mode=iptables", "--iptables-min-sync-period=0s"],
            Self::Ipvs => ["--mode=ipvs", "--ipvs-min-sync-period=0s"],
            Self::Nftables => ["--mode=nftables", "--iptables-min-sync-period=0s"],
        };
        own.map(str::to_owned).into_iter().chain(others.iter().cloned()).collect()
    }

    /// Which iptables the node has.
    pub(crate) fn flavour(self) -> Flavour {
        match self {
            Self::Iptables(flavour) => flavour,
            // User-mode Linux has no other.
            Self::Ipvs if uml::is_inside() => Flavour::Legacy,
            Self::Ipvs | Self::Nftables => Flavour::Nft,
        }
    }

    /// The search path of its daemons; `folder` is for links. In nftables mode nothing is on it but what leads into the
    /// node's namespace.
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
