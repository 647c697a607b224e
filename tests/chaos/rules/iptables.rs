//! A tracer of the rules that `iptables-save` prints, from the built-in chains on, so that missing jumps are found too.
//!
//! It knows the matches that the program and kube-proxy use, and panics at others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use portcullis_lab::NetNs;

use crate::model::{Client, Connection, Outcome};
use crate::pools::local_addresses;
use crate::scenario::Tools;

/// Rules by table and chain, each as its words without the comment, and the entries of ipsets that they match.
pub(super) struct IptablesRules {
    chains: BTreeMap<(String, String), Vec<Vec<String>>>,
    sets: BTreeMap<String, Vec<String>>,
}

/// A packet within the walk.
#[derive(Clone, Debug)]
struct Packet {
    source: IpAddr,
    destination: SocketAddr,
    /// As the tools print it.
    protocol: String,
    is_translated: bool,
    mark: u32,
    input: &'static str,
}

/// The end of a chain.
#[derive(Clone, Debug)]
enum End {
    /// The next rule of the calling chain follows.
    Returned(Packet),
    /// No further rule of the table is evaluated.
    Accepted(Packet),
    Rejected,
    Dropped,
}

impl IptablesRules {
    pub(super) fn read(netns: &NetNs, tool: &str, tools: Tools) -> Self {
        let variant = if tools == Tools::Nft { "nft" } else { "legacy" };
        let output =
            netns.command(format!("{tool}-{variant}-save")).output().expect("the tools are installed");
        assert!(output.status.success(), "{tool}-save: {}", String::from_utf8_lossy(&output.stderr));
        let mut rules = Self::parse(&String::from_utf8_lossy(&output.stdout));
        if rules.chains.values().flatten().flatten().any(|word| word == "--match-set") {
            // Rules that IPVS mode has left for connections that have not ended.
            let saved = netns.command("ipset").arg("save").output().expect("ipset is installed");
            rules.sets = ip_sets(&String::from_utf8_lossy(&saved.stdout));
        }
        rules
    }

