//! Removal of the kernel objects of IPVS mode other than rules: virtual servers, ipsets, and the dummy interface.

use std::collections::HashSet;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use portcullis_cluster::{Family, Protocol};
use portcullis_netlink::ip_vs::{IpVs, VirtualServer};
use portcullis_netlink::ipset::{Destroyed, IpSets, SetEntry};
use portcullis_netlink::route::Rtnetlink;
use portcullis_netlink::{self as netlink, Result};

use super::result::{CleanupResult, RemovedObject};
use crate::ipvs::{DUMMY_INTERFACE, IpSet};

/// The sets that contain virtual servers by address and port.
const SERVED: [IpSet; 4] = [IpSet::ClusterIp, IpSet::ExternalIp, IpSet::ExternalIpLocal, IpSet::LoadBalancer];

/// nf_tables releases the set of a deleted rule a moment after the rule.
const SET_RETRIES: usize = 40;
const SET_PAUSE: Duration = Duration::from_millis(50);

pub(super) fn remove(result: &mut CleanupResult) {
    let mut sets = match IpSets::open() {
        Ok(sets) => sets,
        Err(error) => return result.add_failure("ipsets of IPVS mode", error),
    };
    match remove_virtual_servers(sets.as_mut()) {
        Ok(0) => {}
        Ok(count) => result.removed.push(RemovedObject::VirtualServers(count)),
        Err(error) => result.add_failure("virtual servers of IPVS mode", error),
    }
    if let Some(sets) = &mut sets {
        for name in Family::BOTH.into_iter().flat_map(|family| IpSet::ALL.map(|set| set.name(family))) {
            remove_set(sets, &name, result);
        }
    }
    if let Err(error) = remove_local_routes() {
        result.add_failure("routes of addresses that IPVS mode served", error);
    }
    match remove_link() {
        Ok(true) => result.removed.push(RemovedObject::Link(DUMMY_INTERFACE.to_owned())),
        Ok(false) => {}
        Err(error) => result.add_failure(format_args!("link {DUMMY_INTERFACE}"), error),
    }
}

/// Finds the objects that [`remove`] would remove.
pub(super) fn find(result: &mut CleanupResult) {
    match find_objects(result) {
        Ok(()) => {}
        Err(error) => result.add_failure("objects of IPVS mode", error),
    }
}

fn find_objects(result: &mut CleanupResult) -> Result<()> {
    let mut sets = IpSets::open()?;
    if let Some(mut ip_vs) = IpVs::open()? {
        let servers = ProxyVirtualServers::read(sets.as_mut())?;
        let count = ip_vs.virtual_servers()?.iter().filter(|(server, _)| servers.contains(server)).count();
        if count > 0 {
            result.removed.push(RemovedObject::VirtualServers(count));
        }
    }
    if let Some(sets) = &mut sets {
        let names = sets.names()?;
        let own_names = Family::BOTH.into_iter().flat_map(|family| IpSet::ALL.map(|set| set.name(family)));
        for name in own_names.filter(|name| names.contains(name)) {
            match result.sets_in_use.remove(&name) {
                Some(rule) => result.add_failure(
                    format_args!("ipset {name}"),
                    format_args!("it would stay, as this rule uses it: {rule}; delete the rule first"),
                ),
                None => result.removed.push(RemovedObject::IpSet(name)),
            }
        }
        result.sets_in_use.clear();
    }
    if Rtnetlink::open()?.link_index(DUMMY_INTERFACE)?.is_some() {
        result.removed.push(RemovedObject::Link(DUMMY_INTERFACE.to_owned()));
    }
    Ok(())
}

/// Returns true if there are objects of IPVS mode: its dummy interface exists.
pub(super) fn has_leftovers() -> bool {
    let link = Rtnetlink::open().and_then(|mut interfaces| interfaces.link_index(DUMMY_INTERFACE));
    // If this cannot be determined, a full pass reports the failure.
    !matches!(link, Ok(None))
}

/// Deletes the virtual servers of a proxy and returns their number: those with an address of its dummy interface, those
/// in its sets, and those for its node ports on an address of this node. All other virtual servers belong to other
/// programs.
fn remove_virtual_servers(sets: Option<&mut IpSets>) -> Result<usize> {
    let Some(mut ip_vs) = IpVs::open()? else { return Ok(0) };
    let servers = ProxyVirtualServers::read(sets)?;
    let mut count = 0;
    for (server, _) in ip_vs.virtual_servers()?.iter().filter(|(server, _)| servers.contains(server)) {
        count += usize::from(ip_vs.delete(server)?);
    }
    Ok(count)
}

/// The properties by which a proxy's virtual servers are recognised.
pub(super) struct ProxyVirtualServers {
    virtual_addresses: HashSet<IpAddr>,
    node_addresses: HashSet<IpAddr>,
    served: HashSet<VirtualServer>,
    /// Family, protocol and port.
    node_ports: HashSet<(Family, u8, u16)>,
}

impl ProxyVirtualServers {
    pub(super) fn read(sets: Option<&mut IpSets>) -> Result<ProxyVirtualServers> {
        let mut interfaces = Rtnetlink::open()?;
        let addresses = interfaces.addresses(&netlink::Family::ALL)?;
        let (on_link, elsewhere): (Vec<_>, Vec<_>) =
            addresses.into_iter().partition(|a| a.interface == DUMMY_INTERFACE);
        let only = |addresses: Vec<netlink::route::Address>| addresses.into_iter().map(|a| a.address.addr());
        let mut servers = ProxyVirtualServers {
            // A migration replaces the interface's addresses with local routes.
            virtual_addresses: only(on_link).chain(interfaces.local_route_addresses()?).collect(),
            node_addresses: only(elsewhere).collect(),
            served: HashSet::new(),
            node_ports: HashSet::new(),
        };
        if let Some(sets) = sets {
            for family in Family::BOTH {
                servers.read_sets(sets, family)?;
            }
        }
        Ok(servers)
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

    pub(super) fn contains(&self, server: &VirtualServer) -> bool {
        let family = Family::from_address(server.address);
        self.virtual_addresses.contains(&server.address)
            || self.served.contains(server)
            || self.node_addresses.contains(&server.address)
                && self.node_ports.contains(&(family, server.protocol, server.port))
    }
}

fn remove_set(sets: &mut IpSets, name: &str, result: &mut CleanupResult) {
    for _ in 0..SET_RETRIES {
        match sets.destroy(name) {
            Ok(Destroyed::Yes) => return result.removed.push(RemovedObject::IpSet(name.to_owned())),
            Ok(Destroyed::Missing) => return,
            Ok(Destroyed::InUse) => thread::sleep(SET_PAUSE),
            Err(error) => return result.add_failure(format_args!("ipset {name}"), error),
        }
    }
    const REASON: &str = "a rule or another set still refers to it; find it with iptables-save, delete it and run cleanup again";
    result.add_failure(format_args!("ipset {name}"), REASON);
}

/// Deletes the local routes that an interrupted migration may have left.
fn remove_local_routes() -> Result<()> {
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
    fn virtual_servers_of_other_programs_are_not_matched() {
        let ip = |text: &str| -> IpAddr { text.parse().expect(text) };
        let servers = ProxyVirtualServers {
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
            assert_eq!(servers.contains(&server), made, "{server:?}");
        }
    }
}
