//! Encoding of expressions as netlink attributes.

use super::constants::{attributes as a, *};
use super::data::VERDICT_REGISTER;
use super::expression::{Expression, LookupResult, RateUnit, Reject};
use super::field::Fib;
use crate::attribute::Writer;

impl Expression {
    /// Returns the name of the expression in the kernel.
    fn name(&self) -> &str {
        match self {
            Expression::Payload { .. } => "payload",
            Expression::Meta { .. } | Expression::SetMeta { .. } => "meta",
            Expression::Ct { .. } => "ct",
            Expression::Fib { .. } => "fib",
            Expression::Random { .. } => "numgen",
            Expression::Hash { .. } => "hash",
            Expression::Immediate { .. } | Expression::Verdict(_) => "immediate",
            Expression::Compare { .. } => "cmp",
            Expression::Range { .. } => "range",
            Expression::Bitwise { .. } => "bitwise",
            Expression::Lookup { .. } => "lookup",
            Expression::Dynset { .. } => "dynset",
            Expression::Counter => "counter",
            Expression::NamedCounter(_) => "objref",
            Expression::Limit { .. } => "limit",
            Expression::Log { .. } => "log",
            Expression::Reject(_) => "reject",
            Expression::Dnat { .. } => "nat",
            Expression::Masquerade { .. } => "masq",
            Expression::Notrack => "notrack",
            Expression::Unknown(name) => name,
        }
    }

    /// Writes the expression as an element of a rule's expression list.
    pub(super) fn write(&self, list: &mut Writer<'_>) {
        self.write_as(a::LIST_ELEM, list);
    }

    /// Writes the expression as an attribute of this kind.
    pub(super) fn write_as(&self, kind: u16, out: &mut Writer<'_>) {
        out.nested(kind, |element| {
            element.text(a::EXPR_NAME, self.name());
            element.nested(a::EXPR_DATA, |data| self.write_data(data));
        });
    }

