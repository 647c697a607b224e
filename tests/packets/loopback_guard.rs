//! Guard of loopback addresses (CVE-2020-8558): no other host reaches them while `route_localnet` is set, by any
//! process, on any interface, in every mode, and after a cleanup.
//!
//! The test uses the daemon's metrics port on 127.0.0.1. Without a daemon, a packet that arrives there gets a reset,
//! and a dropped packet gets no reply.

use std::time::Duration;

use portcullis_lab::{NetNs, Protocol, Vantage};
use portcullis_machines::uml;

use crate::expectation::lost;
use crate::mode::Mode;
use crate::row::{at, outside, row};
use crate::testbed::{PATIENCE, Setup, Testbed};
use crate::tools::{self, Flavour};

const ON_LOOPBACK: &str = "127.0.0.1:10249";

#[test]
fn loopback_is_guarded_after_a_change_to_nftables_and_after_cleanup() {
    let mut testbed = Setup::new("web.yaml").flavour(Flavour::Nft).up();
    route_loopback_to_node_1(&testbed);
    assert_eq!(route_localnet(&testbed, "all"), "1", "iptables mode serves node ports on localhost");
    check(&testbed, "in iptables mode");
    testbed.change_mode_of("node-1", Mode::Nftables);
    check(&testbed, "in nftables mode, after iptables mode");
    set_route_localnet(&testbed, "all", 0);
    let guarded = |testbed: &Testbed| {
        testbed.nft("node-1", &["list", "chain", "ip", "portcullis", "filter-input"]).contains("127.0.0.0")
    };
    testbed.wait_until("the guard is removed", PATIENCE, |testbed| !guarded(testbed));
    set_route_localnet(&testbed, "eth0", 1);
    testbed.wait_until("the guard is written", PATIENCE, guarded);
    check(&testbed, "in nftables mode, set by another process on an interface");
    set_route_localnet(&testbed, "all", 1);
    clean_up_and_check(&mut testbed);
}

#[test]
fn loopback_is_guarded_by_iptables_without_node_ports_on_localhost() {
    for flavour in [Flavour::Nft, Flavour::Legacy] {
        let args = ["--iptables-localhost-nodeports=false"];
        let mut testbed = Setup::new("web.yaml").flavour(flavour).args(&args).up();
        follows_another_process(&testbed);
        clean_up_and_check(&mut testbed);
    }
}

#[test]
fn loopback_is_guarded_by_ipvs() {
    uml::inside(|| {
        let mut testbed = Setup::new("web.yaml").flavour(Flavour::Legacy).up();
        assert_eq!(route_localnet(&testbed, "all"), "1", "iptables mode serves node ports on localhost");
        testbed.change_mode_of("node-1", Mode::Ipvs);
        testbed.wait_until("IPVS mode needs no route_localnet", PATIENCE, |testbed| {
            route_localnet(testbed, "all") == "0"
        });
        follows_another_process(&testbed);
        // User-mode Linux has no nf_tables: the chain of iptables mode is the guard.
        clean_up_and_check(&mut testbed);
    });
}

/// Another process sets `route_localnet`, which the daemon does not set.
fn follows_another_process(testbed: &Testbed) {
    route_loopback_to_node_1(testbed);
    check(testbed, "not set");
    for interface in ["all", "eth0"] {
        set_route_localnet(testbed, interface, 1);
        testbed.wait_until("the guard is written", PATIENCE, |testbed| {
            testbed.rules("node-1", "iptables", "filter").contains("block incoming localnet connections")
        });
        check(testbed, "set by another process");
        set_route_localnet(testbed, interface, 0);
        testbed.wait_until("the guard is removed", PATIENCE, |testbed| {
            !testbed.rules("node-1", "iptables", "filter").contains("block incoming localnet connections")
        });
    }
    set_route_localnet(testbed, "all", 1);
    set_route_localnet(testbed, "eth0", 1);
}

/// `route_localnet` is set for all interfaces, as by iptables mode, and on one interface, as by other software. Cleanup
/// unsets the former; the guard is removed once the latter is unset.
fn clean_up_and_check(testbed: &mut Testbed) {
    testbed.lab.stop_daemon("node-1").unwrap();
    let cleanup = |testbed: &Testbed| {
        let mut cleanup = node_1(testbed).command(env!("CARGO_BIN_EXE_portcullis"));
        tools::output(
            cleanup.arg("cleanup").env("XTABLES_LOCKFILE", testbed.lab.folder().join("cleanup.lock")),
        )
    };
    let output = cleanup(testbed);
    assert!(output.contains("removed sysctl net.ipv4.conf.all.route_localnet=1"), "{output}");
    assert_eq!(route_localnet(testbed, "all"), "0");
    assert!(
        output
            .lines()
            .any(|line| line.starts_with("kept ") && line.contains("net.ipv4.conf.eth0.route_localnet")),
        "{output}"
    );
    check(testbed, "after a cleanup, set on an interface");
    // Without the guard rule the packets arrive, so that the rule is what drops them.
    set_route_localnet(testbed, "eth0", 0);
    let output = cleanup(testbed);
    assert!(output.starts_with("removed ") && !output.contains("kept"), "{output}");
    check(testbed, "after a cleanup");
    set_route_localnet(testbed, "eth0", 1);
    assert!(!is_lost(testbed), "nothing guards any more");
}

fn node_1(testbed: &Testbed) -> NetNs {
    testbed.lab.netns(&Vantage::node("node-1")).unwrap()
}

fn check(testbed: &Testbed, when: &'static str) {
    testbed.check(&[row(when, outside(), at(&[ON_LOOPBACK]), lost())]);
}

fn is_lost(testbed: &Testbed) -> bool {
    let prober = testbed.from(outside()).timeout(Duration::from_millis(500));
    let error = prober.open(Protocol::Tcp, ON_LOOPBACK.parse().unwrap()).err();
    error.is_some_and(|error| !format!("{error:?}").contains("ConnectionRefused"))
}

/// Routes the outside host's packets for 127.0.0.0/8 to node-1.
pub(crate) fn route_loopback_to_node_1(testbed: &Testbed) {
    let outside_ns = testbed.lab.netns(&Vantage::Outside).unwrap();
    let script = "ip route del local 127.0.0.1 table local; ip route del local 127.0.0.0/8 table local; \
                  for i in all default underlay; do echo 1 >/proc/sys/net/ipv4/conf/$i/route_localnet; done; \
                  ip route add 127.0.0.0/8 via 192.168.77.11 dev underlay src 198.51.100.10";
    tools::output(outside_ns.command("sh").args(["-ec", script]));
}

fn set_route_localnet(testbed: &Testbed, interface: &str, value: u8) {
    let script = format!("echo {value} >/proc/sys/net/ipv4/conf/{interface}/route_localnet");
    tools::output(node_1(testbed).command("sh").args(["-ec", &script]));
}

fn route_localnet(testbed: &Testbed, interface: &str) -> String {
    let path = format!("/proc/sys/net/ipv4/conf/{interface}/route_localnet");
    tools::output(node_1(testbed).command("cat").arg(path)).trim().to_owned()
}
