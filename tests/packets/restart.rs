//! Daemons that end and start again: rules and connections stay, changes that happened meanwhile are made good.

use portcullis_lab::{Conversation, NetNs, ObjectRef, Protocol, Vantage, uml};

use crate::bed::{Bed, Setup};
use crate::expectation::spread;
use crate::mode::Mode;
use crate::row::{client, cluster_ip, load_balancer, node_port, outside, row};
use crate::tools::{self, Flavour};

const NODES: [&str; 2] = ["node-1", "node-2"];
/// The first of the conversations are over UDP: six each from two places to two families.
const UDP: usize = 24;

#[test]
fn restarts_by_the_nft_tool() {
    restarts(Mode::Iptables(Flavour::Nft));
}

#[test]
fn restarts_by_the_legacy_tool() {
    restarts(Mode::Iptables(Flavour::Legacy));
}

#[test]
fn restarts_by_ipvs() {
    uml::inside(|| restarts(Mode::Ipvs));
}

#[test]
fn restarts_by_nftables() {
    restarts(Mode::Nftables);
}

fn restarts(mode: Mode) {
    let mut bed = Setup::of("web.yaml").mode(mode).up();
    let mut conversations = Vec::new();
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let port = if protocol == Protocol::Tcp { 80 } else { 53 };
        let of = |target: crate::row::Target| if port == 53 { target.udp() } else { target };
        for (from, to) in
            [(client(1), of(cluster_ip("web", port))), (outside(), of(node_port(2, "web", port)))]
        {
            for address in to.addresses(bed.lab.plan(), bed.families) {
                for _ in 0..6 {
                    conversations.push(bed.from(from.clone()).open(protocol, address).unwrap());
                }
            }
        }
    }
    let met = answerers(&mut conversations);

    // Killed, and started again: nothing is written, no conversation notices.
    let before = NODES.map(|node| marks(&bed, node));
    NODES.iter().for_each(|node| bed.kill_daemon(node));
    assert_eq!(answerers(&mut conversations), met, "without daemons");
    serves_all(&bed, "without daemons");
    NODES.iter().for_each(|node| bed.lab.start_daemon(node).unwrap());
    bed.synced();
    assert_eq!(answerers(&mut conversations), met, "with new daemons");
    for (node, before) in NODES.iter().zip(before) {
        assert_untouched(&bed, node, &before);
        assert_eq!(bed.metric(node, "portcullis_drift_repairs_total", ""), 0.0, "{node}");
        assert_eq!(
            bed.metric(node, "kubeproxy_conntrack_reconciler_deleted_entries_total", ""),
            0.0,
            "{node}"
        );
    }

    // Ended by SIGTERM: the rules stay. What changes meanwhile is made good by the next start.
    NODES.iter().for_each(|node| bed.lab.stop_daemon(node).unwrap());
    serves_all(&bed, "after SIGTERM");
    let alone = match mode {
        Mode::Iptables(_) => "default/alone".to_owned(),
        // Its cluster IP may be given to another.
        Mode::Ipvs => format!("-t {} ", bed.address(load_balancer("alone", 80))),
        Mode::Nftables => bed.address(load_balancer("alone", 80)).ip().to_string(),
    };
    NODES.iter().for_each(|node| assert!(holds(&bed, node).contains(&alone), "{node}: {alone}"));
    bed.lab.delete(&ObjectRef::new("Service", "default", "alone")).unwrap();
    bed.lab.delete(&ObjectRef::new("Pod", "default", "a")).unwrap();
    bed.lab.apply_text(FRESH).unwrap();
    NODES.iter().for_each(|node| bed.lab.start_daemon(node).unwrap());
    bed.synced();
    let now = ["b", "c", "d"];
    #[rustfmt::skip]
    bed.check(&[
        row("endpoints that changed meanwhile", client(1), cluster_ip("web", 80), spread(&now).kept()),
        row("endpoints that changed meanwhile, node port", outside(), node_port(2, "web", 80), spread(&now).masqueraded_by(2)),
        row("a Service that came meanwhile", client(2), cluster_ip("fresh", 80).v4(), spread(&now).kept()),
    ]);
    for node in NODES {
        let held = holds(&bed, node);
        assert!(!held.contains(&alone), "{node}: a Service that went meanwhile\n{held}");
    }
    // Flows to the pod that went meanwhile lead to another one; those to pods that stayed were left alone.
    let moved = met[..UDP].iter().filter(|met| *met == "default/a").count();
    assert!(moved > 0, "UDP flows led to a: {met:?}");
    for (i, (conversation, met)) in conversations.iter_mut().zip(&met).enumerate() {
        if met != "default/a" {
            assert_eq!(conversation.ask("word").by(), Some(met.as_str()), "its pod stayed");
        } else if i < UDP {
            let outcome = conversation.ask("word");
            assert!(outcome.by().is_some_and(|by| by != met), "its pod went: {outcome}");
        }
    }
}