    fn parse(text: &str) -> Self {
        let (mut chains, mut table) = (BTreeMap::new(), String::new());
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name.to_owned();
            } else if let Some(chain) = line.strip_prefix(':') {
                let name = chain.split(' ').next().expect("a name").to_owned();
                chains.entry((table.clone(), name)).or_insert_with(Vec::new);
            } else if line.starts_with("-A ") {
                let words = words(line);
                chains.entry((table.clone(), words[1].clone())).or_default().push(words[2..].to_vec());
            }
        }
        Self { chains, sets: BTreeMap::new() }
    }

    /// Returns the outcomes of a connection over all random numbers.
    pub(super) fn outcomes(&self, connection: &Connection) -> BTreeSet<Outcome> {
        let is_sent = connection.client == Client::Node;
        let packet = Packet {
            source: connection.from(),
            destination: connection.to,
            protocol: connection.protocol.to_string().to_lowercase(),
            is_translated: false,
            mark: 0,
            input: match connection.client {
                Client::Node => "",
                Client::Outside => "eth0",
                Client::Pod(index) if crate::pools::ALL_PODS[index].node != crate::pools::NODE => "eth0",
                Client::Pod(_) => "cni0",
            },
        };
        let first = if is_sent { "OUTPUT" } else { "PREROUTING" };
        let mut outcomes = BTreeSet::new();
        for packet in self.hook("nat", first, vec![packet], &mut outcomes) {
            let is_local = local_addresses().contains(&packet.destination.ip());
            let hooks: &[&str] = match (is_sent, is_local) {
                (true, true) => &["OUTPUT", "INPUT"],
                (true, false) => &["OUTPUT"],
                (false, true) => &["INPUT"],
                (false, false) => &["FORWARD"],
            };
            let mut packets = vec![packet];
            for hook in hooks {
                packets = self.hook("filter", hook, packets, &mut outcomes);
            }
            outcomes.extend(packets.into_iter().map(|packet| Outcome::To(packet.destination)));
        }
        outcomes
    }

    /// Traverses a built-in chain; returns the packets that pass, and adds other outcomes.
    fn hook(
        &self,
        table: &str,
        chain: &str,
        packets: Vec<Packet>,
        outcomes: &mut BTreeSet<Outcome>,
    ) -> Vec<Packet> {
        let mut passed = Vec::new();
        for packet in packets {
            for end in self.walk(table, chain, packet, 0) {
                match end {
                    End::Returned(packet) | End::Accepted(packet) => passed.push(packet),
                    End::Rejected => _ = outcomes.insert(Outcome::Rejected),
                    End::Dropped => _ = outcomes.insert(Outcome::Dropped),
                }
            }
        }
        passed
    }

    fn walk(&self, table: &str, chain: &str, packet: Packet, depth: usize) -> Vec<End> {
        assert!(depth < 20, "a loop of chains at {chain}");
        let key = (table.to_owned(), chain.to_owned());
        let mut ends = Vec::new();
        let mut packets = vec![packet];
        for rule in self.chains.get(&key).into_iter().flatten() {
            let mut next = Vec::new();
            for packet in packets {
                let Some(is_certain) = self.matches(rule, &packet) else {
                    next.push(packet);
                    continue;
                };
                if !is_certain {
                    next.push(packet.clone());
                }
                for end in self.target(table, rule, packet, depth) {
                    match end {
                        End::Returned(packet) => next.push(packet),
                        end => ends.push(end),
                    }
                }
            }
            // A RETURN ends the chain for its packets only.
            (packets, next) = (Vec::new(), next);
            for packet in next {
                match value(rule, "-j") == Some("RETURN") && self.matches(rule, &packet).is_some() {
                    true => ends.push(End::Returned(packet)),
                    false => packets.push(packet),
                }
            }
        }
        ends.extend(packets.into_iter().map(End::Returned));
        ends
    }

    /// Returns the ends of a packet that matches a rule; `Returned` continues with the next rule.
    fn target(&self, table: &str, rule: &[String], mut packet: Packet, depth: usize) -> Vec<End> {
        let Some(target) = value(rule, "-j").or_else(|| value(rule, "-g")) else {
            return vec![End::Returned(packet)];
        };
        match target {
            "ACCEPT" => vec![End::Accepted(packet)],
            "DROP" => vec![End::Dropped],
            "REJECT" => vec![End::Rejected],
            // `walk` ends the chain.
            "RETURN" => vec![End::Returned(packet)],
            "MARK" => {
                let (value, mask) = mark(value(rule, "--set-xmark").expect("MARK has a value"));
                packet.mark = (packet.mark & !mask) ^ value;
                vec![End::Returned(packet)]
            }
            "DNAT" => {
                let to = value(rule, "--to-destination").expect("DNAT has a destination");
                packet.destination = to.parse().expect("an address and port");
                packet.is_translated = true;
                vec![End::Accepted(packet)]
            }
            "MASQUERADE" | "LOG" | "NFLOG" => vec![End::Returned(packet)],
            chain => self.walk(table, chain, packet, depth + 1),
        }
    }
}

impl IptablesRules {
    /// Returns whether a matching rule matches with certainty, or `None` if it does not match.
    fn matches(&self, rule: &[String], packet: &Packet) -> Option<bool> {
        const PLAIN: [&str; 24] = [
            "-m",
            "-j",
            "-g",
            "--mode",
            "--nfacct-name",
            "--comment",
            "--seconds",
            "--reap",
            "--name",
            "--mask",
            "--rsource",
            "--set",
            "--to-destination",
            "--set-xmark",
            "--reject-with",
            "--random-fully",
            "--hitcount",
            "--limit",
            "--log-prefix",
            "--nflog-group",
            "--nflog-prefix",
            "--limit-burst",
            "--log-level",
            "--save-mark",
        ];
        let mut is_certain = true;
        for (at, word) in rule.iter().enumerate() {
            if !word.starts_with('-') {
                continue;
            }
            let is_wanted = at == 0 || rule[at - 1] != "!";
            let argument = || rule.get(at + 1).expect("it has an argument").as_str();
            let within = |ip: IpAddr| argument().parse::<IpNet>().is_ok_and(|net| net.contains(&ip));
            let holds = match word.as_str() {
                "-s" => within(packet.source),
                "-d" => within(packet.destination.ip()),
                "-p" => argument() == packet.protocol,
                "-i" => argument() == packet.input,
                "-o" | "--physdev-is-in" => false,
                "--dport" => argument() == packet.destination.port().to_string(),
                "--dst-type" => local_addresses().contains(&packet.destination.ip()),
                "--src-type" => local_addresses().contains(&packet.source),
                "--ctstate" => argument()
                    .split(',')
                    .any(|state| state == "NEW" || state == "DNAT" && packet.is_translated),
                "--mark" => {
                    let (value, mask) = mark(argument());
                    packet.mark & mask == value
                }
                "--match-set" => {
                    let directions = rule.get(at + 2).expect("it has directions");
                    let entries = self.sets.get(argument()).into_iter().flatten();
                    entries.into_iter().any(|entry| is_entry(entry, directions, packet))
                }
                // The client has no session-affinity entry.
                "--rcheck" => false,
                "--probability" => {
                    is_certain = false;
                    true
                }
                plain if PLAIN.contains(&plain) => continue,
                unknown => panic!("the tracer does not know {unknown}: {rule:?}"),
            };
            if holds != is_wanted {
                return None;
            }
        }
        Some(is_certain)
    }
}

