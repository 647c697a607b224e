//! What IPVS modes leave beside rules: virtual servers, sets, and the link that bears their addresses.

use std::collections::HashSet;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use portcullis_cluster::{Family, Protocol};
use portcullis_netlink::ip_vs::{IpVs, VirtualServer};
use portcullis_netlink::ipset::{Destroyed, IpSets, SetEntry};
use portcullis_netlink::route::Rtnetlink;
use portcullis_netlink::{self as netlink, Result};

use super::{Cleanup, Removed};
use crate::ipvs::{DUMMY_INTERFACE, IpSet};

/// The sets that name virtual servers by address and port.
const SERVED: [IpSet; 4] = [IpSet::ClusterIp, IpSet::ExternalIp, IpSet::ExternalIpLocal, IpSet::LoadBalancer];

/// nf_tables lets go of a deleted rule's set a moment after the rule is gone.
const SET_RETRIES: usize = 40;
const SET_PAUSE: Duration = Duration::from_millis(50);

pub(super) fn remove(done: &mut Cleanup) {
    let mut sets = match IpSets::open() {
        Ok(sets) => sets,
        Err(error) => return done.left("ipsets of IPVS mode", error),
    };
    match remove_virtual_servers(sets.as_mut()) {
        Ok(0) => {}
        Ok(count) => done.removed.push(Removed::VirtualServers(count)),
        Err(error) => done.left("virtual servers of IPVS mode", error),
    }
    if let Some(sets) = &mut sets {
        for name in Family::BOTH.into_iter().flat_map(|family| IpSet::ALL.map(|set| set.name(family))) {
            remove_set(sets, &name, done);
        }
    }
    if let Err(error) = let_go_of_kept_addresses() {
        done.left("routes of addresses that IPVS mode served", error);
    }
    match remove_link() {
        Ok(true) => done.removed.push(Removed::Link(DUMMY_INTERFACE.to_owned())),
        Ok(false) => {}
        Err(error) => done.left(format_args!("link {DUMMY_INTERFACE}"), error),
    }
}

/// Tells what [`remove`] would remove.
pub(super) fn look(done: &mut Cleanup) {
    match find(done) {
        Ok(()) => {}
        Err(error) => done.left("what IPVS mode left", error),
    }
}

fn find(done: &mut Cleanup) -> Result<()> {
    let mut sets = IpSets::open()?;
    if let Some(mut ip_vs) = IpVs::open()? {
        let ours = Ours::read(sets.as_mut())?;
        let count = ip_vs.virtual_servers()?.iter().filter(|(server, _)| ours.made(server)).count();
        if count > 0 {
            done.removed.push(Removed::VirtualServers(count));
        }
    }
    if let Some(sets) = &mut sets {
        let names = sets.names()?;
        let ours = Family::BOTH.into_iter().flat_map(|family| IpSet::ALL.map(|set| set.name(family)));
        done.removed.extend(ours.filter(|name| names.contains(name)).map(Removed::IpSet));
    }
    if Rtnetlink::open()?.link_index(DUMMY_INTERFACE)?.is_some() {
        done.removed.push(Removed::Link(DUMMY_INTERFACE.to_owned()));
    }
    Ok(())
}

/// Whether IPVS mode left anything: its link stands for all the rest.
pub(super) fn left_something() -> bool {
    let link = Rtnetlink::open().and_then(|mut interfaces| interfaces.link_index(DUMMY_INTERFACE));
    // What cannot be asked for is looked for in full, and the failure is told.
    !matches!(link, Ok(None))
}

/// Deletes the virtual servers that a proxy made, and says how many: those on an address of its link, those that
/// its sets name, and those for its node ports on an address of this node. All others are somebody else's.
fn remove_virtual_servers(sets: Option<&mut IpSets>) -> Result<usize> {
    let Some(mut ip_vs) = IpVs::open()? else { return Ok(0) };
    let ours = Ours::read(sets)?;
    let mut count = 0;
    for (server, _) in ip_vs.virtual_servers()?.iter().filter(|(server, _)| ours.made(server)) {
        count += usize::from(ip_vs.delete(server)?);
    }
    Ok(count)
}

/// By what a proxy's virtual servers are known.
pub(super) struct Ours {
    virtual_addresses: HashSet<IpAddr>,
    node_addresses: HashSet<IpAddr>,
    served: HashSet<VirtualServer>,
    /// Family, protocol, port.
    node_ports: HashSet<(Family, u8, u16)>,
}

