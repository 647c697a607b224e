//! Draining of IPVS connections: virtual servers stay until their connections have ended.
//!
//! NAT rules see a packet before IPVS does, so a virtual server gets no new connections once another mode's rules are
//! in place. Until they end, its connections need the virtual server, its address on this machine, and their conntrack
//! entries.
//!
//! UDP flows are not waited for: once its conntrack entry is deleted, a flow continues through the new rules.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use portcullis_cluster::{Backoff, Family};
use portcullis_netlink::conntrack::Conntrack;
use portcullis_netlink::ip_vs::{IpVs, RealServer, ServerBatch, VirtualServer};
use portcullis_netlink::ipset::IpSets;
use portcullis_netlink::route::{AddressBatch, Rtnetlink};
use portcullis_netlink::{self as netlink, Result};

use super::ipvs::ProxyVirtualServers;
use crate::ipvs::{DUMMY_INTERFACE, is_link_local};

/// The time until the first count of connections: connection attempts through the old mode are established by then.
pub(super) const FIRST: Duration = Duration::from_secs(1);

/// The longest time between two counts. It doubles with each count.
const LONGEST: Duration = Duration::from_secs(10);

/// The connections that are still draining.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainStatus {
    /// Virtual servers with connections.
    pub servers: usize,
    /// The number of their connections.
    pub connections: u64,
    /// The time that they may still last.
    pub remaining: Duration,
}

/// Virtual servers that are removed once their connections have ended.
pub(super) struct ConnectionDrain {
    servers: ProxyVirtualServers,
    deadline: Instant,
    next: Instant,
    backoff: Backoff,
    /// The weights of their real servers are 0.
    is_quiet: bool,
    /// Connections that had not ended in time.
    interrupted: u64,
}

impl ConnectionDrain {
    /// Starts draining the virtual servers of a proxy.
    ///
    /// # Errors
    /// The kernel rejected a request.
    pub(super) fn start(limit: Duration, now: Instant) -> Result<ConnectionDrain> {
        let servers = ProxyVirtualServers::read(IpSets::open()?.as_mut())?;
        let (deadline, next) = (now + limit, now + FIRST.min(limit));
        let backoff = Backoff::new(FIRST, LONGEST);
        Ok(ConnectionDrain { servers, deadline, next, backoff, is_quiet: false, interrupted: 0 })
    }

    /// Returns the number of connections that had not ended in time.
    pub(super) fn interrupted(&self) -> u64 {
        self.interrupted
    }

    /// Returns the time of the next count.
    pub(super) fn next_count(&self) -> Instant {
        self.next
    }

    /// Removes virtual servers without connections, or all if the time is over. Returns the connections that are still
    /// draining; `None` once all virtual servers are removed.
    ///
    /// # Errors
    /// The kernel rejected a request; the call can be repeated.
    pub(super) fn step(&mut self, now: Instant) -> Result<Option<DrainStatus>> {
        self.next = self.backoff.next_retry(now);
        let Some(mut ip_vs) = IpVs::open()? else { return Ok(None) };
        let mut waiting = BTreeMap::new();
        let mut removed = HashSet::new();
        let is_over = now >= self.deadline;
        for (server, _) in
            ip_vs.virtual_servers()?.into_iter().filter(|(server, _)| self.servers.contains(server))
        {
            let real = if is_waited_for(&server) { ip_vs.real_servers(&server)? } else { Vec::new() };
            let active = real.iter().map(|real| u64::from(real.active)).sum::<u64>();
            if active == 0 {
                removed.insert(server);
            } else if is_over {
                self.interrupted += active;
                removed.insert(server);
            } else {
                waiting.insert(server, (active, real));
            }
        }
        if !self.is_quiet {
            let real = waiting.iter().flat_map(|(at, (_, real))| real.iter().map(move |r| (at, r.server)));
            stop_new_connections(&mut ip_vs, real)?;
            self.is_quiet = true;
        }
        for server in &removed {
            ip_vs.delete(server)?;
        }
        remove_unused_addresses(&waiting.keys().map(|server| server.address).collect())?;
        delete_flows(&removed)?;
        let connections = waiting.values().map(|(active, _)| active).sum();
        let remaining = self.deadline.saturating_duration_since(now);
        self.next = self.next.min(self.deadline.max(now));
        Ok((!waiting.is_empty()).then_some(DrainStatus { servers: waiting.len(), connections, remaining }))
    }
}

/// Returns true if connections through a virtual server end by themselves and are counted.
fn is_waited_for(server: &VirtualServer) -> bool {
    i32::from(server.protocol) != libc::IPPROTO_UDP
}

