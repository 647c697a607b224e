//! Makes the mode that the configuration asks for, and readies the node for it.

use std::net::Ipv6Addr;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Once};
use std::time::Duration;

use portcullis_cluster::Family;
use portcullis_modes::cleanup;
use portcullis_modes::iptables::{self, Flavour, IptablesKernel, ToolError, Tools};
use portcullis_modes::{Mode, ipvs, nftables};
use portcullis_modes::{NodeFacts, Options};
use portcullis_netlink::ip_vs::Timeouts;
use portcullis_netlink::nf_tables;
use portcullis_netlink::route::Rtnetlink;
use tokio::sync::mpsc;

use super::DaemonError;
use super::drift_watch::{self, Drift};
use crate::config::{Config, Ipvs, ProxyMode};
use crate::{node, sysctl};

/// Notifications of external changes of what a mode writes.
#[derive(Default)]
pub(crate) struct DriftEvents {
    /// Where the kernel sends them.
    pub(super) drift: Option<mpsc::Receiver<Drift>>,
    /// The generation of nf_tables that the latest change made, which may be one of our own tools; 0 where it is not known.
    pub(super) generation: Arc<AtomicU32>,
}

/// The kernels of the families that are served.
pub(crate) type Kernels = Vec<(Family, Box<dyn IptablesKernel>)>;

/// What the node has of what the mode takes.
pub(crate) struct Prerequisites {
    /// The tools of iptables; nftables mode does without.
    pub(crate) tools: Option<Tools>,
    /// The kernels by which rules of iptables are written.
    pub(crate) kernels: Kernels,
    /// The families that can be served.
    pub(crate) families: Vec<Family>,
}

/// Looks for what the mode takes, without loading or changing anything.
///
/// # Errors
/// Something is missing.
pub(crate) fn check_prerequisites(mode: ProxyMode) -> Result<Prerequisites, DaemonError> {
    if !mode.uses_iptables() {
        let families = nftables::check_prerequisites()?;
        return Ok(Prerequisites { tools: Tools::find().ok(), kernels: Kernels::new(), families });
    }
    let tools = Tools::find()?;
    let kernels = kernels(&tools)?;
    let families = kernels.iter().map(|(family, _)| *family).collect();
    Ok(Prerequisites { tools: Some(tools), kernels, families })
}

/// The kernels of both families; a family that the kernel does not have is left out, as upstream does.
fn kernels(tools: &Tools) -> Result<Kernels, ToolError> {
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

/// Loads and sets what needs more privileges than serving: it stays for the daemon that follows.
///
/// # Errors
/// The kernel lacks what IPVS mode needs.
pub(crate) fn prepare_node(config: &Config) -> Result<(), DaemonError> {
    if config.mode.uses_ipvs() {
        // Opening it loads its modules, without which there are none of its settings.
        drop(ipvs::open(config.ipvs.scheduler)?);
    }
    ready_node(config);
    if node::options(config, None).serves_localhost_node_ports() {
        match cleanup::guard_loopback() {
            Ok(()) => portcullis_modes::route_localnet::enable(),
            Err(error) => tracing::warn!(
                %error,
                "route_localnet is not set, as packets from other hosts to 127.0.0.0/8 cannot be dropped; node ports on \
                 localhost are not served"
            ),
        }
    }
    Ok(())
}

fn ready_node(config: &Config) {
    if config.mode.uses_ipvs() {
        sysctl::for_ipvs(config.ipvs.strict_arp);
    }
}

/// Has answers of pods to connections that came from ::1 delivered, whichever link they come in by: the kernel takes
/// the address for one that is on the loopback link only.
pub(crate) fn route_localhost(config: &Config) {
    if config.mode != ProxyMode::Nftables || !config.node_port_addresses.has_localhost() {
        return;
    }
    static TOLD: Once = Once::new();
    TOLD.call_once(warn_of_bridges);
    let routed = Rtnetlink::open().and_then(|mut interfaces| {
        let links = interfaces.links()?;
        for link in links.iter().filter(|link| !link.is_loopback()) {
            match interfaces.add_local_route(link.index, Ipv6Addr::LOCALHOST.into()) {
                Ok(true) => tracing::debug!(link = %link.name, "answers to ::1 are taken from this link"),
                Ok(false) => {}
                // Links come and go, and some have no IPv6.
                Err(error) => tracing::debug!(link = %link.name, %error, "no answers to ::1 from this link"),
            }
        }
        Ok(())
    });
    if let Err(error) = routed {
        tracing::warn!(%error, "node ports on ::1 may get no answers");
    }
}

/// The kernel takes no packets to ::1 that come from elsewhere, except where it translated them itself after it took them
/// in. Bridges whose packets pass netfilter translate before that.
fn warn_of_bridges() {
    let setting = std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-ip6tables");
    if setting.is_ok_and(|value| value.trim() == "1") {
        tracing::warn!(
            "node ports on ::1 get no answers from pods that a bridge joins to this node, as \
             net.bridge.bridge-nf-call-ip6tables is 1; on 127.0.0.1 they do"
        );
    }
}

/// The mode of the configuration, and drift_events of who else changes what it writes, where the kernel tells.
///
/// # Errors
/// The kernel lacks what it needs.
pub(crate) fn start_mode(
    config: &Config,
    options: Options,
    host: NodeFacts,
    prerequisites: Prerequisites,
) -> Result<(Box<dyn Mode>, DriftEvents), DaemonError> {
    let kernels = prerequisites.kernels;
    // Legacy tables announce no changes.
    let nft = prerequisites.tools.as_ref().is_some_and(|tools| tools.flavour == Flavour::Nft);
    let mode: Box<dyn Mode> = match config.mode {
        ProxyMode::Iptables => Box::new(iptables::IptablesProxier::new(options, host, kernels)),
        ProxyMode::Ipvs => {
            let mut kernel = ipvs::open(config.ipvs.scheduler)?;
            // Its settings are there only once it is loaded.
            ready_node(config);
            // Before addresses are watched, so that its own, one a Service, wake nobody.
            kernel.ensure_link().map_err(ipvs::IpvsPrerequisiteError::from)?;
            if let Some(timeouts) = timeouts(&config.ipvs) {
                kernel.set_timeouts(timeouts).map_err(ipvs::IpvsPrerequisiteError::from)?;
            }
            let ipvs = node::ipvs_options(config);
            Box::new(ipvs::IpvsProxier::new(ipvs, options, host, kernel, kernels))
        }
        ProxyMode::Nftables => {
            let socket = nf_tables::open().map_err(nftables::NftablesPrerequisiteError::from)?;
            let socket = socket.ok_or(nftables::NftablesPrerequisiteError::NoTables)?;
            let proxier = nftables::NftablesProxier::new(options, host, &prerequisites.families, socket);
            let drift = drift_watch::watch(nftables::TABLE, proxier.socket());
            return Ok((Box::new(proxier), DriftEvents { drift: Some(drift), ..DriftEvents::default() }));
        }
    };
    let mut drift_events = DriftEvents::default();
    drift_events.drift = nft.then(|| drift_watch::watch_iptables(Arc::clone(&drift_events.generation)));
    Ok((mode, drift_events))
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
