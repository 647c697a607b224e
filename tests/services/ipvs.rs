//! Readers of the recorded IPVS state besides rules, without parts that vary from run to run.

use std::collections::BTreeMap;

/// Sorts virtual servers as `ipvsadm -Sn` prints them, and the real servers of each.
pub fn virtual_servers(dump: &str) -> String {
    let mut servers: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in dump.lines().map(str::trim) {
        match line.get(..3) {
            Some("-A ") => servers.push((line, Vec::new())),
            Some("-a ") => servers.last_mut().expect("a virtual server comes first").1.push(line),
            _ => {}
        }
    }
    servers.sort();
    in_order(servers)
}

/// Sorts sets as `ipset save` prints them by name, and the entries of each; removes hash seeds.
pub fn sets(dump: &str) -> String {
    let seedless = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "initval").unwrap_or(words.len());
        [&words[..at], words.get(at + 2..).unwrap_or_default()].concat().join(" ")
    };
    let lines: Vec<String> = dump.lines().map(seedless).collect();
    let mut sets: BTreeMap<&str, (&str, Vec<&str>)> = BTreeMap::new();
    for line in &lines {
        let mut words = line.split(' ');
        match (words.next(), words.next()) {
            (Some("create"), Some(name)) => sets.entry(name).or_default().0 = line,
            (Some("add"), Some(name)) => sets.entry(name).or_default().1.push(line),
            _ => {}
        }
    }
    in_order(sets.into_values().collect())
}

/// Sorts an interface's addresses as `ip -o address` prints them: family, address and prefix length.
pub fn addresses(dump: &str) -> String {
    let of_line = |line: &str| {
        let mut words = line.split_whitespace().skip_while(|word| !matches!(*word, "inet" | "inet6"));
        Some(format!("{} {}\n", words.next()?, words.next()?))
    };
    let mut addresses: Vec<String> = dump.lines().filter_map(of_line).collect();
    addresses.sort();
    addresses.concat()
}

fn in_order(groups: Vec<(&str, Vec<&str>)>) -> String {
    let mut text = String::new();
    for (head, mut rest) in groups {
        rest.sort_unstable();
        for line in std::iter::once(head).chain(rest) {
            text += line;
            text.push('\n');
        }
    }
    text
}
