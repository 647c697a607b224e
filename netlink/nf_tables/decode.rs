//! Decoding of expressions from netlink attributes.
//!
//! The kernel lists all attributes of an expression, including those that its sender omitted. An expression with unknown
//! attributes or values, or one that cannot be decoded, becomes [`Expression::Unknown`], so that rules of other processes
//! do not make a table unreadable.

use super::constants::{attributes as a, *};
use super::data::{Data, Register, VERDICT_REGISTER, Value};
use super::expression::{Comparison, DynsetOp, Expression, LookupResult, RateUnit, Reject};
use super::field::{Ct, Fib, Header, Meta};
use crate::Family;
use crate::attribute::{Attribute, Malformed};

/// The attributes of an expression by number.
struct ExpressionAttributes<'a> {
    by_kind: [Option<Attribute<'a>>; 16],
}

impl<'a> ExpressionAttributes<'a> {
    fn read(data: Option<Attribute<'a>>) -> Result<Self, Malformed> {
        let mut by_kind = [None; 16];
        for attribute in data.iter().flat_map(Attribute::nested) {
            let attribute = attribute?;
            if let Some(place) = by_kind.get_mut(usize::from(attribute.kind)) {
                *place = Some(attribute);
            }
        }
        Ok(ExpressionAttributes { by_kind })
    }

    fn has(&self, kind: u16) -> bool {
        self.by_kind[usize::from(kind)].is_some()
    }

    fn get(&self, kind: u16) -> Result<Attribute<'a>, Malformed> {
        self.by_kind[usize::from(kind)].ok_or(Malformed::Missing("an expression's attribute"))
    }

    fn number(&self, kind: u16) -> Result<u32, Malformed> {
        self.get(kind)?.u32_be()
    }

    /// Returns a number that is 0 if omitted.
    fn number_or_0(&self, kind: u16) -> Result<u32, Malformed> {
        if self.has(kind) { self.number(kind) } else { Ok(0) }
    }

    fn register(&self, kind: u16) -> Result<Register, Malformed> {
        Register::read(&self.get(kind)?)
    }

    fn optional_register(&self, kind: u16) -> Result<Option<Register>, Malformed> {
        if self.has(kind) { self.register(kind).map(Some) } else { Ok(None) }
    }

    fn value(&self, kind: u16) -> Result<Value, Malformed> {
        Data::read(&self.get(kind)?)?.value()
    }

    fn text(&self, kind: u16) -> Result<String, Malformed> {
        Ok(self.get(kind)?.text())
    }
}

impl Expression {
    /// Decodes an element of a rule's expression list.
    pub(super) fn read(element: &Attribute<'_>) -> Self {
        let (mut name, mut data) = (String::new(), None);
        for attribute in element.nested().flatten() {
            match attribute.kind {
                a::EXPR_NAME => name = attribute.text(),
                a::EXPR_DATA => data = Some(attribute),
                _ => {}
            }
        }
        // Extensions of xtables in rules of iptables-nft.
        if matches!(name.as_str(), "match" | "target")
            && let Some(data) = data
        {
            return Expression::Unknown(describe_extension(&name, data));
        }
        let known = ExpressionAttributes::read(data).and_then(|found| read(&name, &found));
        known.ok().flatten().unwrap_or(Expression::Unknown(name))
    }
}

/// Describes an extension of xtables: its name, and the text of a comment.
fn describe_extension(kind: &str, data: Attribute<'_>) -> String {
    let find = |kind| data.nested().flatten().find(|attribute| attribute.kind == kind);
    let name = find(a::XT_NAME).map(|name| name.text()).unwrap_or_default();
    match find(a::XT_INFO).filter(|_| (kind, name.as_str()) == ("match", "comment")) {
        Some(comment) => format!("xt comment \"{}\"", comment.text()),
        None => format!("xt {kind} {name}"),
    }
}

