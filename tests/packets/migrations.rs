//! `portcullis migrate` between all modes under live traffic: connections that survive, and leftovers.
//!
//! | from | to | TCP connections | UDP flows |
//! | --- | --- | --- | --- |
//! | iptables, nftables | any | survive | survive |
//! | IPVS | iptables, nftables | survive until they end or until the limit | continue, possibly to another endpoint |
//!
//! Connections terminated by the limit get a reset for their next packet, except a node's own connections, which get no
//! reply.

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_lab::{EchoClient, Families, ProbeOutcome, Protocol, Vantage};
use portcullis_machines::{qemu, uml};
use serde_json::Value;

use crate::live_traffic::{History, while_clients_connect};
use crate::mode::Mode::{self, Ipvs, Nftables};
use crate::row::{Origin, Target, client, cluster_ip, node, node_port, outside};
use crate::testbed::{Setup, Testbed};
use crate::tools;

const IPTABLES_NFT: Mode = Mode::IPTABLES_NFT;
const IPTABLES_LEGACY: Mode = Mode::IPTABLES_LEGACY;

const NODES: [&str; 2] = ["node-1", "node-2"];

/// Time limit of an emulated machine; an idle host needs a quarter of it.
const LIMIT: Duration = Duration::from_secs(540);

/// Time limit for `migrate` to exit after the last connection has ended.
const PATIENCE: Duration = Duration::from_secs(90);

/// Returns paths of clients: from a pod, from outside with masquerading, from a node itself, and UDP.
fn paths() -> [(Origin, Protocol, Target); 4] {
    [
        (client(1), Protocol::Tcp, cluster_ip("web", 80)),
        (outside(), Protocol::Tcp, node_port(2, "web", 80)),
        (node(1), Protocol::Tcp, cluster_ip("web", 80)),
        (client(1), Protocol::Udp, cluster_ip("web", 53).udp()),
    ]
}

/// Defines tests of migrations under live traffic, each through a list of modes.
macro_rules! migrations {
    ($($name:ident: $kernel:ident [$($mode:expr),+];)+) => {
        $(#[test]
        fn $name() {
            $kernel(&[$($mode),+]);
        })+
    };
}

migrations! {
    between_iptables_by_the_nft_tool_and_nftables: on_the_host [IPTABLES_NFT, Nftables, IPTABLES_NFT];
    between_iptables_by_the_legacy_tool_and_nftables: on_the_host [IPTABLES_LEGACY, Nftables, IPTABLES_LEGACY];
    from_iptables_by_the_legacy_tool_to_ipvs: in_uml [IPTABLES_LEGACY, Ipvs];
    from_ipvs_to_iptables_by_the_legacy_tool: in_uml [Ipvs, IPTABLES_LEGACY];
    between_ipvs_and_nftables_in_qemu: in_qemu [Nftables, Ipvs, Nftables];
    between_ipvs_and_iptables_by_the_nft_tool_in_qemu: in_qemu [Ipvs, IPTABLES_NFT, Ipvs];
}

fn on_the_host(modes: &[Mode]) {
    migrate_through(modes, Families::Dual);
}

fn in_uml(modes: &[Mode]) {
    uml::inside(|| migrate_through(modes, Families::V4));
}

fn in_qemu(modes: &[Mode]) {
    qemu::inside_for(LIMIT, || migrate_through(modes, Families::V4));
}

/// Starts in the first mode and migrates to each of the others.
fn migrate_through(modes: &[Mode], families: Families) {
    let mut testbed = Setup::new("web.yaml").mode(modes[0]).up();
    if modes[0] == Nftables {
        testbed.install_iptables();
    }
    for to in &modes[1..] {
        migrate_under_live_traffic(&mut testbed, families, *to);
    }
}

#[test]
fn ipvs_is_removed_when_the_last_connection_has_ended() {
    uml::inside(|| {
        let mut testbed = Setup::new("web.yaml").mode(Ipvs).up();
        migrate_until_connections_end(&mut testbed, IPTABLES_LEGACY);
    });
}

#[test]
fn ipvs_is_removed_when_the_last_connection_has_ended_in_qemu() {
    qemu::inside_for(LIMIT, || {
        let mut testbed = Setup::new("web.yaml").mode(Ipvs).up();
        migrate_until_connections_end(&mut testbed, Nftables);
    });
}

#[test]
fn a_daemon_of_another_mode_lets_connections_through_ipvs_end() {
    uml::inside(|| {
        let mut testbed = Setup::new("web.yaml").mode(Ipvs).up();
        let mut old = open_flows(&testbed, Families::Dual);
        NODES.iter().for_each(|node| testbed.change_mode_of(node, IPTABLES_LEGACY));
        // Longer than until the first count of connections.
        thread::sleep(Duration::from_secs(3));
        let tcp = old.iter_mut().filter(|flow| flow.protocol == Protocol::Tcp);
        tcp.for_each(|flow| {
            assert_eq!(flow.exchange().responder(), Some(flow.first_responder.as_str()), "{}", flow.what)
        });
        assert!(holds_ipvs(&testbed, "node-1"), "connections need it");
        old.into_iter().for_each(|flow| flow.client.abort().unwrap());
        NODES.iter().for_each(|node| {
            testbed.wait_until("IPVS objects are removed", PATIENCE, |testbed| !holds_ipvs(testbed, node));
        });
    });
}

