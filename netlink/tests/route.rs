//! Links, addresses and default routes of a real kernel.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod namespace;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use ipnet::IpNet;
use namespace::{inside, run};
use portcullis_netlink::route::{AddressBatch, AddressEvent, AddressMonitor, Rtnetlink};
use portcullis_netlink::{Error, Family};

fn addresses(interfaces: &mut Rtnetlink, families: &[Family]) -> Vec<(String, String)> {
    let found = interfaces.addresses(families).unwrap();
    found.into_iter().map(|found| (found.interface, found.address.to_string())).collect()
}

fn owned(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|&(interface, address)| (interface.to_owned(), address.to_owned())).collect()
}

#[test]
fn lists_links_and_addresses() {
    inside(|| {
        run("ip link add uplink type veth peer name peer");
        run("ip link add cni0 type bridge");
        for link in ["lo", "uplink", "peer"] {
            run(&format!("ip link set {link} up"));
        }
        run("ip addr add 192.0.2.7/24 dev uplink");
        run("ip addr add 192.0.2.8/24 dev uplink");
        run("ip addr add 10.9.0.1 peer 10.9.0.2/32 dev uplink");
        run("ip addr add 2001:db8::7/64 dev uplink nodad");
        run("ip addr add 10.244.0.1/16 dev cni0");

        let mut interfaces = Rtnetlink::open().unwrap();
        let links = interfaces.links().unwrap();
        let link = |name: &str| links.iter().find(|link| link.name == name).unwrap();
        assert!(link("lo").is_loopback() && link("lo").is_up());
        assert!(!link("uplink").is_loopback() && link("uplink").is_up());
        assert!(!link("cni0").is_up());
        assert_eq!(link("uplink").kind.as_deref(), Some("veth"));
        assert_eq!(link("cni0").kind.as_deref(), Some("bridge"));
        assert_eq!(link("lo").kind, None);

        let v4 = addresses(&mut interfaces, &[Family::V4]);
        let mut sorted = v4.clone();
        sorted.sort();
        let expected = owned(&[
            ("cni0", "10.244.0.1/16"),
            ("lo", "127.0.0.1/8"),
            ("uplink", "10.9.0.1/32"),
            ("uplink", "192.0.2.7/24"),
            ("uplink", "192.0.2.8/24"),
        ]);
        assert_eq!(sorted, expected, "of a point-to-point address, our end counts");

        let found = interfaces.addresses(&Family::ALL).unwrap();
        let second = found.iter().find(|found| found.address.to_string() == "192.0.2.8/24").unwrap();
        assert_eq!((second.index, second.scope), (link("uplink").index, 0));
        assert_ne!(second.flags & libc::IFA_F_SECONDARY, 0);
        let loopback = found.iter().find(|found| found.address.to_string() == "::1/128").unwrap();
        assert_eq!((loopback.interface.as_str(), loopback.scope), ("lo", libc::RT_SCOPE_HOST));
        assert!(found.iter().any(|found| found.address.to_string() == "2001:db8::7/64"));
        assert!(
            found.iter().take(v4.len()).all(|found| found.address.addr().is_ipv4()),
            "the requested families"
        );
    });
}

#[test]
fn finds_the_default_routes_address() {
    inside(|| {
        let mut interfaces = Rtnetlink::open().unwrap();
        assert_eq!(interfaces.default_route_source(Family::V4).unwrap(), None);

        for (link, peer) in [("wan", "wan-peer"), ("lan", "lan-peer")] {
            run(&format!("ip link add {link} type veth peer name {peer}"));
            run(&format!("ip link set {peer} up"));
            run(&format!("ip link set {link} up"));
        }
        run("ip addr add 10.1.0.5/24 dev lan");
        run("ip addr add 192.0.2.7/24 dev wan");
        run("ip addr add fd00::5/64 dev lan nodad");
        run("ip addr add 2001:db8::7/64 dev wan nodad");
        // Default routes of other tables are ignored.
        run("ip route add default via 10.1.0.1 table 100");
        run("ip -6 route add default dev lan table main metric 1");
        assert_eq!(interfaces.default_route_source(Family::V4).unwrap(), None);
        assert_eq!(interfaces.default_route_source(Family::V6).unwrap(), None, "no gateway");

        run("ip route add default via 192.0.2.1 metric 100");
        run("ip route add default via 10.1.0.1 metric 200");
        run("ip -6 route add default via 2001:db8::1 metric 100");
        let found = |interfaces: &mut Rtnetlink, family| interfaces.default_route_source(family).unwrap();
        assert_eq!(found(&mut interfaces, Family::V4), Some("192.0.2.7".parse::<IpAddr>().unwrap()));
        assert_eq!(found(&mut interfaces, Family::V6), Some("2001:db8::7".parse::<IpAddr>().unwrap()));

        run("ip link set wan down");
        assert_eq!(found(&mut interfaces, Family::V4), Some("10.1.0.5".parse::<IpAddr>().unwrap()));

        run("ip route del default metric 200");
        run("ip route add default metric 50 nexthop via 10.1.0.1 weight 1 nexthop via 10.1.0.2 weight 1");
        assert_eq!(found(&mut interfaces, Family::V4), Some("10.1.0.5".parse::<IpAddr>().unwrap()));
    });
}

