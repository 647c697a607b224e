//! Printing of rules in the format of `nft -y list`: evaluates the expressions with text instead of values in the registers.

use std::fmt::{self, Display, Formatter, Write};

use super::data::{Register, Value};
use super::data_type::{DataType, hexadecimal, protocol_name};
use super::expression::{Comparison, Expression, LookupResult, RateUnit, Reject};
use super::field::{Ct, CtState, FIB_BROADCAST, FIB_LOCAL, FIB_MULTICAST, Fib, Header, Meta};
use super::print::Span;
use super::rule::Rule;
use crate::Family;

/// The symbolic contents of a register.
#[derive(Clone)]
struct Operand {
    text: String,
    format: Format,
}

/// The format of constants that are compared with a register.
#[derive(Clone, Copy, PartialEq)]
enum Format {
    Typed(DataType),
    Family,
    State,
    FibType,
    Presence,
    Number,
}

/// The state of printing a rule.
#[derive(Default)]
struct Printer {
    registers: Vec<Option<Operand>>,
    /// The transport protocol that a previous expression matched.
    protocol: Option<u8>,
    /// A matched family that is not printed yet, because an address of the family implies it.
    implicit_family: Option<Family>,
    /// A matched transport protocol that is not printed yet, because a port of the protocol implies it.
    implicit_protocol: Option<u8>,
    /// The constant that the previous expression put into a register.
    constant: Option<Value>,
    out: Vec<String>,
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut printer = Printer { registers: vec![None; 20], ..Printer::default() };
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
                    printer.range(*from, with, &last, false)
                }
                _ => printer.step(expression),
            }
        }
        printer.print_implied();
        f.write_str(&printer.out.join(" "))?;
        match self.comment() {
            Some(comment) => write!(f, " comment \"{comment}\""),
            None => Ok(()),
        }
    }
}

impl Printer {
    fn print(&mut self, text: impl Into<String>) {
        self.out.push(text.into());
    }

    /// Prints the implicit family and protocol before something that does not imply them.
    fn print_implied(&mut self) {
        if let Some(family) = self.implicit_family.take() {
            self.print(format!("meta nfproto {}", if family == Family::V4 { "ipv4" } else { "ipv6" }));
        }
        if let Some(protocol) = self.implicit_protocol.take() {
            let name = protocol_name(protocol).map_or_else(|| protocol.to_string(), str::to_owned);
            self.print(format!("meta l4proto {name}"));
        }
    }

    fn put(&mut self, to: Register, text: impl Into<String>, format: Format) {
        if let Some(register) = self.registers.get_mut(usize::from(to.0)) {
            *register = Some(Operand { text: text.into(), format });
        }
    }

    /// Returns the contents of a register and those that follow it, and the first register after them.
    fn key(&self, from: Register) -> (String, usize) {
        let mut parts = Vec::new();
        let mut at = usize::from(from.0);
        while let Some(Some(part)) = self.registers.get(at) {
            parts.push(part.text.clone());
            at += match part.format {
                Format::Typed(part) => part.length().div_ceil(4),
                _ => 1,
            };
        }
        (parts.join(" . "), at)
    }

    fn take_key(&mut self, from: Register) -> String {
        let (key, end) = self.key(from);
        let from = usize::from(from.0);
        self.registers.iter_mut().take(end).skip(from).for_each(|register| *register = None);
        key
    }

    fn at(&self, from: Register) -> Option<&Operand> {
        self.registers.get(usize::from(from.0)).and_then(Option::as_ref)
    }

    fn range(&mut self, from: Register, first: &Value, last: &Value, negated: bool) {
        let Some(operand) = self.at(from).cloned() else { return };
        self.print_implied_unless_in_key();
        let not = if negated { "!= " } else { "" };
        let text = format!("{} {not}{}-{}", operand.text, operand.value(first), operand.value(last));
        self.registers[usize::from(from.0)] = None;
        self.print(text);
    }

