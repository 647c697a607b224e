//! The baseline: a program that makes the interface of a pod by netlink, with the settings that the pod needs, and does nothing else. It
//! neither chooses addresses nor records them.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::Path;

use ipnet::IpNet;
use portcullis_netlink::route::{
    InterfaceBatch, Ipv4Setting, LinkSettings, MacAddress, NeighbourState, PodRoute, Rtnetlink, VethEnd,
};
use portcullis_podnet::pod_interface::Namespace;

/// The first argument with which this benchmark is the baseline.
pub(crate) const COMMAND: &str = "bare";

const BRIDGE: &str = "cni0";

/// Settings of IPv6 in the pod: router advertisements are ignored, addresses are usable immediately and stay when the link is set down.
const IPV6_SETTINGS: [(&str, &str); 4] =
    [("accept_ra", "0"), ("accept_dad", "0"), ("keep_addr_on_down", "1"), ("ndisc_notify", "1")];

/// Executes `VERB WIRING NETNS NUMBER`.
pub(crate) fn run(words: &[String]) {
    let [verb, wiring, netns, number] = words else { panic!("expected VERB WIRING NETNS NUMBER") };
    let number: u32 = number.parse().expect("a number");
    let name = format!("pcbare{number}");
    let mut host = Rtnetlink::open().expect("rtnetlink");
    if verb == "DEL" {
        let link = host.link(&name).expect("the kernel answers").expect("it was added");
        host.delete_link(link.index).expect("it is deleted");
        return;
    }
    add(&mut host, &name, wiring == "bridge", Path::new(netns), number).expect("the kernel accepts it");
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

fn add(
    host: &mut Rtnetlink,
    name: &str,
    is_bridge: bool,
    netns: &Path,
    number: u32,
) -> portcullis_netlink::Result<()> {
    let pod = Namespace::open(netns).expect("a namespace");
    let v4 = Ipv4Addr::from(0x0af4_0002 + number);
    let v6 = Ipv6Addr::from((0xfd00_0010_0244 << 80) + 2 + u128::from(number));
    let bridge = is_bridge.then(|| ensure_bridge(host)).transpose()?;
    let [a, b, c, d] = number.to_be_bytes();
    let (host_mac, pod_mac) = (MacAddress([2, 1, a, b, c, d]), MacAddress([2, 2, a, b, c, d]));
    let near = VethEnd { name, mac: host_mac, mtu: 0, namespace: None, controller: bridge };
    let far = VethEnd { name: "eth0", mac: pod_mac, mtu: 0, namespace: Some(pod.as_fd()), controller: None };
    let (link, peer) = host.add_link_veth(&near, &far)?;
    set_ipv6(name, "accept_ra", "0");
    let mut batch = InterfaceBatch::new();
    let ipv4: &[_] =
        if is_bridge { &[] } else { &[(Ipv4Setting::ProxyArp, 1), (Ipv4Setting::ReversePathFilter, 1)] };
    batch.configure_link(link.index, &LinkSettings { has_no_link_local: true, alias: Some(name), ipv4 });
    batch.set_up(link.index);
    if !is_bridge {
        batch.add_address(link.index, net("fe80::1/64"));
        for address in [v4.into(), v6.into()] {
            let destination = IpNet::from(address);
            batch.replace_route(&PodRoute { destination, gateway: None, link: link.index, protocol: 80 });
            batch.replace_neighbour(link.index, address, pod_mac, NeighbourState::Reachable);
        }
    }
    host.change_interfaces(&mut batch)?;
    let mut batch = InterfaceBatch::new();
    let ipv4 = &[(Ipv4Setting::ArpNotify, 1)];
    batch.configure_link(peer, &LinkSettings { has_no_link_local: true, alias: None, ipv4 });
    batch.set_up(peer);
    batch.add_address(peer, net(&format!("fe80::2:{number:x}/64")));
    let (prefix_v4, prefix_v6) = if is_bridge { (16, 64) } else { (32, 128) };
    batch.add_address(peer, IpNet::new(v4.into(), prefix_v4).expect("a prefix length"));
    batch.add_address(peer, IpNet::new(v6.into(), prefix_v6).expect("a prefix length"));
    let gateways = if is_bridge { ["10.244.0.1", "fd00:10:244::1"] } else { ["169.254.1.1", "fe80::1"] };
    let gateways = gateways.map(|gateway| gateway.parse().expect("an address"));
    let mut route = |destination: &str, gateway| {
        batch.add_route(&PodRoute { destination: net(destination), gateway, link: peer, protocol: 80 });
    };
    if !is_bridge {
        route("169.254.1.1/32", None);
    }
    route("0.0.0.0/0", Some(gateways[0]));
    route("::/0", Some(gateways[1]));
    if !is_bridge {
        gateways
            .iter()
            .for_each(|gateway| batch.replace_neighbour(peer, *gateway, host_mac, NeighbourState::Permanent));
    }
    let changed = pod.run(|| {
        IPV6_SETTINGS.iter().for_each(|(setting, value)| set_ipv6("eth0", setting, value));
        let mut pod = Rtnetlink::open()?;
        pod.change_interfaces(&mut batch)?;
        // Until packets pass.
        while !pod.link("eth0")?.expect("it was added").is_operational {}
        Ok(pod)
    });
    let mut pod = changed.expect("it can be entered")?;
    if is_bridge {
        while !host.link(name)?.expect("it was added").is_operational {}
        // The pod announces its addresses.
        let mut batch = InterfaceBatch::new();
        batch.set_mac(peer, pod_mac);
        pod.change_interfaces(&mut batch)?;
        let mut batch = InterfaceBatch::new();
        batch.set_hairpin(link.index);
        host.change_interfaces(&mut batch)?;
    }
    Ok(())
}

fn set_ipv6(link: &str, setting: &str, value: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{link}/{setting}");
    let mut file = OpenOptions::new().write(true).open(&path).expect("the kernel has IPv6");
    file.write_all(value.as_bytes()).expect("runs as root");
}

fn ensure_bridge(host: &mut Rtnetlink) -> portcullis_netlink::Result<u32> {
    if let Some(bridge) = host.link(BRIDGE)? {
        return Ok(bridge.index);
    }
    host.add_link_bridge(BRIDGE, MacAddress([2, 0, 0, 0, 0, 1]), 0)?;
    let bridge = host.link(BRIDGE)?.expect("it was just added").index;
    let mut batch = InterfaceBatch::new();
    batch.set_up(bridge);
    batch.add_address(bridge, net("10.244.0.1/16"));
    batch.add_address(bridge, net("fd00:10:244::1/64"));
    host.change_interfaces(&mut batch)?;
    Ok(bridge)
}
