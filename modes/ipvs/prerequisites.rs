//! The prerequisites of IPVS mode: kernel modules, which are loaded if they are missing.

use portcullis_cluster::IpvsScheduler;
use portcullis_netlink::Error;
use portcullis_netlink::ip_vs::IpVs;

use super::netlink_kernel::NetlinkKernel;
use crate::external_program::modprobe;

/// A prerequisite of IPVS mode is missing.
#[derive(Debug, thiserror::Error)]
pub enum IpvsPrerequisiteError {
    /// IPVS is not loaded, and cannot be loaded.
    #[error(
        "this kernel has no IPVS: load its modules on the node with `modprobe -a {modules}` (they are part of the \
         distribution's kernel package; in a container, mount the node's /lib/modules), or use --mode=nftables or \
         --mode=iptables. modprobe: {reason}"
    )]
    NoIpvs {
        /// The required modules.
        modules: String,
        /// The reason why they could not be loaded.
        reason: String,
    },
    /// The kernel could not be reached, or has no ipset.
    #[error("cannot use IPVS: {0}")]
    Kernel(#[from] Error),
}

/// Opens the kernel for IPVS mode. Loads missing modules.
///
/// # Errors
/// The kernel has no IPVS or no ipset, and they cannot be loaded.
pub fn open(scheduler: IpvsScheduler) -> Result<NetlinkKernel, IpvsPrerequisiteError> {
    if let Some(kernel) = NetlinkKernel::open()? {
        return Ok(kernel);
    }
    let modules = modules(scheduler);
    let reason = modprobe(["-a"].into_iter().chain(modules.iter().map(String::as_str))).err();
    match NetlinkKernel::open()? {
        Some(kernel) => {
            tracing::info!(?modules, "kernel modules loaded");
            Ok(kernel)
        }
        None => Err(IpvsPrerequisiteError::NoIpvs {
            modules: modules.join(" "),
            reason: reason.unwrap_or_else(|| "it loaded them, but IPVS does not respond".to_owned()),
        }),
    }
}

/// Checks whether [`open`] would succeed, without loading modules.
///
/// # Errors
/// As [`open`].
pub fn check(scheduler: IpvsScheduler) -> Result<(), IpvsPrerequisiteError> {
    if IpVs::open()?.is_some() {
        return Ok(());
    }
    let modules = modules(scheduler);
    modprobe(["-n", "-a"].into_iter().chain(modules.iter().map(String::as_str)))
        .map_err(|reason| IpvsPrerequisiteError::NoIpvs { modules: modules.join(" "), reason })
}

fn modules(scheduler: IpvsScheduler) -> [String; 3] {
    ["ip_vs".to_owned(), format!("ip_vs_{scheduler}"), "nf_conntrack".to_owned()]
}
