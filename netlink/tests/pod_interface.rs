//! Veth pairs, bridges, and batches of changes to them, in a real kernel.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod namespace;

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;

use namespace::{inside, run};
use portcullis_netlink::route::{
    InterfaceBatch, Ipv4Setting, LinkSettings, MacAddress, NeighbourState, PodRoute, Rtnetlink, VethEnd,
};

const HOST_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const POD_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

/// Runs `test` in a network namespace with the file of another one, and with a function that runs code in the other one.
fn with_pod(test: impl FnOnce(&File, &dyn Fn(Box<dyn FnOnce() + Send>)) + Send) {
    thread::scope(|scope| {
        let (tasks, received) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (done, finished) = mpsc::channel();
        let (opened, file) = mpsc::channel();
        scope.spawn(move || {
            inside(|| {
                opened.send(File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
                for task in received {
                    task();
                    done.send(()).unwrap();
                }
            });
        });
        let pod = file.recv().unwrap();
        inside(move || {
            let finished = std::sync::Mutex::new(finished);
            test(&pod, &|task| {
                tasks.send(task).unwrap();
                finished.lock().unwrap().recv().expect("the task in the pod succeeded");
            });
            drop(tasks);
        });
    });
}

fn ends<'a>(pod: &'a File, controller: Option<u32>) -> (VethEnd<'a>, VethEnd<'a>) {
    let host = VethEnd { name: "pc0", mac: HOST_MAC, mtu: 1400, namespace: None, controller };
    (host, VethEnd { name: "eth0", mac: POD_MAC, mtu: 1400, namespace: Some(pod.as_fd()), controller: None })
}

#[test]
fn a_veth_pair_reaches_into_another_namespace() {
    with_pod(|pod, in_pod| {
        let mut host = Rtnetlink::open().unwrap();
        let (near, far) = ends(pod, None);
        let (link, peer) = host.add_link_veth(&near, &far).unwrap();
        assert_eq!((link.name.as_str(), link.kind.as_deref()), ("pc0", Some("veth")));
        assert_eq!((link.mac, link.mtu, link.is_up()), (Some(HOST_MAC), 1400, false));
        assert_eq!((link.alias, link.has_hairpin, link.controller), (None, false, None));
        in_pod(Box::new(move || {
            let eth0 = Rtnetlink::open().unwrap().link("eth0").unwrap().unwrap();
            assert_eq!((eth0.index, eth0.mac, eth0.mtu), (peer, Some(POD_MAC), 1400));
        }));

        let error = host.add_link_veth(&near, &far).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EEXIST), "{error}");
        // The name inside is taken, and nothing is left on the host.
        let error = host.add_link_veth(&VethEnd { name: "pc1", ..near }, &far).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EEXIST), "{error}");
        assert_eq!(host.link("pc1").unwrap(), None);
        let error = host.add_link_veth(&VethEnd { name: "sixteen-bytes-xy", ..near }, &far).unwrap_err();
        assert!(error.to_string().contains("1 to 15 bytes"), "{error}");

        assert!(host.delete_link(link.index).unwrap());
        in_pod(Box::new(|| assert_eq!(Rtnetlink::open().unwrap().link("eth0").unwrap(), None)));
    });
}