    fn write_data(&self, out: &mut Writer<'_>) {
        match self {
            Expression::Payload { header, offset, length, to } => {
                out.u32_be(a::PAYLOAD_DREG, to.number()).u32_be(a::PAYLOAD_BASE, *header as u32);
                out.u32_be(a::PAYLOAD_OFFSET, *offset).u32_be(a::PAYLOAD_LEN, *length);
            }
            Expression::Meta { key, to } => {
                out.u32_be(a::META_KEY, *key as u32).u32_be(a::META_DREG, to.number());
            }
            Expression::SetMeta { key, from } => {
                out.u32_be(a::META_KEY, *key as u32).u32_be(a::META_SREG, from.number());
            }
            Expression::Ct { key, to } => {
                out.u32_be(a::CT_KEY, *key as u32).u32_be(a::CT_DREG, to.number());
                if key.is_original() {
                    out.u8(a::CT_DIRECTION, CT_ORIGINAL);
                }
            }
            Expression::Fib { of, to } => {
                let (flags, result) = match of {
                    Fib::SourceRoute => (FIB_SADDR | FIB_IIF | FIB_PRESENT, FIB_RESULT_OIF),
                    Fib::SourceType => (FIB_SADDR, FIB_RESULT_ADDRTYPE),
                    Fib::DestinationType => (FIB_DADDR, FIB_RESULT_ADDRTYPE),
                };
                out.u32_be(a::FIB_FLAGS, flags).u32_be(a::FIB_RESULT, result);
                out.u32_be(a::FIB_DREG, to.number());
            }
            Expression::Random { modulus, offset, to } => {
                out.u32_be(a::NG_DREG, to.number()).u32_be(a::NG_MODULUS, *modulus);
                out.u32_be(a::NG_TYPE, NG_RANDOM).u32_be(a::NG_OFFSET, *offset);
            }
            Expression::Hash { from, length, modulus, seed, to } => {
                out.u32_be(a::HASH_SREG, from.number()).u32_be(a::HASH_DREG, to.number());
                out.u32_be(a::HASH_LEN, *length).u32_be(a::HASH_MODULUS, *modulus);
                out.u32_be(a::HASH_SEED, *seed).u32_be(a::HASH_TYPE, HASH_JENKINS);
            }
            Expression::Immediate { value, to } => {
                out.u32_be(a::IMMEDIATE_DREG, to.number());
                value.write(out, a::IMMEDIATE_DATA);
            }
            Expression::Verdict(verdict) => {
                out.u32_be(a::IMMEDIATE_DREG, VERDICT_REGISTER);
                verdict.write(out, a::IMMEDIATE_DATA);
            }
            Expression::Compare { from, op, with } => {
                out.u32_be(a::CMP_SREG, from.number()).u32_be(a::CMP_OP, *op as u32);
                with.write(out, a::CMP_DATA);
            }
            Expression::Range { from, negated, first, last } => {
                out.u32_be(a::RANGE_SREG, from.number()).u32_be(a::RANGE_OP, u32::from(*negated));
                first.write(out, a::RANGE_FROM);
                last.write(out, a::RANGE_TO);
            }
            Expression::Bitwise { register, length, mask, xor } => {
                out.u32_be(a::BITWISE_SREG, register.number()).u32_be(a::BITWISE_DREG, register.number());
                out.u32_be(a::BITWISE_LEN, *length);
                mask.write(out, a::BITWISE_MASK);
                xor.write(out, a::BITWISE_XOR);
            }
            Expression::Lookup { set, key, result } => {
                out.text(a::LOOKUP_SET, set).u32_be(a::LOOKUP_SREG, key.number());
                match result {
                    LookupResult::Found => {}
                    LookupResult::NotFound => {
                        out.u32_be(a::LOOKUP_FLAGS, LOOKUP_INVERTED);
                    }
                    LookupResult::Data(to) => {
                        out.u32_be(a::LOOKUP_DREG, to.number());
                    }
                    LookupResult::Verdict => {
                        out.u32_be(a::LOOKUP_DREG, VERDICT_REGISTER);
                    }
                }
            }
            Expression::Dynset { set, op, key, data, timeout } => {
                out.text(a::DYNSET_SET, set).u32_be(a::DYNSET_OP, *op as u32);
                out.u32_be(a::DYNSET_SREG_KEY, key.number());
                if let Some(data) = data {
                    out.u32_be(a::DYNSET_SREG_DATA, data.number());
                }
                if let Some(timeout) = timeout {
                    out.u64_be(a::DYNSET_TIMEOUT, *timeout);
                }
            }
            Expression::NamedCounter(name) => {
                out.u32_be(a::OBJREF_TYPE, OBJECT_COUNTER).text(a::OBJREF_NAME, name);
            }
            Expression::Limit { rate, unit, burst } => {
                out.u64_be(a::LIMIT_RATE, *rate).u64_be(a::LIMIT_UNIT, *unit as u64);
                out.u32_be(a::LIMIT_BURST, *burst).u32_be(a::LIMIT_TYPE, LIMIT_PACKETS);
            }
            Expression::Log { group, prefix, length } => {
                out.u16_be(a::LOG_GROUP, *group);
                if !prefix.is_empty() {
                    out.text(a::LOG_PREFIX, prefix);
                }
                if *length > 0 {
                    out.u32_be(a::LOG_SNAPLEN, *length);
                }
            }
            Expression::Reject(Reject::TcpReset) => {
                out.u32_be(a::REJECT_TYPE, REJECT_TCP_RST);
            }
            Expression::Reject(Reject::IcmpxPortUnreachable) => {
                out.u32_be(a::REJECT_TYPE, REJECT_ICMPX).u8(a::REJECT_CODE, ICMPX_PORT_UNREACHABLE);
            }
            Expression::Reject(Reject::IcmpPortUnreachable(family)) => {
                out.u32_be(a::REJECT_TYPE, REJECT_ICMP).u8(a::REJECT_CODE, port_unreachable(*family));
            }
            Expression::Dnat { family, address, port } => {
                out.u32_be(a::NAT_TYPE, NAT_DNAT).u32_be(a::NAT_FAMILY, u32::from(family.number()));
                out.u32_be(a::NAT_ADDR_MIN, address.number());
                if let Some(port) = port {
                    out.u32_be(a::NAT_PROTO_MIN, port.number());
                }
            }
            Expression::Masquerade { random_fully } => {
                if *random_fully {
                    out.u32_be(a::MASQ_FLAGS, RANDOM_FULLY);
                }
            }
            Expression::Counter | Expression::Notrack | Expression::Unknown(_) => {}
        }
    }
}

impl RateUnit {
    pub(super) fn of_seconds(seconds: u64) -> Option<Self> {
        [RateUnit::Second, RateUnit::Minute, RateUnit::Hour].into_iter().find(|unit| *unit as u64 == seconds)
    }
}