/// Migrates both nodes, one after the other, with connections that stay open.
fn migrate_under_live_traffic(testbed: &mut Testbed, families: Families, to: Mode) {
    let from = testbed.mode;
    let mut flows = open_flows(testbed, families);
    let (history, seen) = while_clients_connect(testbed, families, |testbed, start| {
        let mut history = History::new();
        for node in NODES {
            history.push((start.elapsed(), format!("{node} is migrated")));
            testbed.lab.stop_daemon(node).unwrap();
            let report = report(migrate(testbed, node, to, &["--apply", "--drain", "4s"]));
            assert_eq!(report["applied"]["left"].as_array().map(Vec::len), Some(0), "{report:#}");
            assert_reports_serving_mode(&report, from);
            history.push((start.elapsed(), format!("{node} has been migrated")));
        }
        testbed.lab.set_daemon_args(to.with_args(&testbed.args));
        NODES.iter().for_each(|node| testbed.lab.start_daemon(node).unwrap());
        testbed.synced();
        history
    });
    testbed.mode = to;
    NODES.iter().for_each(|node| assert_no_leftovers(testbed, node, to));
    for seen in &seen {
        let (lost, all) = (seen.log.lost().len(), seen.log.probes.len());
        println!("{from:?} to {to:?}: {lost} of {all} lost of {}", seen.log.description);
    }
    // IPVS does not know when a UDP flow ends: a reply in flight while a virtual server is removed may be lost.
    let tolerated = |protocol| usize::from(from == Ipvs && protocol == Protocol::Udp) * NODES.len();
    seen.iter().for_each(|seen| seen.assert_answered(tolerated(seen.protocol), &history));
    for flow in &mut flows {
        let outcome = flow.exchange();
        println!("{from:?} to {to:?}: {} was at {}, and now {outcome}", flow.what, flow.first_responder);
        match (from, flow.protocol) {
            (Ipvs, Protocol::Udp) => assert!(outcome.responder().is_some(), "{}: {outcome}", flow.what),
            // The source address is no longer an address of the node.
            (Ipvs, _) if flow.of_a_node => {
                assert!(outcome.responder().is_none(), "{}: {outcome}", flow.what)
            }
            (Ipvs, _) => {
                // The next packet reached an endpoint that does not know the connection, unless it was the same one.
                let same = outcome.responder() == Some(&flow.first_responder);
                assert!(outcome == ProbeOutcome::Refused || same, "{}: {outcome}", flow.what);
            }
            _ => assert_eq!(outcome.responder(), Some(flow.first_responder.as_str()), "{}", flow.what),
        }
    }
}

/// Migrates a node whose connections end while `migrate` waits for them.
fn migrate_until_connections_end(testbed: &mut Testbed, to: Mode) {
    let mut old = open_flows(testbed, Families::Dual);
    assert_blocked_by_old_daemon(testbed, to);
    let moved: Vec<Child> = NODES
        .iter()
        .map(|node| {
            testbed.lab.stop_daemon(node).unwrap();
            migrate(testbed, node, to, &["--apply", "--drain", "5m"])
        })
        .collect();
    // Longer than until the first count of connections, on any machine.
    let rules =
        |testbed: &Testbed, node: &str| testbed.program(node, &["migrate", "--to", to.name(), "-o", "json"]);
    for node in NODES {
        testbed.wait_until("the new mode serves", PATIENCE, |testbed| {
            let report = report(rules(testbed, node).stdout(Stdio::piped()).spawn().unwrap());
            modes(&report).contains(&to.name().to_owned())
        });
    }
    thread::sleep(Duration::from_secs(5));
    for flow in &mut old {
        let outcome = flow.exchange();
        let same = flow.protocol == Protocol::Udp || outcome.responder() == Some(&flow.first_responder);
        assert!(outcome.responder().is_some() && same, "{} survives beside {to:?}: {outcome}", flow.what);
    }
    // New connections of a node must not use a source address that will be removed.
    let mut new = open_flows(testbed, Families::Dual);
    old.into_iter().for_each(|flow| flow.client.abort().unwrap());
    let ended = Instant::now();
    for child in moved {
        let report = report(child);
        assert_eq!(report["applied"]["cutOff"], 0, "{report:#}");
    }
    assert!(ended.elapsed() < PATIENCE, "it exits soon after the last connection: {:?}", ended.elapsed());
    for flow in &mut new {
        assert_eq!(
            flow.exchange().responder(),
            Some(flow.first_responder.as_str()),
            "{}: opened while migrate waited for others",
            flow.what
        );
    }
    NODES.iter().for_each(|node| assert_no_leftovers(testbed, node, to));
}