#[test]
fn follows_addresses() {
    inside(|| {
        run("ip link add node type veth peer name peer");
        run("ip link set node up");
        let mut changes = AddressMonitor::open().unwrap();
        let mut waiting = AddressMonitor::open().unwrap();
        changes.set_nonblocking().unwrap();
        assert_eq!(changes.try_next().unwrap(), None);
        assert!(!readable(&changes));

        run("ip addr add 192.0.2.7/24 dev node");
        run("ip addr add 2001:db8::7/64 dev node nodad");
        assert!(readable(&changes));
        // The kernel reports IPv6 addresses with a delay, which may last until the deletion.
        let mut waited: Vec<_> = waiting.by_ref().take(2).map(Result::unwrap).collect();
        run("ip addr del 192.0.2.7/24 dev node");

        let (v4, v6) = ("192.0.2.7/24".parse().unwrap(), "2001:db8::7/64".parse().unwrap());
        let index = Rtnetlink::open()
            .unwrap()
            .links()
            .unwrap()
            .iter()
            .find(|link| link.name == "node")
            .unwrap()
            .index;
        let expected = [
            AddressEvent::Updated { index, address: v4 },
            AddressEvent::Updated { index, address: v6 },
            AddressEvent::Removed { index, address: v4 },
        ];
        let seen: Vec<_> = std::iter::from_fn(|| changes.try_next().unwrap()).collect();
        assert_eq!(seen, expected);
        assert!(!readable(&changes));

        // The blocking monitor receives the same events, and waits for more.
        waited.extend(waiting.take(1).map(Result::unwrap));
        assert_eq!(waited, expected);
    });
}

#[test]
fn leaves_out_one_interface_at_a_time() {
    inside(|| {
        run("ip link add services type bridge");
        run("ip link add node type bridge");
        let mut interfaces = Rtnetlink::open().unwrap();
        let mut index = |name| interfaces.link_index(name).unwrap().unwrap();
        let (services, node) = (index("services"), index("node"));
        let mut changes = AddressMonitor::open().unwrap();
        changes.set_nonblocking().unwrap();
        for (ignored, reported) in [(services, node), (node, services)] {
            changes.ignore_link(ignored).unwrap();
            run("ip addr add 10.96.0.1/32 dev services");
            run("ip addr add 192.0.2.7/32 dev node");
            changes.wait().unwrap();
            match changes.try_next().unwrap() {
                Some(AddressEvent::Updated { index, .. }) => assert_eq!(index, reported),
                other => panic!("{other:?}"),
            }
            assert_eq!(changes.try_next().unwrap(), None);
            run("ip addr flush dev services");
            run("ip addr flush dev node");
            while changes.try_next().unwrap().is_some() {}
        }
    });
}

#[test]
fn missed_changes_are_reported_and_the_monitor_continues() {
    inside(|| {
        run("ip link set lo up");
        let mut changes = AddressMonitor::open().unwrap();
        changes.set_nonblocking().unwrap();
        // Each change takes at least 700 bytes of kernel memory, and the buffer has 8 MiB.
        let commands = "addr add 10.1.0.1/32 dev lo\naddr del 10.1.0.1/32 dev lo\n".repeat(10_000);
        let file = std::env::temp_dir().join(format!("portcullis-addresses-{}", std::process::id()));
        std::fs::write(&file, commands).unwrap();
        run(&format!("ip -batch {}", file.display()));
        std::fs::remove_file(&file).unwrap();

        let seen: Vec<_> = std::iter::from_fn(|| changes.try_next().unwrap()).collect();
        assert!(seen.contains(&AddressEvent::Overrun), "{} changes and none missed", seen.len());
        run("ip addr add 192.0.2.7/32 dev lo");
        assert!(matches!(changes.try_next().unwrap(), Some(AddressEvent::Updated { .. })));
    });
}

fn readable(changes: &AddressMonitor) -> bool {
    let mut poll = libc::pollfd { fd: changes.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one live pollfd is given with its count.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 }
}

