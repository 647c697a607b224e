//! No other host reaches a node's loopback addresses while `route_localnet` is set (CVE-2020-8558), whichever process set
//! it, on whichever interface, in every mode and after a cleanup.
//!
//! The daemon's metrics port stands for what listens on 127.0.0.1. Without a daemon a packet that arrives there is
//! answered by a reset, and one that is dropped is not answered.

use std::time::Duration;

use portcullis_lab::{NetNs, Protocol, Vantage, uml};

use crate::bed::{Bed, PATIENCE, Setup};
use crate::expectation::lost;
use crate::mode::Mode;
use crate::row::{at, outside, row};
use crate::tools::{self, Flavour};

const ON_LOOPBACK: &str = "127.0.0.1:10249";

#[test]
fn loopback_is_guarded_after_a_change_to_nftables_and_after_cleanup() {
    let mut bed = Setup::of("web.yaml").flavour(Flavour::Nft).up();
    route_loopback_to_node_1(&bed);
    assert_eq!(route_localnet(&bed, "all"), "1", "iptables mode serves node ports on localhost");
    check(&bed, "in iptables mode");
    bed.change_mode_of("node-1", Mode::Nftables);
    check(&bed, "in nftables mode, after iptables mode");
    set_route_localnet(&bed, "all", 0);
    let guarded = |bed: &Bed| {
        bed.nft("node-1", &["list", "chain", "ip", "portcullis", "filter-input"]).contains("127.0.0.0")
    };
    bed.wait_until("the guard is removed", PATIENCE, |bed| !guarded(bed));
    set_route_localnet(&bed, "eth0", 1);
    bed.wait_until("the guard is written", PATIENCE, guarded);
    check(&bed, "in nftables mode, set by another process on an interface");
    set_route_localnet(&bed, "all", 1);
    clean_up_and_check(&mut bed);
}

#[test]
fn loopback_is_guarded_by_iptables_without_node_ports_on_localhost() {
    for flavour in [Flavour::Nft, Flavour::Legacy] {
        let args = ["--iptables-localhost-nodeports=false"];
        let mut bed = Setup::of("web.yaml").flavour(flavour).args(&args).up();
        follows_another_process(&bed);
        clean_up_and_check(&mut bed);
    }
}

#[test]
fn loopback_is_guarded_by_ipvs() {
    uml::inside(|| {
        let mut bed = Setup::of("web.yaml").flavour(Flavour::Legacy).up();
        assert_eq!(route_localnet(&bed, "all"), "1", "iptables mode serves node ports on localhost");
        bed.change_mode_of("node-1", Mode::Ipvs);
        bed.wait_until("IPVS mode needs no route_localnet", PATIENCE, |bed| {
            route_localnet(bed, "all") == "0"
        });
        follows_another_process(&bed);
        // There is no nf_tables here: the chain of iptables mode guards.
        clean_up_and_check(&mut bed);
    });
}

/// Another process sets `route_localnet` under a daemon that does not.
fn follows_another_process(bed: &Bed) {
    route_loopback_to_node_1(bed);
    check(bed, "not set");
    for interface in ["all", "eth0"] {
        set_route_localnet(bed, interface, 1);
        bed.wait_until("the guard is written", PATIENCE, |bed| {
            bed.rules("node-1", "iptables", "filter").contains("block incoming localnet connections")
        });
        check(bed, "set by another process");
        set_route_localnet(bed, interface, 0);
        bed.wait_until("the guard is removed", PATIENCE, |bed| {
            !bed.rules("node-1", "iptables", "filter").contains("block incoming localnet connections")
        });
    }
    set_route_localnet(bed, "all", 1);
    set_route_localnet(bed, "eth0", 1);
}

/// `route_localnet` is set for all interfaces, as by iptables mode, and on one, as by other software. Cleanup takes back
/// the former; the guard goes with the latter.
fn clean_up_and_check(bed: &mut Bed) {
    bed.lab.stop_daemon("node-1").unwrap();
    let cleanup = |bed: &Bed| {
        let mut cleanup = node_1(bed).command(env!("CARGO_BIN_EXE_portcullis"));
        tools::output(cleanup.arg("cleanup").env("XTABLES_LOCKFILE", bed.lab.folder().join("cleanup.lock")))
    };
    let said = cleanup(bed);
    assert!(said.contains("removed sysctl net.ipv4.conf.all.route_localnet=1"), "{said}");
    assert_eq!(route_localnet(bed, "all"), "0");
    assert!(
        said.lines()
            .any(|line| line.starts_with("kept ") && line.contains("net.ipv4.conf.eth0.route_localnet")),
        "{said}"
    );
    check(bed, "after a cleanup, set on an interface");
    // It is that rule, and not the test's own routes.
    set_route_localnet(bed, "eth0", 0);
    let said = cleanup(bed);
    assert!(said.starts_with("removed ") && !said.contains("kept"), "{said}");
    check(bed, "after a cleanup");
    set_route_localnet(bed, "eth0", 1);
    assert!(!is_lost(bed), "nothing guards any more");
}

fn node_1(bed: &Bed) -> NetNs {
    bed.lab.netns(&Vantage::node("node-1")).unwrap()
}

fn check(bed: &Bed, when: &'static str) {
    bed.check(&[row(when, outside(), at(&[ON_LOOPBACK]), lost())]);
}

fn is_lost(bed: &Bed) -> bool {
    let prober = bed.from(outside()).timeout(Duration::from_millis(500));
    let error = prober.open(Protocol::Tcp, ON_LOOPBACK.parse().unwrap()).err();
    error.is_some_and(|error| !format!("{error:?}").contains("ConnectionRefused"))
}

/// Sends the outside host's packets to 127.0.0.0/8 to node-1.
pub(crate) fn route_loopback_to_node_1(bed: &Bed) {
    let outside_ns = bed.lab.netns(&Vantage::Outside).unwrap();
    let script = "ip route del local 127.0.0.1 table local; ip route del local 127.0.0.0/8 table local; \
                  for i in all default underlay; do echo 1 >/proc/sys/net/ipv4/conf/$i/route_localnet; done; \
                  ip route add 127.0.0.0/8 via 192.168.77.11 dev underlay src 198.51.100.10";
    tools::output(outside_ns.command("sh").args(["-ec", script]));
}

fn set_route_localnet(bed: &Bed, interface: &str, value: u8) {
    let script = format!("echo {value} >/proc/sys/net/ipv4/conf/{interface}/route_localnet");
    tools::output(node_1(bed).command("sh").args(["-ec", &script]));
}

fn route_localnet(bed: &Bed, interface: &str) -> String {
    let path = format!("/proc/sys/net/ipv4/conf/{interface}/route_localnet");
    tools::output(node_1(bed).command("cat").arg(path)).trim().to_owned()
}