    fn step(&mut self, expression: &Expression) {
        let constant = self.constant.take();
        match expression {
            Expression::Payload { header, offset, length, to } => {
                self.payload(*header, *offset, *length, *to)
            }
            Expression::Meta { key, to } => {
                let (text, format) = match key {
                    Meta::Priority => ("meta priority", Format::Typed(DataType::ClassId)),
                    Meta::Mark => ("meta mark", Format::Typed(DataType::Mark)),
                    Meta::Iif => ("iif", Format::Number),
                    Meta::Oif => ("oif", Format::Number),
                    Meta::IifName => ("iifname", Format::Typed(DataType::IfName)),
                    Meta::OifName => ("oifname", Format::Typed(DataType::IfName)),
                    Meta::NfProto => ("meta nfproto", Format::Family),
                    Meta::L4Proto => ("meta l4proto", Format::Typed(DataType::InetProto)),
                };
                self.put(*to, text, format);
            }
            Expression::SetMeta { key, from } => {
                let mut value = self.take_key(*from).replace('\0', " & ");
                if let (Some(constant), Meta::Priority) = (constant, key) {
                    value.clear();
                    _ = DataType::ClassId.print(constant.bytes(), &mut value);
                }
                self.print_implied();
                let name = if *key == Meta::Priority { "priority" } else { "mark" };
                self.print(format!("meta {name} set {value}"));
            }
            Expression::Ct { key, to } => {
                let (text, format) = match key {
                    Ct::State => ("ct state", Format::State),
                    Ct::Direction => ("ct direction", Format::Number),
                    Ct::Status => ("ct status", Format::Number),
                    Ct::Mark => ("ct mark", Format::Typed(DataType::Mark)),
                    Ct::OriginalDestinationPort => {
                        ("ct original proto-dst", Format::Typed(DataType::InetService))
                    }
                    Ct::OriginalIpv4Destination => {
                        ("ct original ip daddr", Format::Typed(DataType::Ipv4Addr))
                    }
                    Ct::OriginalIpv6Destination => {
                        ("ct original ip6 daddr", Format::Typed(DataType::Ipv6Addr))
                    }
                };
                self.put(*to, text, format);
            }
            Expression::Fib { of, to } => {
                let (text, format) = match of {
                    Fib::SourceRoute => ("fib saddr . iif oif", Format::Presence),
                    Fib::SourceType => ("fib saddr type", Format::FibType),
                    Fib::DestinationType => ("fib daddr type", Format::FibType),
                };
                self.put(*to, text, format);
            }
            Expression::Random { modulus, offset, to } => {
                let offset = if *offset > 0 { format!(" offset {offset}") } else { String::new() };
                self.put(*to, format!("numgen random mod {modulus}{offset}"), Format::Number);
            }
            Expression::Hash { from, modulus, seed, to, .. } => {
                let key = self.take_key(*from);
                self.put(*to, format!("jhash {key} mod {modulus} seed {seed:#x}"), Format::Number);
            }
            Expression::Immediate { value, to } => {
                self.constant = Some(*value);
                let mut text = String::new();
                let typed = match value.bytes().len() {
                    2 => DataType::InetService,
                    16 => DataType::Ipv6Addr,
                    1 => DataType::InetProto,
                    _ => DataType::Ipv4Addr,
                };
                _ = typed.print(value.bytes(), &mut text);
                self.put(*to, text, Format::Typed(typed));
            }
            Expression::Verdict(verdict) => {
                self.print_implied();
                self.print(verdict.to_string());
            }
            Expression::Compare { from, op, with } => self.compare(*from, *op, with),
            Expression::Range { from, negated, first, last } => self.range(*from, first, last, *negated),
            Expression::Bitwise { register, mask, xor, .. } => {
                let Some(operand) = self.at(*register).cloned() else { return };
                let all = |value: &Value, byte: u8| value.bytes().iter().all(|b| *b == byte);
                let sets = mask.bytes().iter().zip(xor.bytes()).all(|(mask, xor)| *mask == !xor);
                let text = match () {
                    // `value & mask != 0` matches any of several bits. NUL separates value and mask until the comparison.
                    () if all(xor, 0) => format!("{}\0{}", operand.text, operand.value(mask)),
                    () if sets => format!("{} | {}", operand.text, operand.value(xor)),
                    () if all(mask, 255) => format!("{} ^ {}", operand.text, operand.value(xor)),
                    () => format!("{} & {} ^ {}", operand.text, operand.value(mask), operand.value(xor)),
                };
                self.put(*register, text, operand.format);
            }
            Expression::Lookup { set, key, result } => {
                self.print_implied_unless_in_key();
                let key = self.take_key(*key);
                match result {
                    LookupResult::Found => self.print(format!("{key} @{set}")),
                    LookupResult::NotFound => self.print(format!("{key} != @{set}")),
                    LookupResult::Verdict => self.print(format!("{key} vmap @{set}")),
                    LookupResult::Data(to) => self.put(*to, format!("{key} map @{set}"), Format::Number),
                }
            }
            Expression::Dynset { set, op, key, data, timeout } => {
                self.print_implied_unless_in_key();
                let data = data.and_then(|data| self.at(data)).map(|operand| format!(" : {}", operand.text));
                let key = self.take_key(*key);
                let verb = ["add", "update", "delete"][*op as usize];
                let timeout = timeout.map(|timeout| format!(" timeout {}", Span(timeout)));
                let (timeout, data) = (timeout.unwrap_or_default(), data.unwrap_or_default());
                self.print(format!("{verb} @{set} {{ {key}{timeout}{data} }}"));
            }
            Expression::Counter => self.print_statement("counter"),
            Expression::NamedCounter(name) => self.print_statement(format!("counter name \"{name}\"")),
            Expression::Limit { rate, unit, burst } => {
                let unit = match unit {
                    RateUnit::Second => "second",
                    RateUnit::Minute => "minute",
                    RateUnit::Hour => "hour",
                };
                self.print_statement(format!("limit rate {rate}/{unit} burst {burst} packets"));
            }
            Expression::Log { group, prefix, length } => {
                let prefix = if prefix.is_empty() { String::new() } else { format!("prefix \"{prefix}\" ") };
                let length = if *length > 0 { format!(" snaplen {length}") } else { String::new() };
                self.print_statement(format!("log {prefix}group {group}{length}"));
            }
            Expression::Reject(Reject::TcpReset) => self.print_statement("reject with tcp reset"),
            Expression::Reject(Reject::IcmpxPortUnreachable | Reject::IcmpPortUnreachable(_)) => {
                self.print_statement("reject")
            }
            Expression::Dnat { family, address, port } => {
                let family = if *family == Family::V4 { "ip" } else { "ip6" };
                let (to, _) = self.key(*address);
                let port = port.filter(|port| port.0 != address.0);
                let port = port.and_then(|port| self.at(port)).map(|operand| format!(":{}", operand.text));
                self.print_statement(format!("dnat {family} to {to}{}", port.unwrap_or_default()));
            }
            Expression::Masquerade { random_fully: true } => self.print_statement("masquerade fully-random"),
            Expression::Masquerade { random_fully: false } => self.print_statement("masquerade"),
            Expression::Notrack => self.print_statement("notrack"),
            Expression::Unknown(name) => self.print_statement(format!("({name})")),
        }
    }

