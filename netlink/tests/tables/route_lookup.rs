//! Routes of packets as the kernel finds them, and why it finds none.

use std::net::IpAddr;

use portcullis_netlink::route::{RouteLookup, Rtnetlink};

use crate::namespace::{inside, run};

#[test]
fn routes_are_found_or_rejected_with_the_reason() {
    inside(|| {
        for line in [
            "ip link set lo up",
            "ip link add in0 type veth peer name in1",
            "ip link add out0 type veth peer name out1",
            "ip addr add 10.1.0.1/24 dev in0",
            "ip addr add 10.2.0.1/24 dev out0",
            "ip addr add fd00:1::1/64 dev in0 nodad",
            "ip addr add fd00:2::1/64 dev out0 nodad",
            "ip link set in0 up",
            "ip link set in1 up",
            "ip link set out0 up",
            "ip link set out1 up",
            "ip route add 10.3.0.0/24 via 10.2.0.7",
            "ip route add unreachable 10.4.0.0/24",
            "ip route add prohibit 10.5.0.0/24",
            "ip route add blackhole 10.6.0.0/24",
            "sysctl -qw net.ipv4.conf.all.rp_filter=0",
            "sysctl -qw net.ipv4.conf.in0.rp_filter=1",
            "sysctl -qw net.ipv4.conf.in0.forwarding=1",
            "sysctl -qw net.ipv4.conf.out0.forwarding=0",
        ] {
            run(line);
        }
        let mut routes = Rtnetlink::open().unwrap();
        let links = routes.links().unwrap();
        let index = |name: &str| links.iter().find(|link| link.name == name).map(|link| link.index);
        // The source, the input interface, the destination, and the output interface or the error.
        type Row<'a> = (&'a str, Option<&'a str>, &'a str, Result<&'a str, i32>);
        let rows: [Row<'_>; 14] = [
            ("10.1.0.9", Some("in0"), "10.2.0.9", Ok("out0")),
            ("10.1.0.9", Some("in0"), "10.3.0.9", Ok("out0")),
            ("10.1.0.9", Some("in0"), "10.1.0.1", Ok("lo")),
            ("10.1.0.9", Some("in0"), "10.9.0.1", Err(libc::ENETUNREACH)),
            // Reverse path filtering: the source is behind the other interface. EXDEV before Linux 6.13 or so.
            ("10.2.0.9", Some("in0"), "10.3.0.9", Err(libc::EINVAL)),
            // The interface does not forward.
            ("10.2.0.9", Some("out0"), "10.1.0.9", Err(libc::EHOSTUNREACH)),
            ("10.1.0.9", Some("in0"), "10.4.0.9", Err(libc::EHOSTUNREACH)),
            ("10.1.0.9", Some("in0"), "10.5.0.9", Err(libc::EACCES)),
            ("10.1.0.9", Some("in0"), "10.6.0.9", Err(libc::EINVAL)),
            ("10.1.0.1", None, "10.3.0.9", Ok("out0")),
            ("10.1.0.1", None, "10.9.0.1", Err(libc::ENETUNREACH)),
            ("fd00:1::9", Some("in0"), "fd00:2::9", Ok("out0")),
            ("fd00:1::9", Some("in0"), "fd00:9::9", Err(libc::ENETUNREACH)),
            ("fd00:1::1", None, "fd00:2::9", Ok("out0")),
        ];
        for (source, input, destination, expected) in rows {
            let lookup = RouteLookup {
                destination: destination.parse::<IpAddr>().unwrap(),
                source: Some(source.parse().unwrap()),
                input: input.map(|name| index(name).unwrap()),
                output: None,
                mark: 0,
            };
            let found = routes.look_up_route(&lookup);
            let name = |index: u32| {
                links.iter().find(|link| link.index == index).map(|link| link.name.as_str()).unwrap()
            };
            let result = match &found {
                Ok(route) => Ok(name(route.output.unwrap())),
                Err(error) => Err(error
                    .errno()
                    .map(|errno| if errno == libc::EXDEV { libc::EINVAL } else { errno })
                    .unwrap()),
            };
            assert_eq!(result, expected, "{source} {input:?} {destination}: {found:?}");
        }
    });
}

#[test]
fn routes_to_single_addresses_are_found() {
    inside(|| {
        for line in [
            "ip link set lo up",
            "ip link add up0 type veth peer name up1",
            "ip link add pod0 type veth peer name pod1",
            "ip addr add 10.1.0.1/24 dev up0",
            "ip addr add fd00:1::1/64 dev up0 nodad",
            "ip link set up0 up",
            "ip link set up1 up",
            "ip link set pod0 up",
            "ip link set pod1 up",
            "ip route add default dev up0",
            "ip route add unreachable 10.4.0.0/24",
            "ip route add blackhole 10.6.0.0/24",
            "ip route add blackhole 10.6.0.9/32",
            "ip route add 10.2.0.5/32 dev pod0",
            "ip route add 10.4.0.5/32 dev pod0",
            "ip route add unreachable fd00:4::/64",
            "ip route add fd00:2::5/128 dev pod0",
            "ip route add fd00:4::5/128 dev pod0",
        ] {
            run(line);
        }
        let mut routes = Rtnetlink::open().unwrap();
        for (address, expected) in [
            ("10.2.0.5", true),
            ("10.4.0.5", true),
            ("fd00:2::5", true),
            ("fd00:4::5", true),
            ("10.2.0.6", false),
            ("10.1.0.7", false),
            ("10.4.0.6", false),
            ("10.6.0.6", false),
            ("10.6.0.9", false),
            ("fd00:2::6", false),
            ("fd00:4::6", false),
            ("fd00:9::6", false),
            // Addresses of the node.
            ("10.1.0.1", false),
            ("fd00:1::1", false),
        ] {
            assert_eq!(routes.has_host_route(address.parse().unwrap()).unwrap(), expected, "{address}");
        }
    });
}
