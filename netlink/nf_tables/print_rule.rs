//! Rules as `nft -y list` prints them: worked through expression by expression as the kernel does, with words in the
//! registers instead of values.

use std::fmt::{self, Display, Formatter, Write};

use super::data::{Register, Value};
use super::data_type::{DataType, hexadecimal, protocol_name};
use super::expression::{Comparison, Expression, LookupResult, RateUnit, Reject};
use super::field::{Ct, CtState, FIB_BROADCAST, FIB_LOCAL, FIB_MULTICAST, Fib, Header, Meta};
use super::print::Span;
use super::rule::Rule;
use crate::Family;

/// What a register holds, in words.
#[derive(Clone)]
struct Words {
    text: String,
    meaning: Response,
}

/// How values that it is compared with are written.
#[derive(Clone, Copy, PartialEq)]
enum Response {
    Typed(DataType),
    Family,
    State,
    FibType,
    Number,
}

/// A rule on its way through its expressions.
#[derive(Default)]
struct Reading {
    registers: Vec<Option<Words>>,
    /// The transport protocol is known to be this.
    protocol: Option<u8>,
    /// The family is known, and was not said yet: an address of that family says it.
    family: Option<Family>,
    /// The transport protocol was not said yet: a port of it says it.
    unsaid: Option<u8>,
    out: Vec<String>,
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut reading = Reading { registers: vec![None; 20], ..Reading::default() };
        let mut expressions = self.expressions().iter().peekable();
        while let Some(expression) = expressions.next() {
            // Two comparisons of one register are a range.
            let upper = match (expression, expressions.peek()) {
                (
                    Expression::Compare { from, op: Comparison::AtLeast, .. },
                    Some(Expression::Compare { from: same, op: Comparison::AtMost, with }),
                ) if from == same => Some(*with),
                _ => None,
            };
            match (expression, upper) {
                (Expression::Compare { from, with, .. }, Some(last)) => {
                    expressions.next();
                    reading.range(*from, with, &last, false)
                }
                _ => reading.step(expression),
            }
        }
        reading.say_what_is_unsaid();
        f.write_str(&reading.out.join(" "))?;
        match self.comment() {
            Some(comment) => write!(f, " comment \"{comment}\""),
            None => Ok(()),
        }
    }
}

impl Reading {
    fn say(&mut self, text: impl Into<String>) {
        self.out.push(text.into());
    }

    /// Says the family and the protocol, before something that does not imply them.
    fn say_what_is_unsaid(&mut self) {
        if let Some(family) = self.family.take() {
            self.say(format!("meta nfproto {}", if family == Family::V4 { "ipv4" } else { "ipv6" }));
        }
        if let Some(protocol) = self.unsaid.take() {
            let name = protocol_name(protocol).map_or_else(|| protocol.to_string(), str::to_owned);
            self.say(format!("meta l4proto {name}"));
        }
    }

    fn put(&mut self, to: Register, text: impl Into<String>, meaning: Response) {
        if let Some(register) = self.registers.get_mut(usize::from(to.0)) {
            *register = Some(Words { text: text.into(), meaning });
        }
    }

    /// What is in a register, and in those that were loaded behind it.
    fn key(&self, from: Register) -> String {
        let mut words = Vec::new();
        let mut at = usize::from(from.0);
        while let Some(Some(part)) = self.registers.get(at) {
            words.push(part.text.clone());
            at += match part.meaning {
                Response::Typed(part) => part.length().div_ceil(4),
                _ => 1,
            };
        }
        words.join(" . ")
    }

    fn take_key(&mut self, from: Register) -> String {
        let key = self.key(from);
        self.registers.iter_mut().skip(from.0.into()).for_each(|register| *register = None);
        key
    }

    fn at(&self, from: Register) -> Option<&Words> {
        self.registers.get(usize::from(from.0)).and_then(Option::as_ref)
    }

    fn range(&mut self, from: Register, first: &Value, last: &Value, negated: bool) {
        let Some(words) = self.at(from).cloned() else { return };
        self.say_what_is_unsaid_for_keys();
        let not = if negated { "!= " } else { "" };
        let text = format!("{} {not}{}-{}", words.text, words.value(first), words.value(last));
        self.registers[usize::from(from.0)] = None;
        self.say(text);
    }