/// While the daemon of the old mode is running, nothing is changed, and the report says why.
fn assert_blocked_by_old_daemon(testbed: &Testbed, to: Mode) {
    let output = testbed.program(NODES[0], &["migrate", "--to", to.name(), "--apply"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    println!("{text}");
    assert_eq!(output.status.code(), Some(1), "{text}");
    for line in
        ["through IPVS", "portcullis is listening on 127.0.0.1:10249 in ipvs mode", "Nothing was changed."]
    {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
}

/// An open connection or flow, and its first responder.
struct OpenFlow {
    what: String,
    protocol: Protocol,
    of_a_node: bool,
    client: EchoClient,
    first_responder: String,
}

impl OpenFlow {
    fn exchange(&mut self) -> ProbeOutcome {
        let first = self.client.exchange("word");
        // The datagram in flight may be lost.
        if self.protocol == Protocol::Udp && first.responder().is_none() {
            self.client.exchange("word")
        } else {
            first
        }
    }
}

fn open_flows(testbed: &Testbed, families: Families) -> Vec<OpenFlow> {
    // In an emulated machine, a migration takes longer than the default UDP timeout of conntrack, 30 s.
    for node in NODES {
        let netns = testbed.lab.netns(&Vantage::node(node)).unwrap();
        let script = "echo 600 >/proc/sys/net/netfilter/nf_conntrack_udp_timeout";
        tools::output(netns.command("sh").args(["-ec", script]));
    }
    let mut flows = Vec::new();
    for (from, protocol, to) in paths() {
        for address in to.addresses(testbed.lab.plan(), families) {
            for _ in 0..2 {
                let mut client = testbed.from(from.clone()).open(protocol, address).unwrap();
                let what = format!("{} to {address}/{protocol}", from.vantage);
                let outcome = client.exchange("word");
                let first_responder =
                    outcome.responder().unwrap_or_else(|| panic!("{what}: {outcome}")).to_owned();
                // Long enough for responses on any machine; some clients get none.
                client.set_timeout(Duration::from_secs(4)).unwrap();
                let of_a_node = matches!(from.vantage, Vantage::Node(_));
                flows.push(OpenFlow { what, protocol, of_a_node, client, first_responder });
            }
        }
    }
    flows
}

fn migrate(testbed: &Testbed, node: &str, to: Mode, how: &[&str]) -> Child {
    let subcommand = [&["migrate", "--to", to.name(), "-o", "json"], how].concat();
    testbed.program(node, &subcommand).stdout(Stdio::piped()).spawn().unwrap()
}

fn report(child: Child) -> Value {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Returns the serving modes in a report.
fn modes(report: &Value) -> Vec<String> {
    let serving = report["serving"].as_array().unwrap().iter();
    serving.map(|now| now["mode"].as_str().unwrap().to_owned()).collect()
}

fn assert_reports_serving_mode(report: &Value, from: Mode) {
    assert_eq!(modes(report), [from.name()], "{report:#}");
    let balanced = &report["connections"]["balanced"];
    let translated = &report["connections"]["translated"];
    let (used, other) = if from == Ipvs { (balanced, translated) } else { (translated, balanced) };
    assert!(used["tcp"].as_u64() > Some(0), "expected connections: {report:#}");
    assert_eq!(other["tcp"].as_u64().unwrap_or_default(), 0, "{report:#}");
}

fn assert_no_leftovers(testbed: &Testbed, node: &str, to: Mode) {
    let report = report(migrate(testbed, node, to, &[]));
    assert_eq!(modes(&report), [to.name()], "{report:#}");
    assert_eq!(report["removed"].as_array().map(Vec::len), Some(0), "{report:#}");
    assert_eq!(holds_ipvs(testbed, node), to == Ipvs);
}

/// Returns true if a node has any object of IPVS mode.
fn holds_ipvs(testbed: &Testbed, node: &str) -> bool {
    let netns = testbed.lab.netns(&Vantage::node(node)).unwrap();
    let printed = |words: &[&str]| {
        let output = netns.command(words[0]).args(&words[1..]).output();
        output.map_or(String::new(), |output| String::from_utf8(output.stdout).unwrap())
    };
    let routes = printed(&["ip", "route", "show", "table", "local"])
        + &printed(&["ip", "-6", "route", "show", "table", "local"]);
    printed(&["ip", "-o", "link"]).contains("kube-ipvs0")
        || !printed(&["ipset", "list", "-n"]).is_empty()
        || !printed(&["ipvsadm", "-Sn"]).is_empty()
        || routes.contains("proto 112")
}