#[test]
fn a_batch_configures_links_addresses_routes_and_neighbours() {
    with_pod(|pod, in_pod| {
        let mut host = Rtnetlink::open().unwrap();
        let (near, far) = ends(pod, None);
        let (link, peer) = host.add_link_veth(&near, &far).unwrap();
        let mut batch = InterfaceBatch::new();
        batch.configure_link(
            link.index,
            &LinkSettings {
                alias: Some("portcullis c1 eth0"),
                ipv4: &[(Ipv4Setting::ProxyArp, 1), (Ipv4Setting::ReversePathFilter, 1)],
                has_no_link_local: true,
            },
        );
        batch.set_up(link.index);
        batch.add_address(link.index, "fe80::1/64".parse().unwrap());
        // An existing address stays.
        batch.add_address(link.index, "fe80::1/64".parse().unwrap());
        let to = |net: &str| PodRoute {
            destination: net.parse().unwrap(),
            gateway: None,
            link: link.index,
            protocol: 80,
        };
        let routes = [to("10.244.1.5/32"), to("fd00::5/128")];
        for route in &routes {
            batch.replace_route(route);
            batch.replace_route(route);
            batch.replace_neighbour(link.index, route.destination.addr(), POD_MAC, NeighbourState::Permanent);
        }
        host.change_interfaces(&mut batch).unwrap();

        in_pod(Box::new(move || {
            let mut rtnetlink = Rtnetlink::open().unwrap();
            let mut batch = InterfaceBatch::new();
            batch.configure_link(peer, &LinkSettings { has_no_link_local: true, ..LinkSettings::default() });
            batch.set_up(peer);
            batch.add_address(peer, "10.244.1.5/24".parse().unwrap());
            batch.add_address(peer, "fd00::5/128".parse().unwrap());
            let via = |destination: &str, gateway: Option<&str>| PodRoute {
                destination: destination.parse().unwrap(),
                gateway: gateway.map(|gateway| gateway.parse().unwrap()),
                link: peer,
                protocol: 80,
            };
            let routes = [
                via("169.254.1.1/32", None),
                via("0.0.0.0/0", Some("169.254.1.1")),
                via("::/0", Some("fe80::1")),
            ];
            routes.iter().for_each(|route| batch.add_route(route));
            batch.add_route(&routes[1]);
            rtnetlink.change_interfaces(&mut batch).unwrap();
            let shown = run("ip -4 addr show dev eth0");
            assert!(shown.contains("10.244.1.5/24 brd 10.244.1.255 scope global"), "{shown}");
            let shown = run("ip -6 addr show dev eth0");
            assert!(shown.contains("fd00::5/128") && shown.contains("nodad"), "{shown}");
            assert!(!shown.contains("tentative") && !shown.contains("fe80"), "{shown}");
            let listed = rtnetlink.link_routes(peer).unwrap();
            for route in routes {
                assert!(listed.contains(&route), "{route:?} in {listed:?}");
            }
        }));

        let listed = host.link_routes(link.index).unwrap();
        for route in routes {
            assert!(listed.contains(&route), "{route:?} in {listed:?}");
        }
        let neighbours = run("ip neigh show dev pc0");
        for expected in
            ["10.244.1.5 lladdr 02:00:00:00:00:02 PERMANENT", "fd00::5 lladdr 02:00:00:00:00:02 PERMANENT"]
        {
            assert!(neighbours.contains(expected), "{neighbours}");
        }
        let shown = run("ip -6 addr show dev pc0");
        assert_eq!(shown.matches("inet6").count(), 1, "{shown}");
        assert!(shown.contains("inet6 fe80::1/64 scope link nodad"), "{shown}");
        let found = host.link("pc0").unwrap().unwrap();
        assert_eq!((found.alias.as_deref(), found.is_up()), (Some("portcullis c1 eth0"), true));
        for setting in ["proxy_arp", "rp_filter"] {
            assert_eq!(run(&format!("cat /proc/sys/net/ipv4/conf/pc0/{setting}")).trim(), "1");
        }
    });
}

#[test]
fn a_bridge_has_ports_with_hairpin_mode() {
    with_pod(|pod, _| {
        let mut host = Rtnetlink::open().unwrap();
        let mac = MacAddress([2, 0, 0, 0, 0, 9]);
        assert!(host.add_link_bridge("cni0", mac, 1400).unwrap());
        assert!(!host.add_link_bridge("cni0", HOST_MAC, 1500).unwrap(), "it exists");
        let bridge = host.link("cni0").unwrap().unwrap();
        assert_eq!((bridge.mac, bridge.mtu, bridge.kind.as_deref()), (Some(mac), 1400, Some("bridge")));
        let (near, far) = ends(pod, Some(bridge.index));
        let (link, _) = host.add_link_veth(&near, &far).unwrap();
        assert_eq!((link.controller, link.has_hairpin), (Some(bridge.index), false));
        let mut batch = InterfaceBatch::new();
        batch.set_hairpin(link.index);
        host.change_interfaces(&mut batch).unwrap();
        assert!(host.link("pc0").unwrap().unwrap().has_hairpin);
        assert_eq!(host.link("cni0").unwrap().unwrap().mac, Some(mac), "ports do not change it");
    });
}

#[test]
fn the_first_rejected_change_is_named() {
    inside(|| {
        run("ip link add cni0 type bridge");
        let mut host = Rtnetlink::open().unwrap();
        let bridge = host.link("cni0").unwrap().unwrap();
        let mut batch = InterfaceBatch::new();
        batch.set_up(bridge.index);
        batch.replace_route(&PodRoute {
            destination: "10.0.0.1/32".parse().unwrap(),
            gateway: Some("192.0.2.1".parse().unwrap()),
            link: bridge.index,
            protocol: 80,
        });
        batch.set_hairpin(bridge.index);
        batch.add_address(bridge.index, "10.0.0.2/24".parse().unwrap());
        let error = host.change_interfaces(&mut batch).unwrap_err();
        assert!(error.to_string().starts_with("cannot add a route: "), "{error}");
        let found = host.link_addresses(bridge.index).unwrap();
        assert!(found.contains(&"10.0.0.2/24".parse().unwrap()), "later changes are tried: {found:?}");
    });
}
