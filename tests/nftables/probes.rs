//! The packets that are traced: all combinations of fields that rules may treat differently.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_cluster::Family;
use portcullis_netlink::nf_tables::Packet;

use crate::states::State;

/// The maximum number of endpoints of a port to which packets are sent directly.
const ENDPOINTS: usize = 4;

const PROTOCOLS: [u8; 3] = [libc::IPPROTO_TCP as u8, libc::IPPROTO_UDP as u8, libc::IPPROTO_SCTP as u8];

/// The bridge and a veth interface of pods on this node, and the uplink.
const INTERFACES: [&str; 3] = ["cni0", "veth5", "eth0"];

/// Returns all packets for a state.
pub fn packets(state: &State<'_>) -> Vec<Packet> {
    let (destinations, ports, sources) = (destinations(state), ports(state), sources(state));
    let mut packets = Vec::new();
    for (source, input) in &sources {
        for destination in &destinations {
            for port in &ports {
                for protocol in PROTOCOLS {
                    let packet = Packet::new(*source, *destination, protocol, *port);
                    let input = input.map(|name| (7, name.to_owned()));
                    packets.push(Packet { input, ..packet });
                }
            }
        }
    }
    packets
}

/// Returns the node's addresses of the family, and a link-local IPv6 address that no fixture has.
pub fn node_addresses(state: &State<'_>) -> Vec<IpAddr> {
    let link = "fe80::5".parse().expect("an address");
    let all = state.case.host.addresses().chain([link]);
    all.filter(|ip| Family::from_address(*ip) == state.family).collect()
}

fn address(state: &State<'_>, v4: &str, v6: &str) -> IpAddr {
    let text = if state.family == Family::V4 { v4 } else { v6 };
    text.parse().expect("an address")
}

/// Returns the address of an external client.
pub fn external_client(state: &State<'_>) -> IpAddr {
    address(state, "192.0.2.77", "2001:db8:77::7")
}

fn destinations(state: &State<'_>) -> BTreeSet<IpAddr> {
    let mut found: BTreeSet<IpAddr> = node_addresses(state).into_iter().collect();
    found.insert(address(state, "127.0.0.2", "::1"));
    found.insert(address(state, "198.18.0.1", "2001:db8:99::1"));
    for port in state.ports() {
        found.extend(port.cluster_ip);
        found.extend(port.external_ips.iter().chain(&port.load_balancer_vips));
    }
    found.extend(endpoints(state));
    // An unallocated cluster IP: the last address of each Service CIDR.
    found.extend(
        state
            .node
            .service_cidrs
            .iter()
            .map(IpNet::broadcast)
            .filter(|ip| Family::from_address(*ip) == state.family),
    );
    found
}

fn endpoints(state: &State<'_>) -> BTreeSet<IpAddr> {
    let of = |local: bool| {
        state.ports().flat_map(move |port| {
            let serving = port.endpoints.serving().iter().filter(move |e| e.is_local() == local);
            serving.map(|e| e.ip).take(ENDPOINTS / 2)
        })
    };
    of(true).chain(of(false)).collect()
}

fn ports(state: &State<'_>) -> BTreeSet<u16> {
    let mut found = BTreeSet::from([1]);
    for port in state.ports() {
        found.insert(port.port.get());
        found.extend(port.node_port.map(|port| port.get()));
        found.extend(port.endpoints.serving().iter().take(ENDPOINTS).map(|e| e.port.get()));
    }
    found
}

/// Returns source addresses with input interfaces; `None` for packets that this node sends.
fn sources(state: &State<'_>) -> BTreeSet<(IpAddr, Option<&'static str>)> {
    let mut found = BTreeSet::new();
    let pods = [
        address(state, "10.244.1.99", "fd00:10:244:1::99"),
        address(state, "10.244.2.99", "fd00:10:244:2::99"),
        external_client(state),
    ];
    found.extend(pods.iter().flat_map(|ip| INTERFACES.map(|interface| (*ip, Some(interface)))));
    found.extend(endpoints(state).into_iter().map(|ip| (ip, Some("cni0"))));
    found.extend(node_addresses(state).into_iter().map(|ip| (ip, None)));
    for port in state.ports() {
        for range in port.source_ranges.iter().flatten() {
            let ends = [range.network(), range.broadcast()];
            let beyond = [before(ends[0]), after(ends[1])];
            found.extend(ends.into_iter().chain(beyond.into_iter().flatten()).map(|ip| (ip, Some("eth0"))));
        }
        if port.source_ranges.is_some() {
            for ip in &port.load_balancer_vips {
                found.extend([(*ip, None), (*ip, Some("eth0"))]);
            }
        }
    }
    found
}

fn before(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(v4) => v4.to_bits().checked_sub(1).map(|bits| std::net::Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_sub(1).map(|bits| std::net::Ipv6Addr::from_bits(bits).into()),
    }
}

fn after(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| std::net::Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| std::net::Ipv6Addr::from_bits(bits).into()),
    }
}
