//! Parsing of rules. Anonymous sets and maps become named ones.

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{
    CT_STATUS_DNAT, Comparison, Ct, CtState, DataType, DynsetOp, Element, Expression, Field, Key,
    LookupResult, Meta, Register, Reject, Rule, Set, SetSpec, Table, TableFamily, Value,
};

use super::elements::{block, element, protocol, verdict};
use super::span;
use super::words::Words;

const MARK: Field = Field::Meta(Meta::Mark);

pub fn rule(mut words: Words<'_>, table: &mut Table) -> Rule {
    let mut rule = Rule::new();
    while let Some(word) = words.peek() {
        rule = match word {
            "ct" => connection(rule, &mut words),
            "fib" => fib(rule, &mut words),
            "iifname" => interface(rule, &mut words),
            "ip" | "ip6" | "meta" => match_or_mark(rule, &mut words, table),
            "numgen" => {
                let (map, number) = random_map(&mut words, table, &[DataType::Verdict]);
                rule.load(&[number], Register::FIRST).push(Expression::Lookup {
                    set: map,
                    key: Register::FIRST,
                    result: LookupResult::Verdict,
                })
            }
            "dnat" => dnat(rule, &mut words, table),
            "masquerade" => {
                words.expect("masquerade fully-random");
                rule.push(Expression::Masquerade { random_fully: true })
            }
            "update" => {
                words.next();
                let set: Arc<str> = set_name(&mut words).into();
                words.expect("{");
                let key = fields(&mut words);
                let timeout = words.take("timeout").then(|| span::milliseconds(words.next()));
                words.expect("}");
                rule.load(&key, Register::FIRST).push(Expression::Dynset {
                    set,
                    op: DynsetOp::Update,
                    key: Register::FIRST,
                    data: None,
                    timeout,
                })
            }
            "reject" => {
                words.next();
                rule.reject(Reject::IcmpxPortUnreachable)
            }
            "comment" => {
                words.next();
                rule.with_comment(words.text())
            }
            _ => match verdict(&mut words) {
                Some(verdict) => rule.then(verdict),
                None => words.unknown(),
            },
        };
    }
    rule
}

fn connection(rule: Rule, words: &mut Words<'_>) -> Rule {
    words.expect("ct");
    match words.next() {
        "state" => {
            words.expect("new");
            rule.ct_state(CtState::NEW)
        }
        "status" => {
            words.expect("dnat");
            rule.any_bit(Field::Ct(Ct::Status), CT_STATUS_DNAT)
        }
        _ => words.unknown(),
    }
}

fn fib(rule: Rule, words: &mut Words<'_>) -> Rule {
    words.expect("fib");
    let rule = match words.next() {
        "saddr" => rule.from_local(),
        "daddr" => rule.to_local(),
        _ => words.unknown(),
    };
    words.expect("type local");
    rule
}

fn interface(rule: Rule, words: &mut Words<'_>) -> Rule {
    words.expect("iifname");
    let op = if words.take("!=") { Comparison::NotEqual } else { Comparison::Equal };
    let name = words.text();
    let mut bytes = name.trim_end_matches('*').as_bytes().to_vec();
    if !name.ends_with('*') {
        bytes.resize(16, 0);
    }
    rule.compare(Field::Meta(Meta::IifName), op, Value::new(&bytes))
}

/// Parses a statement that begins with fields: a match, or a change of the mark.
fn match_or_mark(rule: Rule, words: &mut Words<'_>, table: &mut Table) -> Rule {
    let key = fields(words);
    if key == [MARK] {
        return mark(rule, words);
    }
    if words.take("vmap") {
        return rule.verdict_map(&key, set_name(words));
    }
    let negated = words.take("!=");
    let is_in = |rule: Rule, set: Arc<str>| {
        if negated { rule.is_not_in(&key, set) } else { rule.is_in(&key, set) }
    };
    match words.peek() {
        Some(name) if name.starts_with('@') => is_in(rule, set_name(words).into()),
        Some("{") => {
            let set = blocks(words, key[0]);
            is_in(rule, add_set(table, set))
        }
        _ if key == [Field::PROTOCOL] => rule.protocol(protocol(words.next())),
        _ => within(rule, key[0], block(words.next()), negated),
    }
}