    fn step(&mut self, expression: &Expression) {
        match expression {
            Expression::Payload { header, offset, length, to } => {
                self.payload(*header, *offset, *length, *to)
            }
            Expression::Meta { key, to } => {
                let (text, meaning) = match key {
                    Meta::Priority => ("meta priority", Response::Typed(DataType::ClassId)),
                    Meta::Mark => ("meta mark", Response::Typed(DataType::Mark)),
                    Meta::Iif => ("iif", Response::Number),
                    Meta::Oif => ("oif", Response::Number),
                    Meta::IifName => ("iifname", Response::Typed(DataType::IfName)),
                    Meta::OifName => ("oifname", Response::Typed(DataType::IfName)),
                    Meta::NfProto => ("meta nfproto", Response::Family),
                    Meta::L4Proto => ("meta l4proto", Response::Typed(DataType::InetProto)),
                };
                self.put(*to, text, meaning);
            }
            Expression::SetMeta { key, from } => {
                let value = self.take_key(*from).replace('\0', " & ");
                self.say_what_is_unsaid();
                let name = if *key == Meta::Priority { "priority" } else { "mark" };
                self.say(format!("meta {name} set {value}"));
            }
            Expression::Ct { key, to } => {
                let (text, meaning) = match key {
                    Ct::State => ("ct state", Response::State),
                    Ct::Direction => ("ct direction", Response::Number),
                    Ct::Status => ("ct status", Response::Number),
                    Ct::Mark => ("ct mark", Response::Typed(DataType::Mark)),
                };
                self.put(*to, text, meaning);
            }
            Expression::Fib { of, to } => {
                let of = if *of == Fib::SourceType { "saddr" } else { "daddr" };
                self.put(*to, format!("fib {of} type"), Response::FibType);
            }
            Expression::Random { modulus, offset, to } => {
                let offset = if *offset > 0 { format!(" offset {offset}") } else { String::new() };
                self.put(*to, format!("numgen random mod {modulus}{offset}"), Response::Number);
            }
            Expression::Hash { from, modulus, seed, to, .. } => {
                let key = self.take_key(*from);
                self.put(*to, format!("jhash {key} mod {modulus} seed {seed:#x}"), Response::Number);
            }
            Expression::Immediate { value, to } => {
                let mut text = String::new();
                let typed = match value.bytes().len() {
                    2 => DataType::InetService,
                    16 => DataType::Ipv6Addr,
                    1 => DataType::InetProto,
                    _ => DataType::Ipv4Addr,
                };
                _ = typed.print(value.bytes(), &mut text);
                self.put(*to, text, Response::Typed(typed));
            }
            Expression::Verdict(verdict) => {
                self.say_what_is_unsaid();
                self.say(verdict.to_string());
            }
            Expression::Compare { from, op, with } => self.compare(*from, *op, with),
            Expression::Range { from, negated, first, last } => self.range(*from, first, last, *negated),
            Expression::Bitwise { register, mask, xor, .. } => {
                let Some(words) = self.at(*register).cloned() else { return };
                let all = |value: &Value, byte: u8| value.bytes().iter().all(|b| *b == byte);
                let sets = mask.bytes().iter().zip(xor.bytes()).all(|(mask, xor)| *mask == !xor);
                let text = match () {
                    // "value & mask != 0" is how several bits are asked for.
                    () if all(xor, 0) => format!("{}\0{}", words.text, words.value(mask)),
                    () if sets => format!("{} | {}", words.text, words.value(xor)),
                    () if all(mask, 255) => format!("{} ^ {}", words.text, words.value(xor)),
                    () => format!("{} & {} ^ {}", words.text, words.value(mask), words.value(xor)),
                };
                self.put(*register, text, words.meaning);
            }
            Expression::Lookup { set, key, result } => {
                self.say_what_is_unsaid_for_keys();
                let key = self.take_key(*key);
                match result {
                    LookupResult::Found => self.say(format!("{key} @{set}")),
                    LookupResult::NotFound => self.say(format!("{key} != @{set}")),
                    LookupResult::Verdict => self.say(format!("{key} vmap @{set}")),
                    LookupResult::Data(to) => self.put(*to, format!("{key} map @{set}"), Response::Number),
                }
            }
            Expression::Dynset { set, op, key, data, timeout } => {
                self.say_what_is_unsaid_for_keys();
                let data = data.and_then(|data| self.at(data)).map(|words| format!(" : {}", words.text));
                let key = self.take_key(*key);
                let verb = ["add", "update", "delete"][*op as usize];
                let timeout = timeout.map(|timeout| format!(" timeout {}", Span(timeout)));
                let (timeout, data) = (timeout.unwrap_or_default(), data.unwrap_or_default());
                self.say(format!("{verb} @{set} {{ {key}{timeout}{data} }}"));
            }
            Expression::Counter => self.say_last("counter"),
            Expression::NamedCounter(name) => self.say_last(format!("counter name \"{name}\"")),
            Expression::Limit { rate, unit, burst } => {
                let unit = match unit {
                    RateUnit::Second => "second",
                    RateUnit::Minute => "minute",
                    RateUnit::Hour => "hour",
                };
                self.say_last(format!("limit rate {rate}/{unit} burst {burst} packets"));
            }
            Expression::Log { group, prefix, length } => {
                let prefix = if prefix.is_empty() { String::new() } else { format!("prefix \"{prefix}\" ") };
                let length = if *length > 0 { format!(" snaplen {length}") } else { String::new() };
                self.say_last(format!("log {prefix}group {group}{length}"));
            }
            Expression::Reject(Reject::TcpReset) => self.say_last("reject with tcp reset"),
            Expression::Reject(Reject::IcmpxPortUnreachable | Reject::IcmpPortUnreachable(_)) => {
                self.say_last("reject")
            }
            Expression::Dnat { family, address, port } => {
                let family = if *family == Family::V4 { "ip" } else { "ip6" };
                let to = self.key(*address);
                let port = port.filter(|port| port.0 != address.0);
                let port = port.and_then(|port| self.at(port)).map(|words| format!(":{}", words.text));
                self.say_last(format!("dnat {family} to {to}{}", port.unwrap_or_default()));
            }
            Expression::Masquerade { random_fully: true } => self.say_last("masquerade fully-random"),
            Expression::Masquerade { random_fully: false } => self.say_last("masquerade"),
            Expression::Notrack => self.say_last("notrack"),
            Expression::Unknown(name) => self.say_last(format!("({name})")),
        }
    }

