//! Lets connections through IPVS end before what serves them goes.
//!
//! Rules of NAT see a packet before IPVS does, so that with another mode's in place no new connection comes to a
//! virtual server. Those that it has need three things until they end: the virtual server, its address on this
//! machine, and their entries in connection tracking.
//!
//! Of UDP nothing is waited for: a flow goes on through the new rules as soon as its entry is deleted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use portcullis_cluster::Family;
use portcullis_netlink::conntrack::Conntrack;
use portcullis_netlink::ip_vs::{IpVs, RealServer, ServerBatch, VirtualServer};
use portcullis_netlink::ipset::IpSets;
use portcullis_netlink::route::{AddressBatch, Rtnetlink};
use portcullis_netlink::{self as netlink, Result};

use super::ipvs::Ours;
use crate::ipvs::{DUMMY_INTERFACE, is_link_local};

/// How soon connections are counted for the first time: what the old mode began is answered by then.
pub(super) const FIRST: Duration = Duration::from_secs(1);

/// The longest time between two counts. It doubles with each.
const LONGEST: Duration = Duration::from_secs(10);

/// What is still waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Draining {
    /// Virtual servers that have connections.
    pub servers: usize,
    /// Their connections.
    pub connections: u64,
    /// How long they may last.
    pub left: Duration,
}

/// Virtual servers on their way out.
pub(super) struct Drain {
    ours: Ours,
    deadline: Instant,
    next: Instant,
    pause: Duration,
    /// Their real servers take nothing new.
    quiet: bool,
    /// Connections that had not ended in time.
    cut_off: u64,
}

impl Drain {
    /// Begins, for what a proxy has in IPVS now.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub(super) fn begin(limit: Duration, now: Instant) -> Result<Drain> {
        let ours = Ours::read(IpSets::open()?.as_mut())?;
        let (deadline, next) = (now + limit, now + FIRST.min(limit));
        Ok(Drain { ours, deadline, next, pause: FIRST, quiet: false, cut_off: 0 })
    }

    /// Connections that had not ended in time.
    pub(super) fn cut_off(&self) -> u64 {
        self.cut_off
    }

    /// When the connections are to be counted again.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Removes what has no connection any more, or all if the time is over. Says what is waited for; nothing once all
    /// is gone.
    ///
    /// # Errors
    /// The kernel refuses; the call can be repeated.
    pub(super) fn step(&mut self, now: Instant) -> Result<Option<Draining>> {
        self.next = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST);
        let Some(mut ip_vs) = IpVs::open()? else { return Ok(None) };
        let mut waiting = BTreeMap::new();
        let mut released = HashSet::new();
        let over = now >= self.deadline;
        for (server, _) in ip_vs.virtual_servers()?.into_iter().filter(|(server, _)| self.ours.made(server)) {
            let real = if is_waited_for(&server) { ip_vs.real_servers(&server)? } else { Vec::new() };
            let active = real.iter().map(|real| u64::from(real.active)).sum::<u64>();
            if active == 0 {
                released.insert(server);
            } else if over {
                self.cut_off += active;
                released.insert(server);
            } else {
                waiting.insert(server, (active, real));
            }
        }
        if !self.quiet {
            let real = waiting.iter().flat_map(|(at, (_, real))| real.iter().map(move |r| (at, r.server)));
            silence(&mut ip_vs, real)?;
            self.quiet = true;
        }
        for server in &released {
            ip_vs.delete(server)?;
        }
        release_addresses(&waiting.keys().map(|server| server.address).collect())?;
        forget_flows(&released)?;
        let connections = waiting.values().map(|(active, _)| active).sum();
        let left = self.deadline.saturating_duration_since(now);
        self.next = self.next.min(self.deadline.max(now));
        Ok((!waiting.is_empty()).then_some(Draining { servers: waiting.len(), connections, left }))
    }
}

/// Whether connections through a virtual server end by themselves, and are counted.
fn is_waited_for(server: &VirtualServer) -> bool {
    i32::from(server.protocol) != libc::IPPROTO_UDP
}

/// Gives real servers no new connection. One may come by when its Service loses what the new rules would lead it to.
fn silence<'a>(ip_vs: &mut IpVs, real: impl Iterator<Item = (&'a VirtualServer, RealServer)>) -> Result<()> {
    let mut batch = ServerBatch::new();
    for (server, real) in real {
        batch.set_real_server(server, &RealServer { weight: 0, ..real })?;
    }
    // One that is gone needs no silence.
    ip_vs.send(&mut batch, |_, error| match error.errno() {
        Some(libc::ENOENT | libc::ESRCH) => Ok(()),
        _ => Err(error),
    })
}

/// Has addresses of the link be this machine's by routes alone, where one of its own can stand for them: a connection
/// that the machine opens to them leaves from that one, and lives on when they go.
///
/// # Errors
/// The kernel refuses.
pub(super) fn keep_addresses_by_routes(sources: &[IpAddr]) -> Result<()> {
    let mut interfaces = Rtnetlink::open()?;
    let Some(link) = interfaces.link_index(DUMMY_INTERFACE)? else { return Ok(()) };
    let source =
        |of: IpAddr| sources.iter().copied().find(|ip| Family::from_address(*ip) == Family::from_address(of));
    let addresses = interfaces.link_addresses(link)?;
    let replaced = addresses.into_iter().filter_map(|net| Some((net, source(net.addr())?)));
    // The kernel's own, where somebody set the link up, are nobody's to send to.
    let replaced: Vec<(IpNet, IpAddr)> = replaced.filter(|(net, _)| !is_link_local(net.addr())).collect();
    let mut routes = interfaces.local_route_batch()?;
    replaced.iter().for_each(|(net, source)| routes.add(net.addr(), *source));
    interfaces.change_local_routes(&mut routes)?;
    let mut gone = AddressBatch::new();
    replaced.iter().for_each(|(net, _)| gone.delete(link, *net));
    interfaces.change_addresses(&mut gone, |_, error| Err(error))
}

/// Takes all addresses from this machine that IPVS mode gave it, but those that are still used.
fn release_addresses(used: &HashSet<IpAddr>) -> Result<()> {
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

/// Has connection tracking forget what went through virtual servers that are gone, so that rules of NAT see the next
/// packet: of UDP it goes on to an endpoint, of TCP it meets a reset, instead of leaving for an address that nobody has.
fn forget_flows(gone: &HashSet<VirtualServer>) -> Result<()> {
    if gone.is_empty() {
        return Ok(());
    }
    let mut protocols: Vec<u8> = gone.iter().map(|server| server.protocol).collect();
    protocols.sort_unstable();
    protocols.dedup();
    let done = Conntrack::open()?.delete_where(&netlink::Family::ALL, &protocols, |flow| {
        let (address, port) = (flow.original.destination, flow.original.destination_port);
        flow.is_forwarded_by_ipvs()
            && gone.contains(&VirtualServer { protocol: flow.protocol, address, port })
    })?;
    tracing::debug!(flows = done.deleted, "forgot flows through virtual servers that are gone");
    Ok(())
}

/// Connections through each virtual server of a proxy's: those that are active, and for UDP all that it remembers.
///
/// # Errors
/// The kernel cannot be asked.
pub(super) fn connections() -> Result<HashMap<VirtualServer, u64>> {
    let mut counts = HashMap::new();
    let Some(mut ip_vs) = IpVs::open()? else { return Ok(counts) };
    let ours = Ours::read(IpSets::open()?.as_mut())?;
    for (server, _) in ip_vs.virtual_servers()?.into_iter().filter(|(server, _)| ours.made(server)) {
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
