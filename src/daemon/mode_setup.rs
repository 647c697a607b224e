//! Set-up of the configured proxy mode, and of the node for it.

use std::net::Ipv6Addr;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Once};

use portcullis_cluster::Family;
use portcullis_modes::cleanup;
use portcullis_modes::iptables::{Flavour, IptablesKernel, ToolError, Tools};
use portcullis_modes::{ipvs, nftables};
use portcullis_netlink::route::Rtnetlink;
use portcullis_netlink::socket::Socket;
use portcullis_netlink::{Family as NetlinkFamily, xtables};

use super::DaemonError;
use super::drift_watch::{self, Drift};
use crate::config::{Config, ProxyMode};
use crate::control::{Mailbox, Wake};
use crate::{node, privileges, proxy_modes, sysctl};

/// Notifications of external changes of what a mode writes.
#[derive(Default)]
pub(crate) struct DriftEvents {
    /// The mailbox of the notifications.
    pub(super) drift: Option<Mailbox<Drift>>,
    /// The nf_tables generation of the latest change, which may be one of this process's tools; 0 if it is not known.
    pub(super) generation: Arc<AtomicU32>,
}

impl DriftEvents {
    /// Subscribes to changes of the rules that the iptables tools write. The kernel reports no changes of legacy tables.
    pub(crate) fn watch_tools(tools: Option<&Tools>, wake: &Wake) -> Self {
        let mut events = DriftEvents::default();
        if tools.is_some_and(|tools| tools.flavour == Flavour::Nft) {
            events.drift = Some(drift_watch::watch_iptables(Arc::clone(&events.generation), wake));
        }
        events
    }

    /// Subscribes to other processes' changes of the tables of this name. `own` is the socket of this process's changes.
    pub(crate) fn watch_table(table: &'static str, own: &Socket, wake: &Wake) -> Self {
        DriftEvents { drift: Some(drift_watch::watch(table, own, wake)), ..DriftEvents::default() }
    }
}

/// The iptables kernels of the families that are served.
pub(crate) type Kernels = Vec<(Family, Box<dyn IptablesKernel>)>;

/// The prerequisites of a mode that the node has.
pub(crate) struct Prerequisites {
    /// The iptables tools, which nftables mode does not need.
    pub(crate) tools: Option<Tools>,
    /// The kernels through which iptables rules are written.
    pub(crate) kernels: Kernels,
    /// The families that can be served.
    pub(crate) families: Vec<Family>,
}

/// Checks the prerequisites of a mode. Loads and changes nothing.
///
/// # Errors
/// A prerequisite is missing.
pub(crate) fn check_prerequisites(mode: ProxyMode) -> Result<Prerequisites, DaemonError> {
    if !privileges::has_net_admin() {
        return Err(DaemonError::NoNetAdmin);
    }
    if mode == ProxyMode::Ipvs && !privileges::has_net_raw() {
        return Err(DaemonError::NoNetRaw);
    }
    if !mode.uses_iptables() {
        let families = nftables::check_prerequisites()?;
        return Ok(Prerequisites { tools: Tools::find().ok(), kernels: Kernels::new(), families });
    }
    let tools = Tools::find()?;
    if !privileges::is_root() {
        check_tools_without_root(&tools)?;
    }
    let kernels = kernels(&tools)?;
    let families = kernels.iter().map(|(family, _)| *family).collect();
    Ok(Prerequisites { tools: Some(tools), kernels, families })
}

/// Checks that the tools work for a user other than root. The list of legacy tables, which tells the variant that the node
/// uses, is readable only by root.
fn check_tools_without_root(tools: &Tools) -> Result<(), DaemonError> {
    if tools.flavour == Flavour::Legacy {
        return Err(DaemonError::LegacyToolsNeedRoot);
    }
    if let Some(error) = NetlinkFamily::ALL.into_iter().find_map(|family| xtables::tables(family).err()) {
        tracing::warn!(
            %error,
            "cannot check whether this node has legacy iptables rules, which requires root; using the nft variant of the tools"
        );
    }
    Ok(())
}

/// Returns the iptables kernels of both families. A family that the kernel lacks is left out, as in kube-proxy.
fn kernels(tools: &Tools) -> Result<Kernels, ToolError> {
    let mut kernels = Vec::new();
    let mut last = None;
    for family in Family::BOTH {
        match tools.supports(family) {
            Ok(()) => kernels.push((family, tools.kernel(family))),
            // A tool that hangs does not show that the family is missing.
            Err(error) if !error.shows_missing_support() => return Err(error),
            Err(error) => {
                tracing::warn!(%family, %error, "iptables does not support this family; it is not served");
                last = Some(error);
            }
        }
    }
    match last {
        Some(error) if kernels.is_empty() => Err(error),
        _ => Ok(kernels),
    }
}

/// Loads modules and changes settings for a daemon that runs later with fewer privileges (`--init-only`).
///
/// # Errors
/// The kernel lacks what IPVS mode needs.
pub(crate) fn prepare_node(config: &Config) -> Result<(), DaemonError> {
    if config.mode.uses_ipvs() {
        // Opening IPVS loads its modules, which create its settings.
        drop(ipvs::open(config.ipvs.scheduler)?);
    }
    ready_node(config);
    if config.network_policy.is_some() {
        sysctl::filter_bridged_packets();
    }
    if node::options(config, None).serves_localhost_node_ports() {
        match cleanup::guard_loopback() {
            Ok(()) => portcullis_modes::route_localnet::enable(),
            Err(error) => tracing::warn!(
                %error,
                "not setting route_localnet, as packets from other hosts to 127.0.0.0/8 cannot be dropped; node ports on \
                 localhost are not served"
            ),
        }
    }
    Ok(())
}

/// Sets kernel settings that the mode needs.
pub(crate) fn ready_node(config: &Config) {
    if config.mode.uses_ipvs() {
        sysctl::for_ipvs(config.ipvs.strict_arp);
    }
}

/// Adds local routes for ::1 on all links, so that replies of pods to connections from ::1 are delivered: the kernel accepts
/// the address on the loopback link only.
pub(crate) fn route_localhost(config: &Config) {
    if !proxy_modes::driver(config.mode).needs_localhost_routes(config) {
        return;
    }
    static WARNED: Once = Once::new();
    WARNED.call_once(warn_of_bridges);
    let routed = Rtnetlink::open().and_then(|mut interfaces| {
        let links = interfaces.links()?;
        for link in links.iter().filter(|link| !link.is_loopback()) {
            match interfaces.add_local_route(link.index, Ipv6Addr::LOCALHOST.into()) {
                Ok(true) => tracing::debug!(link = %link.name, "added a local route for ::1"),
                Ok(false) => {}
                // The link may have been removed, or have no IPv6.
                Err(error) => tracing::debug!(link = %link.name, %error, "cannot add a local route for ::1"),
            }
        }
        Ok(())
    });
    if let Err(error) = routed {
        tracing::warn!(%error, "cannot add local routes for ::1; node ports on ::1 may not work");
    }
}

/// Warns if bridged packets pass netfilter: the kernel accepts packets to ::1 from other links only if it translated them
/// after their input, and bridges translate them earlier.
fn warn_of_bridges() {
    let setting = std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-ip6tables");
    if setting.is_ok_and(|value| value.trim() == "1") {
        tracing::warn!(
            "node ports on ::1 do not work for pods that are connected to this node by a bridge, as \
             net.bridge.bridge-nf-call-ip6tables is 1; node ports on 127.0.0.1 do"
        );
    }
}
