//! A packet tracer for the rules of iptables mode.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_modes::iptables::{RuleSet, Table};

/// The first packet of a connection.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) from: IpAddr,
    /// A process on the node sends the packet.
    pub(crate) from_local: bool,
    pub(crate) to: IpAddr,
    /// The destination is an address of the node.
    pub(crate) to_local: bool,
    pub(crate) protocol: &'static str,
    pub(crate) port: u16,
    /// The input interface.
    pub(crate) interface: Option<String>,
}

/// The outcome of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Forwarded to one of these endpoints.
    Forwarded { endpoints: BTreeSet<String>, masqueraded: bool },
    /// Rejected with an error.
    Rejected,
    /// Dropped silently.
    Dropped,
    /// No rule matches.
    NotServed,
}

/// Traces a packet through the chains of Services.
pub(crate) fn trace(rules: &RuleSet, packet: &Packet) -> Outcome {
    let mut found = Found::default();
    walk(rules, Table::Nat, "KUBE-SERVICES", packet, false, &mut found);
    if !found.endpoints.is_empty() {
        assert_eq!(found.masqueraded.len(), 1, "all paths masquerade, or none does: {packet:?}");
        return Outcome::Forwarded {
            endpoints: found.endpoints,
            masqueraded: found.masqueraded.contains(&true),
        };
    }
    // OUTPUT does not call `KUBE-EXTERNAL-SERVICES`.
    let mut chains = vec!["KUBE-PROXY-FIREWALL", "KUBE-SERVICES"];
    if !packet.from_local || packet.to_local {
        chains.insert(1, "KUBE-EXTERNAL-SERVICES");
    }
    for chain in chains {
        walk(rules, Table::Filter, chain, packet, false, &mut found);
        if let Some(outcome) = found.verdict.take() {
            return outcome;
        }
    }
    Outcome::NotServed
}

#[derive(Default)]
struct Found {
    endpoints: BTreeSet<String>,
    masqueraded: BTreeSet<bool>,
    verdict: Option<Outcome>,
}

/// The end of a chain.
enum ChainEnd {
    /// No verdict; with the masquerade mark or without.
    Returned(bool),
    /// A verdict.
    Final,
}

fn walk(
    rules: &RuleSet,
    table: Table,
    chain: &str,
    packet: &Packet,
    marked: bool,
    found: &mut Found,
) -> ChainEnd {
    let mut marked = marked;
    let lines = rules.tables.get(&table).and_then(|chains| chains.get(chain));
    for line in lines.into_iter().flatten() {
        let words = words(line);
        let Some(probability) = matches(&words, packet) else { continue };
        let Some(target) = value(&words, "-j") else { continue };
        let end = match target {
            "KUBE-MARK-MASQ" => ChainEnd::Returned(true),
            "DNAT" => {
                found.endpoints.insert(value(&words, "--to-destination").expect("DNAT has one").to_owned());
                found.masqueraded.insert(marked);
                ChainEnd::Final
            }
            "REJECT" | "DROP" => {
                found.verdict.get_or_insert(match target {
                    "REJECT" => Outcome::Rejected,
                    _ => Outcome::Dropped,
                });
                ChainEnd::Final
            }
            chain => walk(rules, table, chain, packet, marked, found),
        };
        match end {
            ChainEnd::Returned(now) => marked = now,
            ChainEnd::Final if probability == Probability::Partial => {}
            ChainEnd::Final => return ChainEnd::Final,
        }
    }
    ChainEnd::Returned(marked)
}

/// The probability that a rule matches.
#[derive(PartialEq)]
enum Probability {
    One,
    /// Less than one: `-m statistic`.
    Partial,
}

fn matches(words: &[&str], packet: &Packet) -> Option<Probability> {
    let mut probability = Probability::One;
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
            // The client has no session-affinity entry.
            "--rcheck" => false,
            "--probability" => {
                probability = Probability::Partial;
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
    Some(probability)
}

fn value<'a>(words: &[&'a str], option: &str) -> Option<&'a str> {
    words.iter().position(|word| *word == option).and_then(|at| words.get(at + 1)).copied()
}

/// Returns the words of a rule without its comment.
fn words(line: &str) -> Vec<&str> {
    let mut parts = line.split('"');
    let before = parts.next().unwrap_or_default();
    let after = parts.nth(1).unwrap_or_default();
    before.split_whitespace().chain(after.split_whitespace()).collect()
}