    fn print_statement(&mut self, text: impl Into<String>) {
        self.print_implied();
        self.print(text);
    }

    /// Prints the implicit family and protocol unless loaded fields imply them.
    fn print_implied_unless_in_key(&mut self) {
        let is_loaded =
            |start: &str| self.registers.iter().flatten().any(|operand| operand.text.starts_with(start));
        if is_loaded("ip ") || is_loaded("ip6 ") {
            self.implicit_family = None;
        }
        if self.implicit_family == Some(Family::V6) && is_loaded("icmpv6 ") {
            self.implicit_family = None;
        }
        let is_implied = match self.implicit_protocol.and_then(protocol_name) {
            Some("ipv6-icmp") => is_loaded("icmpv6 "),
            Some(name) => is_loaded(&format!("{name} ")),
            None => false,
        };
        if is_implied {
            self.implicit_protocol = None;
        }
        self.print_implied();
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
            Some((text, of)) => self.put(to, text, Format::Typed(of)),
            None if header == Header::Transport && (offset, length) == (0, 1) => {
                let text = if name == "ipv6-icmp" { "icmpv6 type" } else { "icmp type" };
                self.put(to, text, Format::Typed(DataType::InetProto));
            }
            None => {
                let header = match header {
                    Header::Link => "ll",
                    Header::Network => "nh",
                    Header::Transport => "th",
                };
                // In bits. Rules of other processes may have any numbers here.
                let [offset, length] = [offset, length].map(|bytes| u64::from(bytes) * 8);
                self.put(to, format!("@{header},{offset},{length}"), Format::Number);
            }
        }
    }

    fn compare(&mut self, from: Register, op: Comparison, with: &Value) {
        let Some(operand) = self.at(from).cloned() else { return };
        if op == Comparison::Equal && operand.format == Format::Family {
            self.implicit_family = with.bytes().first().and_then(|number| Family::from_number(*number));
            self.registers[usize::from(from.0)] = None;
            return;
        }
        if op == Comparison::Equal && operand.text == "meta l4proto" {
            self.protocol = with.bytes().first().copied();
            self.implicit_protocol = self.protocol;
            self.registers[usize::from(from.0)] = None;
            return;
        }
        self.print_implied_unless_in_key();
        self.registers[usize::from(from.0)] = None;
        let zero = with.bytes().iter().all(|byte| *byte == 0);
        let text = match operand.text.split_once('\0') {
            Some((value, mask)) if operand.format == Format::State && op == Comparison::NotEqual && zero => {
                format!("{value} {mask}")
            }
            Some((value, mask)) => format!("{value} & {mask} {} {}", op.symbol(), operand.value(with)),
            None if op == Comparison::Equal => format!("{} {}", operand.text, operand.value(with)),
            None => format!("{} {} {}", operand.text, op.symbol(), operand.value(with)),
        };
        self.print(text);
    }
}

