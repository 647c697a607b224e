//! Parsing of tables, chains and sets.

use std::sync::Arc;

use portcullis_netlink::nf_tables::{
    BaseChain, Chain, ChainKind, DataType, Hook, Set, SetSpec, Table, TableFamily,
};

use super::words::Words;
use super::{elements, rule, span};

/// Parses the tables of a rule set.
pub fn tables(text: &str) -> Vec<Table> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut tables = Vec::new();
    while let Some(line) = lines.next() {
        let mut words = Words::new(line);
        words.expect("table");
        let family = match words.next() {
            "ip" => TableFamily::Ip,
            "ip6" => TableFamily::Ip6,
            other => panic!("a table of family {other}"),
        };
        let mut table = Table::new(family, words.next());
        words.expect("{");
        fill(&mut table, &mut lines);
        tables.push(table);
    }
    tables
}

fn fill<'a>(table: &mut Table, lines: &mut impl Iterator<Item = &'a str>) {
    while let Some(line) = lines.next().filter(|line| *line != "}") {
        let mut words = Words::new(line);
        match words.next() {
            "comment" => table.comment = Some(words.text().into()),
            "set" | "map" => {
                let name = words.next().into();
                let set = set(lines);
                table.sets.insert(name, set);
            }
            "chain" => {
                let name = words.next().into();
                let chain = chain(table, lines);
                table.chains.insert(name, chain);
            }
            _ => panic!("not known in a table: {line}"),
        }
    }
}

fn chain<'a>(table: &mut Table, lines: &mut impl Iterator<Item = &'a str>) -> Chain {
    let mut chain = Chain::default();
    while let Some(line) = lines.next().filter(|line| *line != "}") {
        let mut words = Words::new(line);
        match words.peek() {
            Some("comment") => {
                words.next();
                chain.comment = Some(words.text().into());
            }
            Some("type") => chain.base = Some(base(line)),
            _ => chain.rules.push(rule::rule(words, table)),
        }
    }
    chain
}

/// `type filter hook prerouting priority dstnat - 10; policy accept;`
fn base(line: &str) -> BaseChain {
    let (head, policy) = line.split_once("; ").expect("a policy follows");
    assert_eq!(policy, "policy accept;");
    let mut words = Words::new(head);
    words.expect("type");
    let kind = match words.next() {
        "filter" => ChainKind::Filter,
        "nat" => ChainKind::Nat,
        other => panic!("a chain of type {other}"),
    };
    words.expect("hook");
    let hook = words.next();
    let hook = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting]
        .into_iter()
        .find(|known| known.as_str() == hook)
        .unwrap_or_else(|| panic!("hook {hook}"));
    words.expect("priority");
    let mut priority: i32 = match words.peek() {
        Some("filter") => 0,
        Some("dstnat") => -100,
        Some("srcnat") => 100,
        _ => words.number(),
    };
    if words.peek().is_some_and(|word| word.starts_with(char::is_alphabetic)) {
        words.next();
    }
    if words.take("-") {
        priority -= words.number::<i32>();
    }
    assert_eq!(words.peek(), None, "{line}");
    BaseChain { kind, hook, priority }
}

fn set<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Set {
    let mut set = Set::new(SetSpec::new(&[]));
    while let Some(line) = lines.next().filter(|line| *line != "}") {
        let mut words = Words::new(line);
        match words.next() {
            "type" => {
                set.spec.key = types(&mut words);
                if words.take(":") {
                    set.spec.data = types(&mut words);
                }
            }
            "comment" => set.spec.comment = Some(words.text().into()),
            "size" => set.spec.size = Some(words.number()),
            "flags" => assert_eq!((words.next(), words.peek()), ("dynamic,timeout", None)),
            "timeout" => {
                set.spec.dynamic = true;
                set.spec.timeout = Some(span::milliseconds(words.next()));
            }
            "elements" => {
                words.expect("= {");
                while let Some(line) = lines.next().filter(|line| *line != "}") {
                    let mut words = Words::new(line);
                    let (key, element) = elements::element(&mut words, &set.spec.key, &set.spec.data);
                    set.elements.insert(key, element);
                    words.take(",");
                    assert_eq!(words.peek(), None, "{line}");
                }
            }
            _ => panic!("not known in a set: {line}"),
        }
    }
    set
}

fn types(words: &mut Words<'_>) -> Arc<[DataType]> {
    let mut types = Vec::new();
    loop {
        types.push(match words.next() {
            "ipv4_addr" => DataType::Ipv4Addr,
            "ipv6_addr" => DataType::Ipv6Addr,
            "inet_proto" => DataType::InetProto,
            "inet_service" => DataType::InetService,
            "verdict" => DataType::Verdict,
            other => panic!("a value of type {other}"),
        });
        if !words.take(".") {
            return types.into();
        }
    }
}
