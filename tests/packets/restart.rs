//! Restarts of daemons: rules and connections stay, and changes during the restart are applied.

use portcullis_lab::{EchoClient, NetNs, ObjectRef, Protocol, Vantage};

use crate::expectation::spread;
use crate::mode::Mode;
use crate::row::{client, cluster_ip, load_balancer, node_port, outside, row};
use crate::testbed::{Setup, Testbed};
use crate::tools::{self, Flavour};

const NODES: [&str; 2] = ["node-1", "node-2"];
/// The first clients use UDP: six each from two sources to two families.
const UDP: usize = 24;

pub(crate) fn restarts(mode: Mode) {
    let mut testbed = Setup::new("web.yaml").mode(mode).up();
    let mut clients = Vec::new();
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let port = if protocol == Protocol::Tcp { 80 } else { 53 };
        let of = |target: crate::row::Target| if port == 53 { target.udp() } else { target };
        for (from, to) in
            [(client(1), of(cluster_ip("web", port))), (outside(), of(node_port(2, "web", port)))]
        {
            for address in to.addresses(testbed.lab.plan(), testbed.families) {
                for _ in 0..6 {
                    clients.push(testbed.from(from.clone()).open(protocol, address).unwrap());
                }
            }
        }
    }
    let first = responders(&mut clients);

    // Killed and restarted: nothing is written, and all clients stay connected.
    let before = NODES.map(|node| marks(&testbed, node));
    NODES.iter().for_each(|node| testbed.kill_daemon(node));
    assert_eq!(responders(&mut clients), first, "without daemons");
    serves_all(&testbed, "without daemons");
    NODES.iter().for_each(|node| testbed.lab.start_daemon(node).unwrap());
    testbed.synced();
    assert_eq!(responders(&mut clients), first, "with new daemons");
    for (node, before) in NODES.iter().zip(before) {
        assert_untouched(&testbed, node, &before);
        assert_eq!(testbed.metric(node, "portcullis_drift_repairs_total", ""), 0.0, "{node}");
        assert_eq!(
            testbed.metric(node, "kubeproxy_conntrack_reconciler_deleted_entries_total", ""),
            0.0,
            "{node}"
        );
    }

    // Stopped by SIGTERM: the rules stay. The next start applies changes made in between.
    NODES.iter().for_each(|node| testbed.lab.stop_daemon(node).unwrap());
    serves_all(&testbed, "after SIGTERM");
    let alone = match mode {
        Mode::Iptables(_) => "default/alone".to_owned(),
        // Another Service may get its cluster IP.
        Mode::Ipvs => format!("-t {} ", testbed.address(load_balancer("alone", 80))),
        Mode::Nftables => testbed.address(load_balancer("alone", 80)).ip().to_string(),
    };
    NODES.iter().for_each(|node| assert!(holds(&testbed, node).contains(&alone), "{node}: {alone}"));
    testbed.lab.delete(&ObjectRef::new("Service", "default", "alone")).unwrap();
    testbed.lab.delete(&ObjectRef::new("Pod", "default", "a")).unwrap();
    testbed.lab.apply_text(FRESH).unwrap();
    NODES.iter().for_each(|node| testbed.lab.start_daemon(node).unwrap());
    testbed.synced();
    let now = ["b", "c", "d"];
    #[rustfmt::skip]
    testbed.check(&[
        row("endpoints that changed meanwhile", client(1), cluster_ip("web", 80), spread(&now).kept()),
        row("endpoints that changed meanwhile, node port", outside(), node_port(2, "web", 80), spread(&now).masqueraded_by(2)),
        row("a Service added meanwhile", client(2), cluster_ip("fresh", 80).v4(), spread(&now).kept()),
    ]);
    for node in NODES {
        let held = holds(&testbed, node);
        assert!(!held.contains(&alone), "{node}: a Service deleted meanwhile\n{held}");
    }
    // Flows to the deleted pod move to another one; those to other pods are unchanged.
    let moved = first[..UDP].iter().filter(|first| *first == "default/a").count();
    assert!(moved > 0, "UDP flows were routed to a: {first:?}");
    for (i, (client, first)) in clients.iter_mut().zip(&first).enumerate() {
        if first != "default/a" {
            assert_eq!(client.exchange("word").responder(), Some(first.as_str()), "its pod stayed");
        } else if i < UDP {
            let outcome = client.exchange("word");
            assert!(outcome.responder().is_some_and(|by| by != first), "its pod was deleted: {outcome}");
        }
    }
}