impl Ours {
    pub(super) fn read(sets: Option<&mut IpSets>) -> Result<Ours> {
        let mut interfaces = Rtnetlink::open()?;
        let addresses = interfaces.addresses(&netlink::Family::ALL)?;
        let (on_link, elsewhere): (Vec<_>, Vec<_>) =
            addresses.into_iter().partition(|a| a.interface == DUMMY_INTERFACE);
        let only = |addresses: Vec<netlink::route::Address>| addresses.into_iter().map(|a| a.address.addr());
        let mut ours = Ours {
            // Those that were the link's until a migration began are its addresses, too.
            virtual_addresses: only(on_link).chain(interfaces.local_route_addresses()?).collect(),
            node_addresses: only(elsewhere).collect(),
            served: HashSet::new(),
            node_ports: HashSet::new(),
        };
        if let Some(sets) = sets {
            for family in Family::BOTH {
                ours.read_sets(sets, family)?;
            }
        }
        Ok(ours)
    }

    fn read_sets(&mut self, sets: &mut IpSets, family: Family) -> Result<()> {
        for set in SERVED {
            sets.entries(&set.name(family), |entry| {
                if let SetEntry::IpPort { ip: address, protocol, port } = entry {
                    self.served.insert(VirtualServer { protocol, address, port });
                }
                Ok(())
            })?;
        }
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let ports = sets.ports(&IpSet::node_ports(protocol).name(family))?;
            self.node_ports.extend(ports.into_iter().map(|port| (family, protocol.number(), port)));
        }
        Ok(())
    }

    pub(super) fn made(&self, server: &VirtualServer) -> bool {
        let family = Family::from_address(server.address);
        self.virtual_addresses.contains(&server.address)
            || self.served.contains(server)
            || self.node_addresses.contains(&server.address)
                && self.node_ports.contains(&(family, server.protocol, server.port))
    }
}

fn remove_set(sets: &mut IpSets, name: &str, done: &mut Cleanup) {
    for _ in 0..SET_RETRIES {
        match sets.destroy(name) {
            Ok(Destroyed::Yes) => return done.removed.push(Removed::IpSet(name.to_owned())),
            Ok(Destroyed::Missing) => return,
            Ok(Destroyed::InUse) => thread::sleep(SET_PAUSE),
            Err(error) => return done.left(format_args!("ipset {name}"), error),
        }
    }
    const REASON: &str =
        "a rule or another set still refers to it; find it with iptables-save, delete it and clean up again";
    done.left(format_args!("ipset {name}"), REASON);
}

/// Deletes the routes that a migration which was broken off may have left.
fn let_go_of_kept_addresses() -> Result<()> {
    let mut interfaces = Rtnetlink::open()?;
    let kept = interfaces.local_route_addresses()?;
    if kept.is_empty() {
        return Ok(());
    }
    let mut batch = interfaces.local_route_batch()?;
    kept.into_iter().for_each(|address| batch.remove(address));
    interfaces.change_local_routes(&mut batch)
}

fn remove_link() -> Result<bool> {
    let mut interfaces = Rtnetlink::open()?;
    match interfaces.links()?.into_iter().find(|link| link.name == DUMMY_INTERFACE) {
        Some(link) => interfaces.delete_link(link.index),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_servers_of_others_stay() {
        let ip = |text: &str| -> IpAddr { text.parse().expect(text) };
        let ours = Ours {
            virtual_addresses: [ip("10.96.0.1"), ip("fd00::1")].into(),
            node_addresses: [ip("192.168.10.11"), ip("fd00:192::11")].into(),
            served: [VirtualServer { protocol: 6, address: ip("192.168.10.11"), port: 443 }].into(),
            node_ports: [(Family::V4, 6, 30080), (Family::V6, 17, 30053)].into(),
        };
        for (address, protocol, port, made) in [
            ("10.96.0.1", libc::IPPROTO_TCP, 443, true),
            ("10.96.0.2", libc::IPPROTO_TCP, 443, false),
            ("fd00::1", libc::IPPROTO_UDP, 53, true),
            ("192.168.10.11", libc::IPPROTO_TCP, 30080, true),
            ("192.168.10.11", libc::IPPROTO_UDP, 30080, false),
            ("192.168.10.11", libc::IPPROTO_TCP, 80, false),
            ("192.168.10.11", libc::IPPROTO_TCP, 443, true),
            ("192.168.10.12", libc::IPPROTO_TCP, 30080, false),
            ("fd00:192::11", libc::IPPROTO_UDP, 30053, true),
            ("fd00:192::11", libc::IPPROTO_TCP, 30080, false),
        ] {
            let server = VirtualServer { protocol: protocol as u8, address: ip(address), port };
            assert_eq!(ours.made(&server), made, "{server:?}");
        }
    }
}