    fn say_last(&mut self, text: impl Into<String>) {
        self.say_what_is_unsaid();
        self.say(text);
    }

    /// A key of a family's addresses says the family itself.
    fn say_what_is_unsaid_for_keys(&mut self) {
        let says = |start: &str| self.registers.iter().flatten().any(|words| words.text.starts_with(start));
        if says("ip ") || says("ip6 ") {
            self.family = None;
        }
        if self.family == Some(Family::V6) && says("icmpv6 ") {
            self.family = None;
        }
        let said = match self.unsaid.and_then(protocol_name) {
            Some("ipv6-icmp") => says("icmpv6 "),
            Some(name) => says(&format!("{name} ")),
            None => false,
        };
        if said {
            self.unsaid = None;
        }
        self.say_what_is_unsaid();
    }

    fn payload(&mut self, header: Header, offset: u32, length: u32, to: Register) {
        let name = self.protocol.and_then(protocol_name).unwrap_or("th");
        let known = match (header, offset, length) {
            (Header::Link, 12, 2) => Some(("ether type".to_owned(), DataType::InetService)),
            (Header::Network, 12, 4) => Some(("ip saddr".to_owned(), DataType::Ipv4Addr)),
            (Header::Network, 16, 4) => Some(("ip daddr".to_owned(), DataType::Ipv4Addr)),
            (Header::Network, 8, 16) => Some(("ip6 saddr".to_owned(), DataType::Ipv6Addr)),
            (Header::Network, 24, 16) => Some(("ip6 daddr".to_owned(), DataType::Ipv6Addr)),
            (Header::Transport, 0, 2) => Some((format!("{name} sport"), DataType::InetService)),
            (Header::Transport, 2, 2) => Some((format!("{name} dport"), DataType::InetService)),
            _ => None,
        };
        match known {
            Some((text, of)) => self.put(to, text, Response::Typed(of)),
            None if header == Header::Transport && (offset, length) == (0, 1) => {
                let text = if name == "ipv6-icmp" { "icmpv6 type" } else { "icmp type" };
                self.put(to, text, Response::Typed(DataType::InetProto));
            }
            None => {
                let header = match header {
                    Header::Link => "ll",
                    Header::Network => "nh",
                    Header::Transport => "th",
                };
                self.put(to, format!("@{header},{},{}", offset * 8, length * 8), Response::Number);
            }
        }
    }

