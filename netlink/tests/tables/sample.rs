//! A table with every kind of thing in it that we write.

use std::net::IpAddr;
use std::sync::Arc;

use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{
    BaseChain, Chain, ChainKind, Comparison, CtState, DataType, Element, Expression, Field, Hook, Key, Meta,
    Register, Reject, Rule, Set, SetSpec, Table, TableFamily, Verdict,
};

pub(crate) const NAME: &str = "sample";

pub(crate) fn key(address: &str) -> Key {
    address.parse::<IpAddr>().unwrap().into()
}

fn range(first: &str, last: &str) -> (Key, Element) {
    (key(first), Element::range_to(key(last)))
}

pub(crate) fn sample() -> Table {
    let mut table = Table::new(TableFamily::Inet, NAME);
    table.comment = Some("a sample".into());
    table.counters.insert("dropped".into(), Some("what is dropped".into()));
    let mut set = |name: &str, spec: SetSpec, elements: Vec<(Key, Element)>| {
        table.sets.insert(name.into(), Set::with_elements(spec, elements));
    };
    let (v4, v6) = (DataType::Ipv4Addr, DataType::Ipv6Addr);
    let (protocol, port) = (DataType::InetProto, DataType::InetService);
    let verdict = |verdict| Element::verdict(verdict);
    set("peers", SetSpec::new(&[v4]).with_comment("pods app=web"), vec![(key("10.0.0.1"), Element::new())]);
    set("peers6", SetSpec::new(&[v6]), vec![(key("fd00::1"), Element::new())]);
    set("named", SetSpec::new(&[v4, port]), vec![(key("10.0.0.1").port(80), Element::new())]);
    set(
        "blocks",
        SetSpec::new(&[v4]).with_intervals(),
        vec![
            range("10.0.0.0", "10.0.0.255"),
            range("10.0.1.1", "10.0.1.9"),
            range("224.0.0.0", "255.255.255.255"),
        ],
    );
    set("blocks6", SetSpec::new(&[v6]).with_intervals(), vec![range("fd00::", "fd00::ffff")]);
    set("every", SetSpec::new(&[v4]).with_intervals(), vec![range("0.0.0.0", "255.255.255.255")]);
    let ranged = |first: (&str, u16), last: (&str, u16)| {
        (key(first.0).port(first.1), Element::range_to(key(last.0).port(last.1)))
    };
    set(
        "sources",
        SetSpec::new(&[v4, port]).with_intervals(),
        vec![ranged(("10.0.0.0", 80), ("10.0.0.255", 80)), ranged(("10.0.0.0", 90), ("10.0.0.9", 99))],
    );
    set(
        "pods",
        SetSpec::verdict_map(&[v4]),
        vec![(key("10.0.0.5"), verdict(Verdict::goto("profile"))), (key("10.0.0.6"), verdict(Verdict::Drop))],
    );
    let service = |address: &str, number: u16| key(address).protocol(6).port(number);
    set(
        "services",
        SetSpec::verdict_map(&[v4, protocol, port]),
        vec![(service("10.96.0.1", 443), verdict(Verdict::jump("lb")))],
    );
    set(
        "endpoints",
        SetSpec::new(&[v4, protocol, port, DataType::Mark]).with_data(&[v4, port]),
        vec![(service("10.96.0.1", 443).number(1), Element::value(key("10.0.0.5").port(6443)))],
    );
    set(
        "affinity",
        SetSpec {
            dynamic: true,
            timeout: Some(10_800_000),
            size: Some(65535),
            ..SetSpec::new(&[v4, v4, port])
        },
        Vec::new(),
    );
    // Without elements, whose counters nft prints with their values.
    set("counted", SetSpec::new(&[v4]).with_counters(), Vec::new());
    for (name, chain) in chains() {
        table.chains.insert(name.into(), chain);
    }
    table
}