/// `meta mark & B != 0`, or `meta mark set …`
fn mark(rule: Rule, words: &mut Words<'_>) -> Rule {
    if words.take("&") {
        let bits = words.mark();
        words.expect("!= 0x00000000");
        return rule.any_bit(MARK, bits);
    }
    words.expect("set meta mark");
    match words.next() {
        "|" => rule.set_mark(words.mark()),
        "^" => rule.flip_mark(words.mark()),
        _ => words.unknown(),
    }
}

/// Parses a concatenation of fields.
fn fields(words: &mut Words<'_>) -> Vec<Field> {
    let mut fields = Vec::new();
    loop {
        let (of, what) = (words.next(), words.next());
        let family = if of == "ip6" { Family::V6 } else { Family::V4 };
        fields.push(match (of, what) {
            ("ip" | "ip6", "saddr") => Field::Source(family),
            ("ip" | "ip6", "daddr") => Field::Destination(family),
            ("meta", "l4proto") => Field::PROTOCOL,
            ("meta", "mark") => MARK,
            ("th", "dport") => Field::DestinationPort,
            _ => panic!("{of} {what} is not known as a field"),
        });
        if !words.take(".") {
            return fields;
        }
    }
}

fn set_name<'a>(words: &mut Words<'a>) -> &'a str {
    let word = words.next();
    word.strip_prefix('@').unwrap_or_else(|| panic!("{word} does not name a set"))
}

fn within(rule: Rule, field: Field, net: IpNet, negated: bool) -> Rule {
    let op = if negated { Comparison::NotEqual } else { Comparison::Equal };
    let (register, network) = (Register::FIRST, Value::from(net.network()));
    let rule = rule.load(&[field], register);
    let rule = match net.prefix_len() == net.max_prefix_len() {
        true => rule,
        false => rule.push(Expression::Bitwise {
            register,
            length: network.bytes().len() as u32,
            mask: Value::from(net.netmask()),
            xor: Value::new(&vec![0; network.bytes().len()]),
        }),
    };
    rule.push(Expression::Compare { from: register, op, with: network })
}

/// `{ A, B/n, … }`
fn blocks(words: &mut Words<'_>, of: Field) -> Set {
    words.expect("{");
    let family = if of.length() == 4 { Family::V4 } else { Family::V6 };
    let mut set = Set::new(SetSpec::new(&[DataType::address(family)]).with_intervals());
    while !words.take("}") {
        let net = block(words.next());
        set.elements.insert(Key::from(net.network()), Element::range_to(net.broadcast().into()));
        words.take(",");
    }
    set
}

/// `numgen random mod N map { 0 : …, 1 : … }` or `vmap`. Returns the map and the random field.
fn random_map(words: &mut Words<'_>, table: &mut Table, data: &[DataType]) -> (Arc<str>, Field) {
    words.expect("numgen random mod");
    let modulus = words.number();
    words.expect(if data == [DataType::Verdict] { "vmap" } else { "map" });
    words.expect("{");
    let mut map = Set::new(SetSpec::new(&[DataType::Mark]).with_data(data));
    while !words.take("}") {
        let (key, element) = element(words, &[DataType::Mark], data);
        map.elements.insert(key, element);
        words.take(",");
    }
    assert_eq!(map.elements.len(), modulus as usize, "a target for every number");
    (add_set(table, map), Field::Random { modulus, offset: 0 })
}

fn add_set(table: &mut Table, set: Set) -> Arc<str> {
    let name: Arc<str> = format!("__{}", table.sets.len()).into();
    table.sets.insert(Arc::clone(&name), set);
    name
}

/// `dnat to A:P`, or `dnat ip to numgen … map …`
fn dnat(rule: Rule, words: &mut Words<'_>, table: &mut Table) -> Rule {
    words.expect("dnat");
    let family = if table.family == TableFamily::Ip6 { Family::V6 } else { Family::V4 };
    let (address, port) = (Register(1), Register(1).after(DataType::address(family).length()));
    let expression = Expression::Dnat { family, address, port: Some(port) };
    if words.take("to") {
        let target: SocketAddr = words.number();
        let load = |value, to| Expression::Immediate { value, to };
        let rule = rule.push(load(Value::from(target.ip()), address));
        return rule.push(load(Value::from(target.port()), port)).push(expression);
    }
    words.expect(if family == Family::V6 { "ip6 to" } else { "ip to" });
    let (set, number) = random_map(words, table, &[DataType::address(family), DataType::InetService]);
    let key = Register::FIRST;
    rule.load(&[number], key)
        .push(Expression::Lookup { set, key, result: LookupResult::Data(address) })
        .push(expression)
}
