//! Follows a connection through the rules of iptables mode, as the kernel does.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_modes::iptables::{RuleSet, Table};

/// The first packet of a connection.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) from: IpAddr,
    /// A process of the node sends it.
    pub(crate) from_local: bool,
    pub(crate) to: IpAddr,
    /// The node has the address.
    pub(crate) to_local: bool,
    pub(crate) protocol: &'static str,
    pub(crate) port: u16,
    /// Where it comes in.
    pub(crate) interface: Option<String>,
}

/// What becomes of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It goes to one of these.
    Led { endpoints: BTreeSet<String>, masqueraded: bool },
    /// It is refused.
    Rejected,
    /// It is lost.
    Dropped,
    /// No rule concerns it.
    NotServed,
}

/// Follows it through the chains for Services.
pub(crate) fn follow(rules: &RuleSet, packet: &Packet) -> Outcome {
    let mut found = Found::default();
    walk(rules, Table::Nat, "KUBE-SERVICES", packet, false, &mut found);
    if !found.endpoints.is_empty() {
        assert_eq!(found.masqueraded.len(), 1, "each way replaces the source, or none does: {packet:?}");
        return Outcome::Led { endpoints: found.endpoints, masqueraded: found.masqueraded.contains(&true) };
    }
    // Which hooks a packet passes decides which chains it meets: `KUBE-EXTERNAL-SERVICES` is not called by OUTPUT.
    let mut chains = vec!["KUBE-PROXY-FIREWALL", "KUBE-SERVICES"];
    if !packet.from_local || packet.to_local {
        chains.insert(1, "KUBE-EXTERNAL-SERVICES");
    }
    for chain in chains {
        walk(rules, Table::Filter, chain, packet, false, &mut found);
        if let Some(outcome) = found.refused.take() {
            return outcome;
        }
    }
    Outcome::NotServed
}

#[derive(Default)]
struct Found {
    endpoints: BTreeSet<String>,
    masqueraded: BTreeSet<bool>,
    refused: Option<Outcome>,
}

/// How a chain was left.
enum Left {
    /// At its end, with the mark for masquerading or without.
    Returned(bool),
    /// A rule decided.
    Decided,
}

fn walk(
    rules: &RuleSet,
    table: Table,
    chain: &str,
    packet: &Packet,
    marked: bool,
    found: &mut Found,
) -> Left {
    let mut marked = marked;
    let lines = rules.tables.get(&table).and_then(|chains| chains.get(chain));
    for line in lines.into_iter().flatten() {
        let words = words(line);
        let Some(chance) = matches(&words, packet) else { continue };
        let Some(target) = value(&words, "-j") else { continue };
        let left = match target {
            "KUBE-MARK-MASQ" => Left::Returned(true),
            "DNAT" => {
                found.endpoints.insert(value(&words, "--to-destination").expect("DNAT has one").to_owned());
                found.masqueraded.insert(marked);
                Left::Decided
            }
            "REJECT" | "DROP" => {
                found.refused.get_or_insert(match target {
                    "REJECT" => Outcome::Rejected,
                    _ => Outcome::Dropped,
                });
                Left::Decided
            }
            chain => walk(rules, table, chain, packet, marked, found),
        };
        match left {
            Left::Returned(now) => marked = now,
            Left::Decided if chance == Chance::Some => {}
            Left::Decided => return Left::Decided,
        }
    }
    Left::Returned(marked)
}

/// How surely a rule matches.
#[derive(PartialEq)]
enum Chance {
    Sure,
    /// One packet in several.
    Some,
}

fn matches(words: &[&str], packet: &Packet) -> Option<Chance> {
    let mut chance = Chance::Sure;
    for (at, word) in words.iter().enumerate() {
        let wanted = at == 0 || words[at - 1] != "!";
        let argument = || *words.get(at + 1).expect("it has an argument");
        let within = |ip: IpAddr| argument().parse::<IpNet>().expect("a block").contains(&ip);
        let holds = match *word {
            "-s" => within(packet.from),
            "-d" => within(packet.to),
            "-p" => argument() == packet.protocol,
            "--dport" => argument() == packet.port.to_string(),
            "--dst-type" => packet.to_local,
            "--src-type" => packet.from_local,
            // Clients that come for the first time.
            "--rcheck" => false,
            "--probability" => {
                chance = Chance::Some;
                true
            }
            "-i" => packet.interface.as_deref().is_some_and(|interface| match argument().strip_suffix('+') {
                Some(prefix) => interface.starts_with(prefix),
                None => interface == argument(),
            }),
            _ => continue,
        };
        if holds != wanted {
            return None;
        }
    }
    Some(chance)
}

fn value<'a>(words: &[&'a str], option: &str) -> Option<&'a str> {
    words.iter().position(|word| *word == option).and_then(|at| words.get(at + 1)).copied()
}

/// The words of a rule, without its comment.
fn words(line: &str) -> Vec<&str> {
    let mut parts = line.split('"');
    let before = parts.next().unwrap_or_default();
    let after = parts.nth(1).unwrap_or_default();
    before.split_whitespace().chain(after.split_whitespace()).collect()
}
