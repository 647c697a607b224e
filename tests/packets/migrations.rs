//! `portcullis migrate` moves nodes between all modes while clients talk: what lives on, what does not, what is left.
//!
//! | from | to | conversations over TCP | flows of UDP |
//! | --- | --- | --- | --- |
//! | iptables, nftables | any | live on | live on |
//! | IPVS | iptables, nftables | live on until they end, or until the limit | go on, maybe to another endpoint |
//!
//! What is cut off by the limit meets a reset with its next packet, but for a node's own connections, which get no answer.

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_lab::{Conversation, Families, Outcome, Protocol, Vantage, qemu, uml};
use serde_json::Value;

use crate::bed::{Bed, Setup};
use crate::live_traffic::{History, while_clients_connect};
use crate::mode::Mode;
use crate::row::{Origin, Target, client, cluster_ip, node, node_port, outside};
use crate::tools::{self, Flavour};

const NODES: [&str; 2] = ["node-1", "node-2"];

/// How long an emulated machine may take; a quarter of that where nobody else computes.
const LIMIT: Duration = Duration::from_secs(540);

/// How long it may take a program to end after the last connection has.
const PATIENCE: Duration = Duration::from_secs(90);

/// Ways that conversations go: from a pod, from outside with masquerading, from a node itself, and by UDP.
fn ways() -> [(Origin, Protocol, Target); 4] {
    [
        (client(1), Protocol::Tcp, cluster_ip("web", 80)),
        (outside(), Protocol::Tcp, node_port(2, "web", 80)),
        (node(1), Protocol::Tcp, cluster_ip("web", 80)),
        (client(1), Protocol::Udp, cluster_ip("web", 53).udp()),
    ]
}

#[test]
fn between_iptables_by_the_nft_tool_and_nftables() {
    let iptables = Mode::Iptables(Flavour::Nft);
    let mut bed = Setup::of("web.yaml").mode(iptables).up();
    for to in [Mode::Nftables, iptables] {
        move_under_live_traffic(&mut bed, Families::Dual, to);
    }
}

#[test]
fn between_iptables_by_the_legacy_tool_and_nftables() {
    let iptables = Mode::Iptables(Flavour::Legacy);
    let mut bed = Setup::of("web.yaml").mode(iptables).up();
    for to in [Mode::Nftables, iptables] {
        move_under_live_traffic(&mut bed, Families::Dual, to);
    }
}

#[test]
fn from_iptables_by_the_legacy_tool_to_ipvs() {
    uml::inside(|| {
        let mut bed = Setup::of("web.yaml").mode(Mode::Iptables(Flavour::Legacy)).up();
        move_under_live_traffic(&mut bed, Families::V4, Mode::Ipvs);
    });
}

#[test]
fn from_ipvs_to_iptables_by_the_legacy_tool() {
    uml::inside(|| {
        let mut bed = Setup::of("web.yaml").mode(Mode::Ipvs).up();
        move_under_live_traffic(&mut bed, Families::V4, Mode::Iptables(Flavour::Legacy));
    });
}

#[test]
fn between_ipvs_and_nftables_in_qemu() {
    qemu::inside_for(LIMIT, || {
        let mut bed = Setup::of("web.yaml").mode(Mode::Nftables).up();
        bed.install_iptables();
        for to in [Mode::Ipvs, Mode::Nftables] {
            move_under_live_traffic(&mut bed, Families::V4, to);
        }
    });
}

#[test]
fn between_ipvs_and_iptables_by_the_nft_tool_in_qemu() {
    qemu::inside_for(LIMIT, || {
        let mut bed = Setup::of("web.yaml").mode(Mode::Ipvs).up();
        for to in [Mode::Iptables(Flavour::Nft), Mode::Ipvs] {
            move_under_live_traffic(&mut bed, Families::V4, to);
        }
    });
}

#[test]
fn ipvs_goes_when_the_last_connection_has_ended() {
    uml::inside(|| {
        let mut bed = Setup::of("web.yaml").mode(Mode::Ipvs).up();
        ends_by_itself(&mut bed, Mode::Iptables(Flavour::Legacy));
    });
}

#[test]
fn ipvs_goes_when_the_last_connection_has_ended_in_qemu() {
    qemu::inside_for(LIMIT, || {
        let mut bed = Setup::of("web.yaml").mode(Mode::Ipvs).up();
        ends_by_itself(&mut bed, Mode::Nftables);
    });
}

