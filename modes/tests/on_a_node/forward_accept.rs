//! Firewalls that drop forwarded packets, with real packets:
//!
//! ```text
//!  pod 10.244.1.5 ── pc1 ── node ── out1 ── outside 192.0.2.2
//!   fd00:10:244:1::5                         2001:db8::2
//! ```

use std::fs::File;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use portcullis_cluster::Family;
use portcullis_modes::forward_accept::{CHAIN, ForwardAccept, ForwardAcceptResult};
use portcullis_modes::iptables::Flavour;

use super::node::{FLAVOURS, feed, saved, tool};
use crate::namespace::{inside, run};

const POD: [&str; 2] = ["10.244.1.5", "fd00:10:244:1::5"];
const OUTSIDE: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

/// The pod and the host outside, in namespaces with names. The node is the namespace of the calling thread.
struct Peers {
    prefix: String,
}

impl Peers {
    fn new() -> Self {
        let peers = Peers { prefix: format!("fwd{}-", std::process::id()) };
        let names = [
            ("pod", "pc1", POD, ["10.244.1.1/24", "fd00:10:244:1::1/64"]),
            ("out", "out1", OUTSIDE, ["192.0.2.1/24", "2001:db8::1/64"]),
        ];
        run("ip link set lo up");
        for setting in
            ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.default.accept_dad=0"]
        {
            run(&format!("sysctl -qw {setting}"));
        }
        for (name, interface, ips, gateways) in names {
            let namespace = peers.name(name);
            run(&format!("ip netns add {namespace}"));
            run(&format!("ip netns exec {namespace} sysctl -qw net.ipv6.conf.default.accept_dad=0"));
            run(&format!("ip link add {interface} type veth peer name eth0 netns {namespace}"));
            run(&format!("ip link set {interface} up"));
            run(&format!("ip -n {namespace} link set eth0 up"));
            for (ip, gateway) in ips.into_iter().zip(gateways) {
                let (address, length) = gateway.split_once('/').unwrap();
                run(&format!("ip addr add {gateway} dev {interface} nodad"));
                run(&format!("ip -n {namespace} addr add {ip}/{length} dev eth0 nodad"));
                run(&format!("ip -n {namespace} route add default via {address}"));
            }
        }
        peers
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn socket(&self, name: &str, address: SocketAddr) -> UdpSocket {
        let namespace = File::open(format!("/run/netns/{}", self.name(name))).unwrap();
        thread::spawn(move || {
            // SAFETY: no pointers are passed, and only this thread changes its namespace.
            assert_eq!(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
            let socket = UdpSocket::bind(address).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            socket
        })
        .join()
        .unwrap()
    }

    /// Returns, for each family, whether datagrams arrive outside and in the pod.
    fn passes(&self) -> [[bool; 2]; 2] {
        [0, 1].map(|family| {
            let at = |ips: [&str; 2], port| SocketAddr::new(ips[family].parse::<IpAddr>().unwrap(), port);
            let (pod, outside) = (self.socket("pod", at(POD, 0)), self.socket("out", at(OUTSIDE, 0)));
            // Each way, so that no reply belongs to a connection that was accepted.
            let arrives = |from: &UdpSocket, to: &UdpSocket| {
                from.send_to(b"?", to.local_addr().unwrap()).unwrap();
                to.recv(&mut [0; 8]).is_ok()
            };
            let out = arrives(&pod, &outside);
            let other = self.socket("out", at(OUTSIDE, 0));
            [out, arrives(&other, &pod)]
        })
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for name in ["pod", "out"] {
            let _ = std::process::Command::new("ip").args(["netns", "delete", &self.name(name)]).status();
        }
    }
}

fn cidrs() -> Vec<IpNet> {
    ["10.244.0.0/24", "10.244.1.0/24", "fd00:10:244::/48"].map(|cidr| cidr.parse().unwrap()).to_vec()
}

const ALL: [[bool; 2]; 2] = [[true; 2]; 2];
const NONE: [[bool; 2]; 2] = [[false; 2]; 2];

fn both(flavour: Flavour, arguments: &str) {
    for family in Family::BOTH {
        run(&format!("{} {arguments}", tool(flavour, family)));
    }
}

fn assert_no_problems(result: &ForwardAcceptResult) {
    assert!(result.problems.is_empty(), "{result:?}");
}

#[test]
fn traffic_of_pods_passes_a_firewall_that_drops_forwarded_packets() {
    inside(|| {
        let peers = Peers::new();
        assert_eq!(peers.passes(), ALL);
        let mut forward = ForwardAccept::default();
        // Without iptables rules on the node, iptables is not used.
        assert!(forward.sync(&cidrs()).changed.is_empty());
        assert!(!run("nft list ruleset").contains("FORWARD"));
        for flavour in FLAVOURS {
            both(flavour, "-P FORWARD DROP");
            assert_eq!(peers.passes(), NONE, "{flavour:?}");
            let result = forward.sync(&cidrs());
            assert_no_problems(&result);
            assert_eq!(result.changed.len(), 2, "{flavour:?}: {result:?}");
            assert_eq!(peers.passes(), ALL, "{flavour:?}");
            assert!(forward.sync(&cidrs()).changed.is_empty(), "{flavour:?}");
            // Another process removes a part.
            both(flavour, &format!("-F {CHAIN}"));
            assert_eq!(peers.passes(), NONE, "{flavour:?}");
            assert_eq!(forward.sync(&cidrs()).changed.len(), 2, "{flavour:?}");
            both(flavour, "-F FORWARD");
            assert_eq!(forward.sync(&cidrs()).changed.len(), 2, "{flavour:?}");
            assert_eq!(peers.passes(), ALL, "{flavour:?}");
            // What the firewall itself drops stays dropped.
            both(flavour, "-I FORWARD -o out1 -j DROP");
            forward.sync(&cidrs());
            assert_eq!(peers.passes(), [[false, true]; 2], "{flavour:?}");
            both(flavour, "-D FORWARD -o out1 -j DROP");
            // Other addresses are not accepted.
            let other = ["10.99.0.0/16", "fd99::/16"].map(|cidr| cidr.parse::<IpNet>().unwrap());
            assert_eq!(forward.sync(&other).changed.len(), 2, "{flavour:?}");
            assert_eq!(peers.passes(), NONE, "{flavour:?}");
            // The firewall is stopped.
            both(flavour, "-P FORWARD ACCEPT");
            let result = forward.sync(&cidrs());
            assert_eq!((result.changed.len(), result.removed.len()), (0, 2), "{flavour:?}: {result:?}");
            assert!(!saved(flavour).contains(CHAIN), "{flavour:?}");
            assert_eq!(peers.passes(), ALL, "{flavour:?}");
        }
    });
}

#[test]
fn a_last_rule_that_rejects_comes_after_the_rules() {
    inside(|| {
        let peers = Peers::new();
        for flavour in FLAVOURS {
            both(flavour, "-A FORWARD -i lo -j ACCEPT");
            both(flavour, "-A FORWARD -j REJECT");
            assert_eq!(peers.passes(), NONE, "{flavour:?}");
            let mut forward = ForwardAccept::default();
            assert_no_problems(&forward.sync(&cidrs()));
            assert_eq!(peers.passes(), ALL, "{flavour:?}");
            let (found, errors) = ForwardAccept::remove(true);
            assert_eq!((found.len(), errors), (2, vec![]), "{flavour:?}");
            assert_eq!(ForwardAccept::remove(false).0, found, "{flavour:?}");
            assert_eq!(ForwardAccept::remove(false).0, [], "{flavour:?}");
            assert_eq!(peers.passes(), NONE, "{flavour:?}");
            both(flavour, "-F FORWARD");
        }
    });
}

#[test]
fn both_flavours_at_once_and_other_chains_of_nf_tables() {
    inside(|| {
        let peers = Peers::new();
        FLAVOURS.into_iter().for_each(|flavour| both(flavour, "-P FORWARD DROP"));
        let mut forward = ForwardAccept::default();
        let result = forward.sync(&cidrs());
        assert_no_problems(&result);
        assert_eq!((result.changed.len(), result.other_dropping_chains.len()), (4, 0), "{result:?}");
        assert_eq!(peers.passes(), ALL);
        feed(
            "nft -f -",
            "table inet firewall { chain forward { type filter hook forward priority 0; policy drop;\n}\n}",
        );
        let result = forward.sync(&cidrs());
        assert_eq!(result.other_dropping_chains, ["inet firewall forward"]);
        assert_eq!(peers.passes(), NONE);
    });
}