impl Operand {
    fn value(&self, value: &Value) -> String {
        let mut text = String::new();
        let number = <[u8; 4]>::try_from(value.bytes()).map(u32::from_ne_bytes);
        _ = match (self.format, number) {
            (Format::Typed(DataType::InetProto), _) if self.text.starts_with("icmp") => {
                write!(text, "{}", value.bytes().first().copied().unwrap_or_default())
            }
            (Format::Typed(_), _) if self.text == "ether type" => match value.bytes() {
                [0x08, 0x00] => text.write_str("ip"),
                [0x86, 0xdd] => text.write_str("ip6"),
                [0x08, 0x06] => text.write_str("arp"),
                bytes => hexadecimal(bytes, &mut text),
            },
            (Format::Typed(of), _) => of.print(value.bytes(), &mut text),
            (Format::State, Ok(bits)) => {
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
            (Format::Presence, _) => text.write_str(if value.bytes() == [0] { "missing" } else { "exists" }),
            (Format::FibType, Ok(FIB_LOCAL)) => text.write_str("local"),
            (Format::FibType, Ok(FIB_BROADCAST)) => text.write_str("broadcast"),
            (Format::FibType, Ok(FIB_MULTICAST)) => text.write_str("multicast"),
            (_, Ok(number)) => write!(text, "{number}"),
            (_, Err(_)) => hexadecimal(value.bytes(), &mut text),
        };
        text
    }
}

impl Comparison {
    fn symbol(self) -> &'static str {
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