#[test]
fn a_daemon_of_another_mode_lets_connections_through_ipvs_end() {
    uml::inside(|| {
        let mut bed = Setup::of("web.yaml").mode(Mode::Ipvs).up();
        let mut old = talk(&bed, Families::Dual);
        NODES.iter().for_each(|node| bed.change_mode_of(node, Mode::Iptables(Flavour::Legacy)));
        // Longer than until it first counts.
        thread::sleep(Duration::from_secs(3));
        let tcp = old.iter_mut().filter(|talk| talk.protocol == Protocol::Tcp);
        tcp.for_each(|talk| assert_eq!(talk.ask().by(), Some(talk.met.as_str()), "{}", talk.what));
        assert!(holds_ipvs(&bed, "node-1"), "connections need it");
        old.into_iter().for_each(|talk| talk.conversation.abort().unwrap());
        NODES.iter().for_each(|node| {
            bed.wait_until("IPVS is gone", PATIENCE, |bed| !holds_ipvs(bed, node));
        });
    });
}

/// Moves both nodes, one after the other, with connections that nobody ends.
fn move_under_live_traffic(bed: &mut Bed, families: Families, to: Mode) {
    let from = bed.mode;
    let mut talks = talk(bed, families);
    let (history, seen) = while_clients_connect(bed, families, |bed, start| {
        let mut history = History::new();
        for node in NODES {
            history.push((start.elapsed(), format!("{node} is moved")));
            bed.lab.stop_daemon(node).unwrap();
            let report = report(migrate(bed, node, to, &["--apply", "--drain", "4s"]));
            assert_eq!(report["applied"]["left"].as_array().map(Vec::len), Some(0), "{report:#}");
            assert_says_what_serves(&report, from);
            history.push((start.elapsed(), format!("{node} has moved")));
        }
        bed.lab.set_daemon_args(to.with_args(&bed.args));
        NODES.iter().for_each(|node| bed.lab.start_daemon(node).unwrap());
        bed.synced();
        history
    });
    bed.mode = to;
    NODES.iter().for_each(|node| assert_nothing_is_left(bed, node, to));
    for seen in &seen {
        let (lost, all) = (seen.log.lost().len(), seen.log.sent.len());
        println!("{from:?} to {to:?}: {lost} of {all} lost of {}", seen.log.what);
    }
    // Of UDP, IPVS knows no end: an answer that is under way when a virtual server goes may be lost.
    let excused = |protocol| usize::from(from == Mode::Ipvs && protocol == Protocol::Udp) * NODES.len();
    seen.iter().for_each(|seen| seen.assert_answered(excused(seen.protocol), &history));
    for talk in &mut talks {
        let outcome = talk.ask();
        println!("{from:?} to {to:?}: {} met {}, and now {outcome}", talk.what, talk.met);
        match (from, talk.protocol) {
            (Mode::Ipvs, Protocol::Udp) => assert!(outcome.by().is_some(), "{}: {outcome}", talk.what),
            // It leaves from an address that the node has no more.
            (Mode::Ipvs, _) if talk.of_a_node => assert!(outcome.by().is_none(), "{}: {outcome}", talk.what),
            (Mode::Ipvs, _) => {
                // Its next packet met an endpoint that knows nothing of it, unless it met the same one.
                let same = outcome.by() == Some(&talk.met);
                assert!(outcome == Outcome::Refused || same, "{}: {outcome}", talk.what);
            }
            _ => assert_eq!(outcome.by(), Some(talk.met.as_str()), "{}", talk.what),
        }
    }
}

/// Moves a node whose connections end while they are waited for.
fn ends_by_itself(bed: &mut Bed, to: Mode) {
    let mut old = talk(bed, Families::Dual);
    assert_is_in_the_way(bed, to);
    let moved: Vec<Child> = NODES
        .iter()
        .map(|node| {
            bed.lab.stop_daemon(node).unwrap();
            migrate(bed, node, to, &["--apply", "--drain", "5m"])
        })
        .collect();
    // Longer than until they first count, on any machine.
    let rules = |bed: &Bed, node: &str| bed.program(node, &["migrate", "--to", name(to), "-o", "json"]);
    for node in NODES {
        bed.wait_until("the new mode serves", PATIENCE, |bed| {
            let report = report(rules(bed, node).stdout(Stdio::piped()).spawn().unwrap());
            modes(&report).contains(&name(to).to_owned())
        });
    }
    thread::sleep(Duration::from_secs(5));
    for talk in &mut old {
        let outcome = talk.ask();
        let same = talk.protocol == Protocol::Udp || outcome.by() == Some(&talk.met);
        assert!(outcome.by().is_some() && same, "{} lives on beside {to:?}: {outcome}", talk.what);
    }
    // A node's own connection must not leave from an address that will go.
    let mut new = talk(bed, Families::Dual);
    old.into_iter().for_each(|talk| talk.conversation.abort().unwrap());
    let ended = Instant::now();
    for child in moved {
        let report = report(child);
        assert_eq!(report["applied"]["cutOff"], 0, "{report:#}");
    }
    assert!(ended.elapsed() < PATIENCE, "it ends soon after the last connection: {:?}", ended.elapsed());
    for talk in &mut new {
        assert_eq!(
            talk.ask().by(),
            Some(talk.met.as_str()),
            "{}: opened while others were waited for",
            talk.what
        );
    }
    NODES.iter().for_each(|node| assert_nothing_is_left(bed, node, to));
}

