//! Nodes change their mode while clients connect: the new mode serves before the old one goes.

use std::time::Instant;

use portcullis_lab::{Conversation, Families, Protocol, uml};

use crate::bed::{Bed, Setup};
use crate::live_traffic::{History, while_clients_connect};
use crate::mode::Mode;
use crate::row::{client, cluster_ip, node_port, outside};
use crate::tools::Flavour;

const NODES: [&str; 2] = ["node-1", "node-2"];
/// Each takes time from the only processor, and what comes after what is the same in both families.
const CLIENTS: Families = Families::V4;
const IPTABLES: Mode = Mode::Iptables(Flavour::Legacy);

#[test]
fn modes_change_under_live_traffic() {
    uml::inside(|| {
        let mut bed = Setup::of("web.yaml").mode(IPTABLES).up();
        let mut conversations = talk(&bed);
        let met = answerers(&mut conversations);
        let (history, seen) =
            while_clients_connect(&mut bed, CLIENTS, |bed, start| change(bed, start, Mode::Ipvs));
        seen.iter().for_each(|seen| seen.assert_answered(0, &history));
        assert_eq!(answerers(&mut conversations), met, "what rules had translated lives on beside IPVS");

        // What is under way through a virtual server ends with it: at most one for each client and node.
        let (history, seen) =
            while_clients_connect(&mut bed, CLIENTS, |bed, start| change(bed, start, IPTABLES));
        seen.iter().for_each(|seen| seen.assert_answered(NODES.len(), &history));
        assert_eq!(answerers(&mut conversations), met, "and after it");
    });
}

/// Both translate addresses alike, and what is translated stays so: nothing is lost either way.
#[test]
fn to_nftables_and_back_under_live_traffic() {
    let iptables = Mode::Iptables(Flavour::Nft);
    let mut bed = Setup::of("web.yaml").mode(iptables).up();
    let mut conversations = talk(&bed);
    let met = answerers(&mut conversations);
    for mode in [Mode::Nftables, iptables] {
        let (history, seen) =
            while_clients_connect(&mut bed, Families::Dual, |bed, start| change(bed, start, mode));
        seen.iter().for_each(|seen| seen.assert_answered(0, &history));
        assert_eq!(answerers(&mut conversations), met, "in {mode:?}");
        let rules = bed.rules("node-1", "iptables", "nat") + &bed.rules("node-2", "ip6tables", "filter");
        let table = bed.nft("node-1", &["list", "table", "ip6", "portcullis"]);
        assert_eq!(rules.contains("KUBE-"), mode == iptables, "{mode:?}: {rules}");
        assert_eq!(table.is_empty(), mode == iptables, "{mode:?}: {table}");
    }
}

fn change(bed: &mut Bed, start: Instant, mode: Mode) -> History {
    let mut history = Vec::new();
    for node in NODES {
        history.push((start.elapsed(), format!("{node} changes")));
        bed.change_mode_of(node, mode);
        history.push((start.elapsed(), format!("{node} has changed to {mode:?}")));
    }
    bed.mode = mode;
    history
}

/// TCP connections that stay open, four each way.
fn talk(bed: &Bed) -> Vec<Conversation> {
    let ways = [(client(1), cluster_ip("web", 80)), (outside(), node_port(2, "web", 80))];
    let mut conversations = Vec::new();
    for (from, to) in ways {
        for address in to.addresses(bed.lab.plan(), bed.families) {
            conversations
                .extend((0..4).map(|_| bed.from(from.clone()).open(Protocol::Tcp, address).unwrap()));
        }
    }
    conversations
}

fn answerers(conversations: &mut [Conversation]) -> Vec<String> {
    let answer = |c: &mut Conversation| {
        let outcome = c.ask("word");
        outcome.by().map(str::to_owned).unwrap_or_else(|| panic!("no answer: {outcome}"))
    };
    conversations.iter_mut().map(answer).collect()
}