fn read(name: &str, found: &ExpressionAttributes<'_>) -> Result<Option<Expression>, Malformed> {
    Ok(Some(match name {
        "payload" if found.has(a::PAYLOAD_DREG) => {
            let header = match found.number(a::PAYLOAD_BASE)? {
                0 => Header::Link,
                1 => Header::Network,
                2 => Header::Transport,
                _ => return Ok(None),
            };
            let (offset, length) = (found.number(a::PAYLOAD_OFFSET)?, found.number(a::PAYLOAD_LEN)?);
            Expression::Payload { header, offset, length, to: found.register(a::PAYLOAD_DREG)? }
        }
        "meta" => {
            let Some(key) = Meta::from_number(found.number(a::META_KEY)?) else { return Ok(None) };
            match found.optional_register(a::META_DREG)? {
                Some(to) => Expression::Meta { key, to },
                None => Expression::SetMeta { key, from: found.register(a::META_SREG)? },
            }
        }
        "ct" if !found.has(a::CT_SREG) => {
            let is_original = match found.has(a::CT_DIRECTION) {
                true if found.get(a::CT_DIRECTION)?.u8()? != CT_ORIGINAL => return Ok(None),
                is_directed => is_directed,
            };
            let key =
                Ct::from_number(found.number(a::CT_KEY)?).filter(|key| key.is_original() == is_original);
            let Some(key) = key else { return Ok(None) };
            Expression::Ct { key, to: found.register(a::CT_DREG)? }
        }
        "fib" => {
            const SOURCE_ROUTE: u32 = FIB_SADDR | FIB_IIF | FIB_PRESENT;
            let of = match (found.number(a::FIB_RESULT)?, found.number(a::FIB_FLAGS)?) {
                (FIB_RESULT_OIF, SOURCE_ROUTE) => Fib::SourceRoute,
                (FIB_RESULT_ADDRTYPE, FIB_SADDR) => Fib::SourceType,
                (FIB_RESULT_ADDRTYPE, FIB_DADDR) => Fib::DestinationType,
                _ => return Ok(None),
            };
            Expression::Fib { of, to: found.register(a::FIB_DREG)? }
        }
        "numgen" if found.number(a::NG_TYPE)? == NG_RANDOM => {
            let (modulus, offset) = (found.number(a::NG_MODULUS)?, found.number_or_0(a::NG_OFFSET)?);
            Expression::Random { modulus, offset, to: found.register(a::NG_DREG)? }
        }
        "hash" if found.number_or_0(a::HASH_TYPE)? == HASH_JENKINS => Expression::Hash {
            from: found.register(a::HASH_SREG)?,
            length: found.number(a::HASH_LEN)?,
            modulus: found.number(a::HASH_MODULUS)?,
            seed: found.number_or_0(a::HASH_SEED)?,
            to: found.register(a::HASH_DREG)?,
        },
        "immediate" if found.number(a::IMMEDIATE_DREG)? == VERDICT_REGISTER => {
            match Data::read(&found.get(a::IMMEDIATE_DATA)?)? {
                Data::Verdict(verdict) => Expression::Verdict(verdict),
                Data::Bytes(_) => return Ok(None),
            }
        }
        "immediate" => Expression::Immediate {
            value: found.value(a::IMMEDIATE_DATA)?,
            to: found.register(a::IMMEDIATE_DREG)?,
        },
        "cmp" => {
            let Some(op) = Comparison::from_number(found.number(a::CMP_OP)?) else { return Ok(None) };
            Expression::Compare { from: found.register(a::CMP_SREG)?, op, with: found.value(a::CMP_DATA)? }
        }
        "range" => Expression::Range {
            from: found.register(a::RANGE_SREG)?,
            negated: found.number(a::RANGE_OP)? != 0,
            first: found.value(a::RANGE_FROM)?,
            last: found.value(a::RANGE_TO)?,
        },
        "bitwise" if found.number_or_0(a::BITWISE_OP)? == 0 => {
            let register = found.register(a::BITWISE_SREG)?;
            if found.register(a::BITWISE_DREG)? != register {
                return Ok(None);
            }
            let (mask, xor) = (found.value(a::BITWISE_MASK)?, found.value(a::BITWISE_XOR)?);
            Expression::Bitwise { register, length: found.number(a::BITWISE_LEN)?, mask, xor }
        }
        "lookup" => {
            let result = if found.has(a::LOOKUP_DREG) {
                match found.number(a::LOOKUP_DREG)? {
                    VERDICT_REGISTER => LookupResult::Verdict,
                    _ => LookupResult::Data(found.register(a::LOOKUP_DREG)?),
                }
            } else if found.number_or_0(a::LOOKUP_FLAGS)? == LOOKUP_INVERTED {
                LookupResult::NotFound
            } else {
                LookupResult::Found
            };
            let set = found.text(a::LOOKUP_SET)?.into();
            Expression::Lookup { set, key: found.register(a::LOOKUP_SREG)?, result }
        }
        "dynset"
            if found.number_or_0(a::DYNSET_FLAGS)? == 0
                && !found.has(a::DYNSET_EXPR)
                && !found.has(a::DYNSET_EXPRESSIONS) =>
        {
            let op = match found.number(a::DYNSET_OP)? {
                0 => DynsetOp::Add,
                1 => DynsetOp::Update,
                2 => DynsetOp::Delete,
                _ => return Ok(None),
            };
            let timeout = match found.has(a::DYNSET_TIMEOUT) {
                true => Some(found.get(a::DYNSET_TIMEOUT)?.u64_be()?).filter(|timeout| *timeout > 0),
                false => None,
            };
            Expression::Dynset {
                set: found.text(a::DYNSET_SET)?.into(),
                op,
                key: found.register(a::DYNSET_SREG_KEY)?,
                data: found.optional_register(a::DYNSET_SREG_DATA)?,
                timeout,
            }
        }
        "counter" => Expression::Counter,
        "objref" if found.has(a::OBJREF_NAME) && found.number(a::OBJREF_TYPE)? == OBJECT_COUNTER => {
            Expression::NamedCounter(found.text(a::OBJREF_NAME)?.into())
        }
        "limit" if found.number_or_0(a::LIMIT_FLAGS)? == 0 => {
            let Some(unit) = RateUnit::of_seconds(found.get(a::LIMIT_UNIT)?.u64_be()?) else {
                return Ok(None);
            };
            if found.number_or_0(a::LIMIT_TYPE)? != LIMIT_PACKETS {
                return Ok(None);
            }
            let rate = found.get(a::LIMIT_RATE)?.u64_be()?;
            Expression::Limit { rate, unit, burst: found.number(a::LIMIT_BURST)? }
        }
        "log" if found.has(a::LOG_GROUP) && !found.has(a::LOG_QUEUE_THRESHOLD) => Expression::Log {
            group: found.get(a::LOG_GROUP)?.u16_be()?,
            prefix: if found.has(a::LOG_PREFIX) { found.text(a::LOG_PREFIX)?.into() } else { "".into() },
            length: found.number_or_0(a::LOG_SNAPLEN)?,
        },
        "reject" => match found.number(a::REJECT_TYPE)? {
            REJECT_TCP_RST => Expression::Reject(Reject::TcpReset),
            REJECT_ICMPX if found.get(a::REJECT_CODE)?.u8()? == ICMPX_PORT_UNREACHABLE => {
                Expression::Reject(Reject::IcmpxPortUnreachable)
            }
            REJECT_ICMP => {
                let code = found.get(a::REJECT_CODE)?.u8()?;
                let Some(family) = Family::ALL.into_iter().find(|family| port_unreachable(*family) == code)
                else {
                    return Ok(None);
                };
                Expression::Reject(Reject::IcmpPortUnreachable(family))
            }
            _ => return Ok(None),
        },
        "nat" => return dnat(found),
        "masq" if !found.has(a::MASQ_PROTO_MIN) => match found.number_or_0(a::MASQ_FLAGS)? {
            0 => Expression::Masquerade { random_fully: false },
            RANDOM_FULLY => Expression::Masquerade { random_fully: true },
            _ => return Ok(None),
        },
        "notrack" => Expression::Notrack,
        _ => return Ok(None),
    }))
}