/// Returns the entries of all ipsets.
fn ip_sets(saved: &str) -> BTreeMap<String, Vec<String>> {
    let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in saved.lines() {
        if let ["add", name, entry, ..] = line.split_whitespace().collect::<Vec<_>>()[..] {
            sets.entry(name.to_owned()).or_default().push(entry.to_owned());
        }
    }
    sets
}

/// Returns true if an entry such as `10.96.0.10,tcp:80` matches a packet in directions such as `dst,dst`.
fn is_entry(entry: &str, directions: &str, packet: &Packet) -> bool {
    entry.split(',').zip(directions.split(',')).all(|(part, direction)| {
        let ip = if direction == "src" { packet.source } else { packet.destination.ip() };
        let port = packet.destination.port().to_string();
        if let Some(number) = part.strip_prefix(&format!("{}:", packet.protocol)) {
            return number == port;
        }
        match (part.parse::<IpAddr>(), part.parse::<IpNet>()) {
            (Ok(address), _) => address == ip,
            (_, Ok(net)) => net.contains(&ip),
            _ => part == port,
        }
    })
}

fn mark(text: &str) -> (u32, u32) {
    let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    let number = |text: &str| u32::from_str_radix(text.trim_start_matches("0x"), 16).expect("a number");
    (number(value), number(mask))
}

fn value<'a>(rule: &'a [String], option: &str) -> Option<&'a str> {
    rule.iter().position(|word| word == option).and_then(|at| rule.get(at + 1)).map(String::as_str)
}

/// Returns the words of a rule; quoted text is left out.
fn words(line: &str) -> Vec<String> {
    let unquoted = line.split('"').step_by(2).flat_map(str::split_whitespace);
    let mut words: Vec<String> = Vec::new();
    for word in unquoted {
        // The argument of an option whose text was quoted.
        if words.last().is_some_and(|last| last == "--comment") && line.contains('"') && word.starts_with('-')
        {
            words.push(String::new());
        }
        words.push(word.to_owned());
    }
    words
}

pub(crate) mod tests {
    use portcullis_lab::Protocol;

    use super::*;

    pub(crate) fn rules_are_walked_from_the_built_in_chains() {
        let rules = IptablesRules::parse(
            "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:X - [0:0]\n:Y - [0:0]\n-A PREROUTING -m comment --comment \"a b\" -j KUBE-SERVICES\n\
             -A KUBE-SERVICES -s 10.244.1.40/32 -j RETURN\n-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j X\n-A X -m statistic --mode random --probability 0.5 -j Y\n\
             -A X -p tcp -j DNAT --to-destination 10.0.0.2:8080\n-A Y -p tcp -j DNAT --to-destination 10.0.0.1:8080\nCOMMIT\n\
             *filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -d 10.0.0.2/32 -j DROP\n-A FORWARD -d 10.96.0.10/32 -p udp -j REJECT\nCOMMIT\n",
        );
        let to = "10.96.0.10:80".parse().unwrap();
        let outcomes = |client, protocol| rules.outcomes(&Connection { client, to, protocol });
        let first = Outcome::To("10.0.0.1:8080".parse().unwrap());
        assert_eq!(outcomes(Client::Pod(0), Protocol::Tcp), BTreeSet::from([first, Outcome::Dropped]));
        assert_eq!(outcomes(Client::Pod(0), Protocol::Udp), BTreeSet::from([Outcome::Rejected]));
        assert_eq!(outcomes(Client::Pod(6), Protocol::Tcp), BTreeSet::from([Outcome::To(to)]));
    }
}