/// While the daemon of the old mode runs, nothing is done; a report for people says why.
fn assert_is_in_the_way(bed: &Bed, to: Mode) {
    let output = bed.program(NODES[0], &["migrate", "--to", name(to), "--apply"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    println!("{text}");
    assert_eq!(output.status.code(), Some(1), "{text}");
    for line in
        ["through IPVS", "portcullis is listening on 127.0.0.1:10249 in ipvs mode", "Nothing was done."]
    {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
}

/// A conversation, and who answered first.
struct Talk {
    what: String,
    protocol: Protocol,
    of_a_node: bool,
    conversation: Conversation,
    met: String,
}

impl Talk {
    fn ask(&mut self) -> Outcome {
        let first = self.conversation.ask("word");
        // A datagram may be the one that is under way.
        if self.protocol == Protocol::Udp && first.by().is_none() {
            self.conversation.ask("word")
        } else {
            first
        }
    }
}

fn talk(bed: &Bed, families: Families) -> Vec<Talk> {
    // A move in an emulated machine takes longer than the half minute for which a quiet flow is remembered.
    for node in NODES {
        let netns = bed.lab.netns(&Vantage::node(node)).unwrap();
        let script = "echo 600 >/proc/sys/net/netfilter/nf_conntrack_udp_timeout";
        tools::output(netns.command("sh").args(["-ec", script]));
    }
    let mut talks = Vec::new();
    for (from, protocol, to) in ways() {
        for address in to.addresses(bed.lab.plan(), families) {
            for _ in 0..2 {
                let mut conversation = bed.from(from.clone()).open(protocol, address).unwrap();
                let what = format!("{} to {address}/{protocol}", from.vantage);
                let outcome = conversation.ask("word");
                let met = outcome.by().unwrap_or_else(|| panic!("{what}: {outcome}")).to_owned();
                // Long enough on any machine, and some get no answer.
                conversation.set_timeout(Duration::from_secs(4)).unwrap();
                let of_a_node = matches!(from.vantage, Vantage::Node(_));
                talks.push(Talk { what, protocol, of_a_node, conversation, met });
            }
        }
    }
    talks
}

fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Iptables(_) => "iptables",
        Mode::Ipvs => "ipvs",
        Mode::Nftables => "nftables",
    }
}

fn migrate(bed: &Bed, node: &str, to: Mode, how: &[&str]) -> Child {
    let subcommand = [&["migrate", "--to", name(to), "-o", "json"], how].concat();
    bed.program(node, &subcommand).stdout(Stdio::piped()).spawn().unwrap()
}

fn report(child: Child) -> Value {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The modes that a report says serve.
fn modes(report: &Value) -> Vec<String> {
    let serving = report["serving"].as_array().unwrap().iter();
    serving.map(|now| now["mode"].as_str().unwrap().to_owned()).collect()
}

fn assert_says_what_serves(report: &Value, from: Mode) {
    assert_eq!(modes(report), [name(from)], "{report:#}");
    let balanced = &report["connections"]["balanced"];
    let translated = &report["connections"]["translated"];
    let (used, other) = if from == Mode::Ipvs { (balanced, translated) } else { (translated, balanced) };
    assert!(used["tcp"].as_u64() > Some(0), "there are conversations: {report:#}");
    assert_eq!(other["tcp"].as_u64().unwrap_or_default(), 0, "{report:#}");
}

fn assert_nothing_is_left(bed: &Bed, node: &str, to: Mode) {
    let report = report(migrate(bed, node, to, &[]));
    assert_eq!(modes(&report), [name(to)], "{report:#}");
    assert_eq!(report["removed"].as_array().map(Vec::len), Some(0), "{report:#}");
    assert_eq!(holds_ipvs(bed, node), to == Mode::Ipvs);
}

/// Whether a node has anything of IPVS mode.
fn holds_ipvs(bed: &Bed, node: &str) -> bool {
    let netns = bed.lab.netns(&Vantage::node(node)).unwrap();
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