const FRESH: &str = "\
{apiVersion: v1, kind: Pod, metadata: {name: d, labels: {app: web}}, spec: {nodeName: node-1}}
---
{apiVersion: v1, kind: Service, metadata: {name: fresh}, spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}}
";

fn answerers(conversations: &mut [Conversation]) -> Vec<String> {
    let ask = |conversation: &mut Conversation| {
        let outcome = conversation.ask("word");
        outcome.by().map(str::to_owned).unwrap_or_else(|| panic!("{outcome}"))
    };
    conversations.iter_mut().map(ask).collect()
}

#[rustfmt::skip]
fn serves_all(bed: &Bed, when: &'static str) {
    bed.check(&[
        row(when, client(1), cluster_ip("web", 80), spread(&["a", "b", "c"]).kept()),
        row(when, client(2), cluster_ip("web", 53).udp(), spread(&["a", "b", "c"]).kept()),
    ]);
}

/// What names the Services on a node: rules, or virtual servers.
fn holds(bed: &Bed, node: &str) -> String {
    match bed.mode {
        Mode::Iptables(_) => bed.rules(node, "iptables", "nat"),
        Mode::Nftables => bed.nft(node, &["list", "table", "ip", "portcullis"]),
        Mode::Ipvs => {
            tools::output(bed.lab.netns(&Vantage::node(node)).unwrap().command("ipvsadm").arg("-Sn"))
        }
    }
}

/// Something was written since: the nft tool's rules have handles that never come again, and the legacy tool's packet
/// counters begin anew.
fn assert_untouched(bed: &Bed, node: &str, before: &str) {
    let after = marks(bed, node);
    match bed.mode.flavour() {
        Flavour::Nft => assert_eq!(after, before, "{node}: a start without change writes nothing"),
        Flavour::Legacy => {
            let (before, after) = (counters(before), counters(&after));
            assert_eq!(before.len(), after.len(), "{node}: a start without change writes nothing");
            assert!(before.iter().any(|(_, packets)| *packets > 0), "packets were counted");
            for ((rule, before), (now, after)) in before.iter().zip(&after) {
                assert_eq!(rule, now, "{node}: a start without change writes nothing");
                assert!(after >= before, "{node}: written anew: {rule}");
            }
        }
    }
    let written = bed.metric(node, "kubeproxy_sync_proxy_rules_iptables_last", "");
    assert_eq!(written, 0.0, "{node}: so many rules were written");
}

fn marks(bed: &Bed, node: &str) -> String {
    let netns = bed.lab.netns(&Vantage::node(node)).unwrap();
    match bed.mode.flavour() {
        Flavour::Nft => tools::output(netns.command("nft").args(["-a", "-s", "list", "ruleset"])),
        Flavour::Legacy => {
            let rules = ["iptables", "ip6tables"]
                .map(|tool| tools::output(netns.command(bed.mode.flavour().tool(tool, "-save")).arg("-c")));
            rules.join("\n") + &connections(bed, &netns)
        }
    }
}

/// The virtual and real servers of IPVS mode with the connections that each has had, as the rules have their packets.
fn connections(bed: &Bed, netns: &NetNs) -> String {
    if bed.mode != Mode::Ipvs {
        return String::new();
    }
    let listed = tools::output(netns.command("ipvsadm").args(["-Ln", "--stats", "--exact"]));
    let servers = listed.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let connections = words.get(2)?.parse::<u64>().ok()?;
        Some(format!("[{connections}:0] {} {}\n", words[0], words[1]))
    });
    servers.collect()
}

/// The rules with the packets that each has seen.
fn counters(saved: &str) -> Vec<(&str, u64)> {
    let rules = saved.lines().filter_map(|line| line.strip_prefix('[')?.split_once("] "));
    rules.map(|(counted, rule)| (rule, counted.split(':').next().unwrap().parse().unwrap())).collect()
}