fn dnat(found: &ExpressionAttributes<'_>) -> Result<Option<Expression>, Malformed> {
    let family = Family::from_number(found.number(a::NAT_FAMILY)? as u8);
    let is_plain_dnat = found.number_or_0(a::NAT_FLAGS)? & !NAT_IMPLIED == 0;
    let address = found.optional_register(a::NAT_ADDR_MIN)?;
    let (Some(family), Some(address), true) = (family, address, is_plain_dnat) else { return Ok(None) };
    if found.number(a::NAT_TYPE)? != NAT_DNAT {
        return Ok(None);
    }
    let port = found.optional_register(a::NAT_PROTO_MIN)?;
    // If a range has no end, the kernel lists its start as its end.
    let range_ends = [(a::NAT_ADDR_MAX, Some(address)), (a::NAT_PROTO_MAX, port)];
    for (kind, start) in range_ends {
        let end = found.optional_register(kind)?;
        if end.is_some() && end != start {
            return Ok(None);
        }
    }
    Ok(Some(Expression::Dnat { family, address, port }))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::attribute::Attributes;
    use crate::message::Batch;

    /// Encodes a list of one expression with any attributes.
    fn expression(name: &str, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let batch = Batch::with_message("test", 1, 0, |out| {
            out.nested(a::LIST_ELEM, |element| {
                element.text(a::EXPR_NAME, name);
                element.nested(a::EXPR_DATA, |data| {
                    for (kind, payload) in attributes {
                        data.bytes(*kind, payload);
                    }
                });
            });
        });
        batch.expect("a short message").bytes()[crate::message::HEADER..].to_vec()
    }

    const NAMES: [&str; 20] = [
        "payload",
        "meta",
        "ct",
        "fib",
        "numgen",
        "hash",
        "immediate",
        "cmp",
        "range",
        "bitwise",
        "lookup",
        "dynset",
        "counter",
        "objref",
        "limit",
        "log",
        "reject",
        "nat",
        "masq",
        "tproxy",
    ];

    proptest! {
        /// Any attributes are decoded or rejected, and printed, without panicking.
        #[test]
        fn any_attributes_are_an_expression_or_malformed(
            name in 0..NAMES.len(),
            attributes in vec((0u16..20, vec(0u8.., 0..24)), 0..8),
            cut in 0usize..200,
        ) {
            let bytes = expression(NAMES[name], &attributes);
            for bytes in [&bytes[..], &bytes[..cut.min(bytes.len())]] {
                for element in Attributes::new(bytes).flatten() {
                    let expression = Expression::read(&element);
                    let _ = super::super::Rule::new().push(expression).to_string();
                }
            }
        }

        /// Attributes of the right length reach more code of the decoder than random bytes.
        #[test]
        fn numbers_in_all_attributes_are_an_expression_or_malformed(
            name in 0..NAMES.len(),
            numbers in vec(0u32..30, 12),
        ) {
            let attributes: Vec<_> = numbers.iter().zip(1u16..).map(|(n, kind)| (kind, n.to_be_bytes().to_vec())).collect();
            let bytes = expression(NAMES[name], &attributes);
            for element in Attributes::new(&bytes).flatten() {
                let expression = Expression::read(&element);
                let _ = super::super::Rule::new().push(expression).to_string();
            }
        }
    }
}