const FRESH: &str = "\
{apiVersion: v1, kind: Pod, metadata: {name: d, labels: {app: web}}, spec: {nodeName: node-1}}
---
{apiVersion: v1, kind: Service, metadata: {name: fresh}, spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}}
";

fn responders(clients: &mut [EchoClient]) -> Vec<String> {
    let ask = |client: &mut EchoClient| {
        let outcome = client.exchange("word");
        outcome.responder().map(str::to_owned).unwrap_or_else(|| panic!("{outcome}"))
    };
    clients.iter_mut().map(ask).collect()
}

#[rustfmt::skip]
fn serves_all(testbed: &Testbed, when: &'static str) {
    testbed.check(&[
        row(when, client(1), cluster_ip("web", 80), spread(&["a", "b", "c"]).kept()),
        row(when, client(2), cluster_ip("web", 53).udp(), spread(&["a", "b", "c"]).kept()),
    ]);
}

/// Returns rules or virtual servers on a node, which name the Services.
fn holds(testbed: &Testbed, node: &str) -> String {
    match testbed.mode {
        Mode::Iptables(_) => testbed.rules(node, "iptables", "nat"),
        Mode::Nftables => testbed.nft(node, &["list", "table", "ip", "portcullis"]),
        Mode::Ipvs => {
            tools::output(testbed.lab.netns(&Vantage::node(node)).unwrap().command("ipvsadm").arg("-Sn"))
        }
    }
}

/// Detects writes: handles of the nft tool's rules are never reused, and the legacy tool resets packet counters.
fn assert_untouched(testbed: &Testbed, node: &str, before: &str) {
    let after = marks(testbed, node);
    match testbed.mode.flavour() {
        Flavour::Nft => assert_eq!(after, before, "{node}: a start without change writes nothing"),
        Flavour::Legacy => {
            let (before, after) = (counters(before), counters(&after));
            assert_eq!(before.len(), after.len(), "{node}: a start without change writes nothing");
            assert!(before.iter().any(|(_, packets)| *packets > 0), "packets were counted");
            for ((rule, before), (now, after)) in before.iter().zip(&after) {
                assert_eq!(rule, now, "{node}: a start without change writes nothing");
                assert!(after >= before, "{node}: rewritten: {rule}");
            }
        }
    }
    let written = testbed.metric(node, "kubeproxy_sync_proxy_rules_iptables_last", "");
    assert_eq!(written, 0.0, "{node}: number of written rules");
}

fn marks(testbed: &Testbed, node: &str) -> String {
    let netns = testbed.lab.netns(&Vantage::node(node)).unwrap();
    match testbed.mode.flavour() {
        Flavour::Nft => tools::output(netns.command("nft").args(["-a", "-s", "list", "ruleset"])),
        Flavour::Legacy => {
            let rules = ["iptables", "ip6tables"].map(|tool| {
                tools::output(netns.command(testbed.mode.flavour().tool(tool, "-save")).arg("-c"))
            });
            rules.join("\n") + &connections(testbed, &netns)
        }
    }
}

/// Returns the virtual and real servers of IPVS mode with their numbers of connections, in the format of rules with
/// packet counters.
fn connections(testbed: &Testbed, netns: &NetNs) -> String {
    if testbed.mode != Mode::Ipvs {
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

/// Returns the rules with their packet counters.
fn counters(saved: &str) -> Vec<(&str, u64)> {
    let rules = saved.lines().filter_map(|line| line.strip_prefix('[')?.split_once("] "));
    rules.map(|(counted, rule)| (rule, counted.split(':').next().unwrap().parse().unwrap())).collect()
}