/// Sets the weights of real servers to 0, so that they get no new connections. There may be new ones when a Service
/// loses the new mode's rules.
fn stop_new_connections<'a>(
    ip_vs: &mut IpVs,
    real: impl Iterator<Item = (&'a VirtualServer, RealServer)>,
) -> Result<()> {
    let mut batch = ServerBatch::new();
    for (server, real) in real {
        batch.set_real_server(server, &RealServer { weight: 0, ..real })?;
    }
    // A deleted real server needs no change.
    ip_vs.send(&mut batch, |_, error| match error.errno() {
        Some(libc::ENOENT | libc::ESRCH) => Ok(()),
        _ => Err(error),
    })
}

/// Replaces addresses of the dummy interface with local routes where the machine has another address of the family:
/// connections that the machine opens to them then have that address as their source, and survive the removal.
///
/// # Errors
/// The kernel rejected a request.
pub(super) fn replace_addresses_with_routes(sources: &[IpAddr]) -> Result<()> {
    let mut interfaces = Rtnetlink::open()?;
    let Some(link) = interfaces.link_index(DUMMY_INTERFACE)? else { return Ok(()) };
    let source =
        |of: IpAddr| sources.iter().copied().find(|ip| Family::from_address(*ip) == Family::from_address(of));
    let addresses = interfaces.link_addresses(link)?;
    let replaced = addresses.into_iter().filter_map(|net| Some((net, source(net.addr())?)));
    // Link-local addresses, which the kernel adds when the interface is up, receive no packets.
    let replaced: Vec<(IpNet, IpAddr)> = replaced.filter(|(net, _)| !is_link_local(net.addr())).collect();
    let mut routes = interfaces.local_route_batch()?;
    replaced.iter().for_each(|(net, source)| routes.add(net.addr(), *source));
    interfaces.change_local_routes(&mut routes)?;
    let mut gone = AddressBatch::new();
    replaced.iter().for_each(|(net, _)| gone.delete(link, *net));
    interfaces.change_addresses(&mut gone, |_, error| Err(error))
}

/// Removes all addresses that IPVS mode added to this machine, except those still in use.
fn remove_unused_addresses(used: &HashSet<IpAddr>) -> Result<()> {
    let mut interfaces = Rtnetlink::open()?;
    let mut routes = interfaces.local_route_batch()?;
    let kept = interfaces.local_route_addresses()?;
    kept.into_iter().filter(|address| !used.contains(address)).for_each(|address| routes.remove(address));
    interfaces.change_local_routes(&mut routes)?;
    let Some(link) = interfaces.link_index(DUMMY_INTERFACE)? else { return Ok(()) };
    let mut batch = AddressBatch::new();
    let on_link = interfaces.link_addresses(link)?.into_iter();
    on_link.filter(|net| !used.contains(&net.addr())).for_each(|net| batch.delete(link, net));
    interfaces.change_addresses(&mut batch, |_, error| Err(error))
}

/// Deletes the conntrack entries of flows through removed virtual servers, so that NAT rules see their next packets: a
/// UDP flow continues to an endpoint; a TCP client gets a reset, and its packets do not leave for an address without
/// owner.
fn delete_flows(gone: &HashSet<VirtualServer>) -> Result<()> {
    if gone.is_empty() {
        return Ok(());
    }
    let mut protocols: Vec<u8> = gone.iter().map(|server| server.protocol).collect();
    protocols.sort_unstable();
    protocols.dedup();
    let result = Conntrack::open()?.delete_where(&netlink::Family::ALL, &protocols, |flow| {
        let (address, port) = (flow.original.destination, flow.original.destination_port);
        flow.is_forwarded_by_ipvs()
            && gone.contains(&VirtualServer { protocol: flow.protocol, address, port })
    })?;
    tracing::debug!(flows = result.deleted, "deleted flows through removed virtual servers");
    Ok(())
}

/// Returns the number of connections through each virtual server of a proxy: active connections, and for UDP all known
/// flows.
///
/// # Errors
/// The kernel rejected a request.
pub(super) fn connections() -> Result<HashMap<VirtualServer, u64>> {
    let mut counts = HashMap::new();
    let Some(mut ip_vs) = IpVs::open()? else { return Ok(counts) };
    let servers = ProxyVirtualServers::read(IpSets::open()?.as_mut())?;
    for (server, _) in ip_vs.virtual_servers()?.into_iter().filter(|(server, _)| servers.contains(server)) {
        let counted = |active: u32, inactive: u32| match is_waited_for(&server) {
            true => u64::from(active),
            false => u64::from(active) + u64::from(inactive),
        };
        let all = ip_vs.real_servers(&server)?.iter().map(|real| counted(real.active, real.inactive)).sum();
        if all > 0 {
            counts.insert(server, all);
        }
    }
    Ok(counts)
}