    fn compare(&mut self, from: Register, op: Comparison, with: &Value) {
        let Some(words) = self.at(from).cloned() else { return };
        if op == Comparison::Equal && words.meaning == Response::Family {
            self.family = with.bytes().first().and_then(|number| Family::from_number(*number));
            self.registers[usize::from(from.0)] = None;
            return;
        }
        if op == Comparison::Equal && words.text == "meta l4proto" {
            self.protocol = with.bytes().first().copied();
            self.unsaid = self.protocol;
            self.registers[usize::from(from.0)] = None;
            return;
        }
        self.say_what_is_unsaid_for_keys();
        self.registers[usize::from(from.0)] = None;
        let zero = with.bytes().iter().all(|byte| *byte == 0);
        let text = match words.text.split_once('\0') {
            Some((value, mask)) if words.meaning == Response::State && op == Comparison::NotEqual && zero => {
                format!("{value} {mask}")
            }
            Some((value, mask)) => format!("{value} & {mask} {} {}", op.words(), words.value(with)),
            None if op == Comparison::Equal => format!("{} {}", words.text, words.value(with)),
            None => format!("{} {} {}", words.text, op.words(), words.value(with)),
        };
        self.say(text);
    }
}

impl Words {
    fn value(&self, value: &Value) -> String {
        let mut text = String::new();
        let number = <[u8; 4]>::try_from(value.bytes()).map(u32::from_ne_bytes);
        _ = match (self.meaning, number) {
            (Response::Typed(DataType::InetProto), _) if self.text.starts_with("icmp") => {
                write!(text, "{}", value.bytes().first().copied().unwrap_or_default())
            }
            (Response::Typed(_), _) if self.text == "ether type" => match value.bytes() {
                [0x08, 0x00] => text.write_str("ip"),
                [0x86, 0xdd] => text.write_str("ip6"),
                [0x08, 0x06] => text.write_str("arp"),
                bytes => hexadecimal(bytes, &mut text),
            },
            (Response::Typed(of), _) => of.print(value.bytes(), &mut text),
            (Response::State, Ok(bits)) => {
                let names = [
                    (CtState::INVALID, "invalid"),
                    (CtState::ESTABLISHED, "established"),
                    (CtState::RELATED, "related"),
                    (CtState::NEW, "new"),
                    (CtState::UNTRACKED, "untracked"),
                ];
                let set = names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name);
                write!(text, "{}", set.collect::<Vec<_>>().join(","))
            }
            (Response::FibType, Ok(FIB_LOCAL)) => text.write_str("local"),
            (Response::FibType, Ok(FIB_BROADCAST)) => text.write_str("broadcast"),
            (Response::FibType, Ok(FIB_MULTICAST)) => text.write_str("multicast"),
            (_, Ok(number)) => write!(text, "{number}"),
            (_, Err(_)) => hexadecimal(value.bytes(), &mut text),
        };
        text
    }
}

impl Comparison {
    fn words(self) -> &'static str {
        match self {
            Comparison::Equal => "==",
            Comparison::NotEqual => "!=",
            Comparison::Less => "<",
            Comparison::AtMost => "<=",
            Comparison::Greater => ">",
            Comparison::AtLeast => ">=",
        }
    }
}
