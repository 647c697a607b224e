//! What IPVS modes leave beside rules: virtual servers, sets, and the link that bears their addresses.

use std::collections::HashSet;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use portcullis_netlink::ip_vs::{IpVs, VirtualServer};
use portcullis_netlink::ipset::{Destroyed, IpSets};
use portcullis_netlink::route::Interfaces;
use portcullis_netlink::{Family, Result};

use super::{Cleanup, Removed};

/// The link that bears the virtual addresses.
const LINK: &str = "kube-ipvs0";

/// kube-proxy's sets for IPv4, by what follows `KUBE-`; those for IPv6 have `KUBE-6-` before it, and the whole
/// is cut to what a set's name may have.
const SETS: [&str; 17] = [
    "LOOP-BACK",
    "CLUSTER-IP",
    "EXTERNAL-IP",
    "EXTERNAL-IP-LOCAL",
    "LOAD-BALANCER",
    "LOAD-BALANCER-FW",
    "LOAD-BALANCER-LOCAL",
    "LOAD-BALANCER-SOURCE-IP",
    "LOAD-BALANCER-SOURCE-CIDR",
    "NODE-PORT-TCP",
    "NODE-PORT-LOCAL-TCP",
    "NODE-PORT-UDP",
    "NODE-PORT-LOCAL-UDP",
    "NODE-PORT-SCTP-HASH",
    "NODE-PORT-LOCAL-SCTP-HASH",
    "HEALTH-CHECK-NODE-PORT",
    "IPVS-IPS",
];

/// The sets that hold the node ports of a protocol.
const NODE_PORTS: [(&str, i32); 3] = [
    ("NODE-PORT-TCP", libc::IPPROTO_TCP),
    ("NODE-PORT-UDP", libc::IPPROTO_UDP),
    ("NODE-PORT-SCTP-HASH", libc::IPPROTO_SCTP),
];

/// `IPSET_MAXNAMELEN` less the NUL.
const SET_NAME_MOST: usize = 31;

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
        for name in Family::ALL.into_iter().flat_map(|family| SETS.map(|rest| set_name(family, rest))) {
            remove_set(sets, &name, done);
        }
    }
    match remove_link() {
        Ok(true) => done.removed.push(Removed::Link(LINK.to_owned())),
        Ok(false) => {}
        Err(error) => done.left(format_args!("link {LINK}"), error),
    }
}

fn set_name(family: Family, rest: &str) -> String {
    let prefix = match family {
        Family::V4 => "KUBE-",
        Family::V6 => "KUBE-6-",
    };
    let mut name = format!("{prefix}{rest}");
    name.truncate(SET_NAME_MOST);
    name
}

/// Deletes the virtual servers that a proxy made, and says how many: those on an address of its link, and
/// those for its node ports on an address of this node. All others are somebody else's.
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
struct Ours {
    virtual_addresses: HashSet<IpAddr>,
    node_addresses: HashSet<IpAddr>,
    /// Family, protocol, port.
    node_ports: HashSet<(Family, i32, u16)>,
}

impl Ours {
    fn read(sets: Option<&mut IpSets>) -> Result<Ours> {
        let addresses = Interfaces::open()?.addresses(&Family::ALL)?;
        let (on_link, elsewhere): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.interface == LINK);
        let only = |addresses: Vec<portcullis_netlink::route::Address>| {
            addresses.into_iter().map(|a| a.address.addr()).collect()
        };
        let mut node_ports = HashSet::new();
        if let Some(sets) = sets {
            for family in Family::ALL {
                for (rest, protocol) in NODE_PORTS {
                    let ports = sets.ports(&set_name(family, rest))?;
                    node_ports.extend(ports.into_iter().map(|port| (family, protocol, port)));
                }
            }
        }
        Ok(Ours { virtual_addresses: only(on_link), node_addresses: only(elsewhere), node_ports })
    }

    fn made(&self, server: &VirtualServer) -> bool {
        let family = Family::of(server.address);
        self.virtual_addresses.contains(&server.address)
            || self.node_addresses.contains(&server.address)
                && self.node_ports.contains(&(family, server.protocol.into(), server.port))
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

fn remove_link() -> Result<bool> {
    let mut interfaces = Interfaces::open()?;
    match interfaces.links()?.into_iter().find(|link| link.name == LINK) {
        Some(link) => interfaces.delete_link(link.index),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sets_fit() {
        for (family, rest, name) in [
            (Family::V4, "LOAD-BALANCER-SOURCE-CIDR", "KUBE-LOAD-BALANCER-SOURCE-CIDR"),
            (Family::V6, "LOAD-BALANCER-SOURCE-CIDR", "KUBE-6-LOAD-BALANCER-SOURCE-CID"),
            (Family::V6, "NODE-PORT-LOCAL-SCTP-HASH", "KUBE-6-NODE-PORT-LOCAL-SCTP-HAS"),
            (Family::V6, "CLUSTER-IP", "KUBE-6-CLUSTER-IP"),
        ] {
            assert_eq!(set_name(family, rest), name);
        }
    }

    #[test]
    fn virtual_servers_of_others_stay() {
        let ip = |text: &str| -> IpAddr { text.parse().expect(text) };
        let ours = Ours {
            virtual_addresses: [ip("10.96.0.1"), ip("fd00::1")].into(),
            node_addresses: [ip("192.168.10.11"), ip("fd00:192::11")].into(),
            node_ports: [(Family::V4, libc::IPPROTO_TCP, 30080), (Family::V6, libc::IPPROTO_UDP, 30053)]
                .into(),
        };
        for (address, protocol, port, made) in [
            ("10.96.0.1", libc::IPPROTO_TCP, 443, true),
            ("10.96.0.2", libc::IPPROTO_TCP, 443, false),
            ("fd00::1", libc::IPPROTO_UDP, 53, true),
            ("192.168.10.11", libc::IPPROTO_TCP, 30080, true),
            ("192.168.10.11", libc::IPPROTO_UDP, 30080, false),
            ("192.168.10.11", libc::IPPROTO_TCP, 80, false),
            ("192.168.10.12", libc::IPPROTO_TCP, 30080, false),
            ("fd00:192::11", libc::IPPROTO_UDP, 30053, true),
            ("fd00:192::11", libc::IPPROTO_TCP, 30080, false),
        ] {
            let server = VirtualServer { protocol: protocol as u8, address: ip(address), port };
            assert_eq!(ours.made(&server), made, "{server:?}");
        }
    }
}