#[test]
fn deletes_a_link() {
    inside(|| {
        run("ip link add kube-ipvs0 type bridge");
        run("ip link add other type bridge");
        let mut interfaces = Rtnetlink::open().unwrap();
        let index = |interfaces: &mut Rtnetlink| {
            interfaces.links().unwrap().into_iter().find(|l| l.name == "kube-ipvs0").map(|l| l.index)
        };
        let deleted = index(&mut interfaces).unwrap();
        assert!(interfaces.delete_link(deleted).unwrap());
        assert!(!interfaces.delete_link(deleted).unwrap(), "the link is already deleted");
        assert_eq!(index(&mut interfaces), None);
        assert!(interfaces.links().unwrap().iter().any(|l| l.name == "other"));
    });
}

#[test]
fn adds_and_deletes_an_address() {
    inside(|| {
        run("ip link add cni0 type bridge");
        run("ip link add other type bridge");
        run("ip addr add 10.9.0.1/24 dev other");
        let mut interfaces = Rtnetlink::open().unwrap();
        let index = interfaces.link_index("cni0").unwrap().unwrap();
        assert_eq!(interfaces.link_index("none").unwrap(), None);
        assert!(matches!(interfaces.link_index("a-name-too-long-"), Err(Error::BadName { most: 15, .. })));
        assert_eq!(interfaces.link_addresses(index).unwrap(), []);

        let nets: Vec<IpNet> = ["10.96.0.1/32", "192.0.2.7/24", "2001:db8::7/128", "fd00::1/64"]
            .map(|net| net.parse().unwrap())
            .to_vec();
        for &net in &nets {
            assert!(!interfaces.delete_address(index, net).unwrap(), "{net} is not there yet");
            assert!(interfaces.add_address(index, net).unwrap());
            assert!(!interfaces.add_address(index, net).unwrap(), "{net} is there");
        }
        let mut found = interfaces.link_addresses(index).unwrap();
        found.sort();
        assert_eq!(found, nets);
        let all = interfaces.addresses(&Family::ALL).unwrap();
        let v6 = all.iter().find(|found| found.address == nets[2]).unwrap();
        assert_ne!(v6.flags & libc::IFA_F_NODAD, 0);
        let v4 = all.iter().find(|found| found.address == nets[0]).unwrap();
        assert_eq!((v4.scope, v4.flags), (0, libc::IFA_F_PERMANENT));

        for &net in &nets {
            assert!(interfaces.delete_address(index, net).unwrap());
            assert!(!interfaces.delete_address(index, net).unwrap(), "{net} is gone");
        }
        assert_eq!(interfaces.link_addresses(index).unwrap(), []);

        let missing = index + 100;
        assert_eq!(interfaces.add_address(missing, nets[0]).unwrap_err().errno(), Some(libc::ENODEV));
        assert!(!interfaces.delete_address(missing, nets[0]).unwrap());
        assert_eq!(interfaces.link_addresses(missing).unwrap(), []);
    });
}

#[test]
fn changes_thousands_of_addresses_at_once() {
    inside(|| {
        run("ip link add cni0 type bridge");
        let mut interfaces = Rtnetlink::open().unwrap();
        let index = interfaces.link_index("cni0").unwrap().unwrap();
        let nets: Vec<IpNet> = (1..5000u32)
            .flat_map(|number| {
                let v4 = Ipv4Addr::from(0x0a60_0000 + number);
                let v6 = Ipv6Addr::from(0xfd00 << 112 | u128::from(number));
                [IpAddr::V4(v4), IpAddr::V6(v6)].map(IpNet::from)
            })
            .collect();
        let mut batch = AddressBatch::new();
        nets.iter().for_each(|&net| batch.add(index, net));
        // The batch contains an address that the kernel rejects, and one that exists.
        let rejected_at = batch.len();
        batch.add(index, "ff02::1/128".parse().unwrap());
        batch.add(index, nets[0]);
        let mut rejected = Vec::new();
        let outcome = interfaces.change_addresses(&mut batch, |position, error| {
            rejected.push((position, error.errno()));
            Ok(())
        });
        outcome.unwrap();
        assert_eq!(rejected, [(rejected_at, Some(libc::EADDRNOTAVAIL))]);
        let mut found = interfaces.link_addresses(index).unwrap();
        found.sort();
        let mut sorted = nets.clone();
        sorted.sort();
        assert_eq!(found, sorted);

        batch.clear();
        assert!(batch.is_empty());
        nets.iter().for_each(|&net| batch.delete(index, net));
        batch.delete(index, nets[0]);
        interfaces.change_addresses(&mut batch, |_, error| Err(error)).unwrap();
        assert_eq!(interfaces.link_addresses(index).unwrap(), []);
    });
}