fn chains() -> Vec<(&'static str, Chain)> {
    let base = |kind, hook, priority, rules| Chain {
        base: Some(BaseChain { kind, hook, priority }),
        ..Chain::new(rules)
    };
    let saddr = Field::Source(Family::V4);
    let daddr = Field::Destination(Family::V4);
    let (protocol, dport) = (Field::PROTOCOL, Field::DestinationPort);
    let filter = vec![
        Rule::new().ct_state(CtState::ESTABLISHED | CtState::RELATED).then(Verdict::Accept),
        Rule::new().protocol(58).between(Field::IcmpType, 133u8, 137u8).then(Verdict::Accept),
        Rule::new().sent_locally().then(Verdict::Accept).with_comment("this node's own"),
        Rule::new().family(Family::V4).verdict_map(&[saddr], "pods"),
        Rule::new().then(Verdict::goto("profile")),
    ];
    let profile = vec![
        Rule::new()
            .family(Family::V4)
            .is_in(&[saddr], "peers")
            .protocol(6)
            .is(dport, 80u16)
            .then(Verdict::Accept),
        Rule::new().family(Family::V6).is_in(&[Field::Source(Family::V6)], "peers6").then(Verdict::Accept),
        Rule::new().family(Family::V4).protocol(17).is_in(&[daddr, dport], "named").then(Verdict::Return),
        Rule::new()
            .family(Family::V4)
            .is_not_in(&[saddr], "blocks")
            .protocol(132)
            .between(dport, 1u16, 90u16),
        Rule::new().family(Family::V6).is_in(&[Field::Source(Family::V6)], "blocks6").counter("dropped"),
        Rule::new().family(Family::V4).is_in(&[saddr], "every").then(Verdict::Continue),
        Rule::new().family(Family::V4).is_in(&[saddr, dport], "sources").then(Verdict::Accept),
        Rule::new().source("10.1.2.3".parse().unwrap()).then(Verdict::Drop),
        Rule::new().destination("fd00::9".parse().unwrap()).then(Verdict::Drop),
        Rule::new()
            .compare(Field::Meta(Meta::IifName), Comparison::NotEqual, ifname("eth0"))
            .then(Verdict::Drop),
        Rule::new().family(Family::V4).is_in(&[saddr], "peers").set_mark(0x4000),
        Rule::new().limit_per_second(10, 20).log(5, "drop a/b", 128),
        Rule::new().push(Expression::Counter).counter("dropped").then(Verdict::Drop).with_comment("the rest"),
    ];
    // Not where packets leave: the kernel answers none there.
    let rejecting = vec![
        Rule::new().protocol(6).reject(Reject::TcpReset),
        Rule::new().reject(Reject::IcmpxPortUnreachable),
    ];
    let (number, to) = (Field::Random { modulus: 2, offset: 7 }, Register(0));
    let key = [daddr, protocol, dport];
    let lb = vec![
        Rule::new().family(Family::V4).update_set(&[saddr, daddr, dport], "affinity"),
        Rule::new()
            .family(Family::V4)
            .map(&[daddr, protocol, dport, number], "endpoints", to)
            .push(Expression::Dnat { family: Family::V4, address: to, port: Some(to.after(4)) }),
    ];
    let mark = Rule::new()
        .any_bit(Field::Meta(Meta::Mark), 0x4000)
        .flip_mark(0x4000)
        .push(Expression::Masquerade { random_fully: true });
    vec![
        ("forward", base(ChainKind::Filter, Hook::Postrouting, 99, filter)),
        ("profile", Chain::new(profile).with_comment("of a pod")),
        ("lb", Chain::new(lb)),
        ("rejecting", Chain::new(rejecting)),
        (
            "dispatch",
            base(
                ChainKind::Nat,
                Hook::Prerouting,
                -100,
                vec![Rule::new().family(Family::V4).verdict_map(&key, "services")],
            ),
        ),
        ("masquerade", base(ChainKind::Nat, Hook::Postrouting, 100, vec![mark])),
    ]
}

fn ifname(name: &str) -> portcullis_netlink::nf_tables::Value {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    portcullis_netlink::nf_tables::Value::new(&bytes)
}

/// A name as tables keep it.
pub(crate) fn name(text: &str) -> Arc<str> {
    text.into()
}
