//! Makes the mode that the configuration asks for, and readies the node for it.

use std::time::Duration;

use portcullis_cluster::Family;
use portcullis_modes::cleanup::Serving;
use portcullis_modes::iptables::{self, Host, Kernel, Options, Tools};
use portcullis_modes::{Mode, SyncError, ipvs};
use portcullis_netlink::ip_vs::Timeouts;

use super::DaemonError;
use crate::config::{Config, Ipvs, ProxyMode};
use crate::{node, sysctl};

/// The kernels of the families that are served.
pub(super) type Kernels = Vec<(Family, Box<dyn Kernel>)>;

/// The kernels of both families; a family that the kernel does not have is left out, as upstream does.
pub(super) fn kernels(tools: &Tools) -> Result<Kernels, SyncError> {
    let mut kernels = Vec::new();
    let mut last = None;
    for family in Family::BOTH {
        match tools.supports(family) {
            Ok(()) => kernels.push((family, tools.kernel(family))),
            Err(error) => {
                tracing::warn!(%family, %error, "no iptables for this family; it is not served");
                last = Some(error);
            }
        }
    }
    match last {
        Some(error) if kernels.is_empty() => Err(error),
        _ => Ok(kernels),
    }
}

/// Sets what needs more privileges than serving: what is set once stays for the daemon that follows.
pub(super) fn ready_node(config: &Config) {
    if node::options(config, None).serves_localhost_node_ports() {
        sysctl::allow_localhost_node_ports();
    }
    if config.mode == ProxyMode::Ipvs {
        sysctl::for_ipvs(config.ipvs.strict_arp);
    }
}

/// The mode of the configuration.
///
/// # Errors
/// The kernel lacks what it needs, or it is not there yet.
pub(super) fn mode(
    config: &Config,
    options: Options,
    host: Host,
    kernels: Kernels,
) -> Result<Box<dyn Mode>, DaemonError> {
    Ok(match config.mode {
        ProxyMode::Iptables => Box::new(iptables::Proxier::new(options, host, kernels)),
        ProxyMode::Ipvs => {
            let mut kernel = ipvs::open(config.ipvs.scheduler)?;
            // Its settings are there only once it is loaded.
            ready_node(config);
            // Before addresses are watched, so that its own, one a Service, wake nobody.
            kernel.ensure_link().map_err(ipvs::RequirementError::from)?;
            if let Some(timeouts) = timeouts(&config.ipvs) {
                kernel.set_timeouts(timeouts).map_err(ipvs::RequirementError::from)?;
            }
            let ipvs = node::ipvs_options(config);
            Box::new(ipvs::Proxier::new(ipvs, options, host, kernel, kernels))
        }
        ProxyMode::Nftables => return Err(DaemonError::Mode(config.mode.name())),
    })
}

/// The mode as the cleanup of what others left knows it.
pub(super) fn serving(mode: ProxyMode) -> Serving {
    match mode {
        ProxyMode::Ipvs => Serving::Ipvs,
        // nftables mode is refused before anything is served.
        ProxyMode::Iptables | ProxyMode::Nftables => Serving::Iptables,
    }
}

/// The timeouts that are to be set, if any is; 0 leaves the kernel's.
fn timeouts(ipvs: &Ipvs) -> Option<Timeouts> {
    // The kernel counts in seconds, and a part of one must not come to mean that none is wanted.
    let seconds = |timeout: Option<Duration>| {
        let seconds = timeout.map_or(0, |t| t.as_secs() + u64::from(t.subsec_nanos() > 0));
        u32::try_from(seconds).unwrap_or(u32::MAX)
    };
    let [tcp, tcp_fin, udp] = [ipvs.tcp_timeout, ipvs.tcp_fin_timeout, ipvs.udp_timeout].map(seconds);
    (tcp + tcp_fin + udp > 0).then_some(Timeouts { tcp, tcp_fin, udp })
}
