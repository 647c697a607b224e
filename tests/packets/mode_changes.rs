//! Changes of the proxy mode under live traffic: the new mode serves before the old one is removed.

use std::time::Instant;

use portcullis_lab::{EchoClient, Families, Protocol};
use portcullis_machines::uml;

use crate::live_traffic::{History, while_clients_connect};
use crate::mode::Mode;
use crate::row::{client, cluster_ip, node_port, outside};
use crate::testbed::{Setup, Testbed};
use crate::tools::Flavour;

const NODES: [&str; 2] = ["node-1", "node-2"];
/// One family, because user-mode Linux has one processor; the order of changes is the same in both families.
const CLIENTS: Families = Families::V4;
const IPTABLES: Mode = Mode::Iptables(Flavour::Legacy);

#[test]
fn modes_change_under_live_traffic() {
    uml::inside(|| {
        let mut testbed = Setup::new("web.yaml").mode(IPTABLES).up();
        let mut clients = open_flows(&testbed);
        let first = responders(&mut clients);
        let (history, seen) =
            while_clients_connect(&mut testbed, CLIENTS, |testbed, start| change(testbed, start, Mode::Ipvs));
        seen.iter().for_each(|seen| seen.assert_answered(0, &history));
        assert_eq!(responders(&mut clients), first, "translated connections survive beside IPVS");

        // A connection in flight through a virtual server ends with it: at most one per client and node.
        let (history, seen) =
            while_clients_connect(&mut testbed, CLIENTS, |testbed, start| change(testbed, start, IPTABLES));
        seen.iter().for_each(|seen| seen.assert_answered(NODES.len(), &history));
        assert_eq!(responders(&mut clients), first, "after IPVS mode");
    });
}

/// Both modes use DNAT, and translated connections stay translated: nothing is lost in either direction.
#[test]
fn to_nftables_and_back_under_live_traffic() {
    let iptables = Mode::Iptables(Flavour::Nft);
    let mut testbed = Setup::new("web.yaml").mode(iptables).up();
    let mut clients = open_flows(&testbed);
    let first = responders(&mut clients);
    for mode in [Mode::Nftables, iptables] {
        let (history, seen) = while_clients_connect(&mut testbed, Families::Dual, |testbed, start| {
            change(testbed, start, mode)
        });
        seen.iter().for_each(|seen| seen.assert_answered(0, &history));
        assert_eq!(responders(&mut clients), first, "in {mode:?}");
        let rules =
            testbed.rules("node-1", "iptables", "nat") + &testbed.rules("node-2", "ip6tables", "filter");
        let table = testbed.nft("node-1", &["list", "table", "ip6", "portcullis"]);
        assert_eq!(rules.contains("KUBE-"), mode == iptables, "{mode:?}: {rules}");
        assert_eq!(table.is_empty(), mode == iptables, "{mode:?}: {table}");
    }
}

fn change(testbed: &mut Testbed, start: Instant, mode: Mode) -> History {
    let mut history = Vec::new();
    for node in NODES {
        history.push((start.elapsed(), format!("{node} changes")));
        testbed.change_mode_of(node, mode);
        history.push((start.elapsed(), format!("{node} has changed to {mode:?}")));
    }
    testbed.mode = mode;
    history
}

/// Opens TCP connections, four per path.
fn open_flows(testbed: &Testbed) -> Vec<EchoClient> {
    let ways = [(client(1), cluster_ip("web", 80)), (outside(), node_port(2, "web", 80))];
    let mut clients = Vec::new();
    for (from, to) in ways {
        for address in to.addresses(testbed.lab.plan(), testbed.families) {
            clients.extend((0..4).map(|_| testbed.from(from.clone()).open(Protocol::Tcp, address).unwrap()));
        }
    }
    clients
}

fn responders(clients: &mut [EchoClient]) -> Vec<String> {
    let answer = |c: &mut EchoClient| {
        let outcome = c.exchange("word");
        outcome.responder().map(str::to_owned).unwrap_or_else(|| panic!("no answer: {outcome}"))
    };
    clients.iter_mut().map(answer).collect()
}
