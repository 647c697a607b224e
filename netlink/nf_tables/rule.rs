//! Rules, written as they read: what must hold, then what becomes of the packet.
//!
//! ```
//! use portcullis_netlink::Family;
//! use portcullis_netlink::nf_tables::{CtState, Field, Rule, Verdict};
//!
//! let rule = Rule::new()
//!     .ct_state(CtState::ESTABLISHED | CtState::RELATED)
//!     .then(Verdict::Accept);
//! let dispatch = Rule::new().family(Family::V4).verdict_map(&[Field::Source(Family::V4)], "pods");
//! # assert_eq!(rule.expressions().len(), 4);
//! # assert_eq!(dispatch.to_string(), "ip saddr vmap @pods");
//! ```

use std::net::IpAddr;
use std::sync::Arc;

use super::data::{Register, Value, Verdict};
use super::expression::{Comparison, DynsetOp, Expression, LookupResult, RateUnit, Reject};
use super::field::{Ct, FIB_LOCAL, Fib, Field, Meta};
use crate::family::Family;

/// A rule: expressions that are worked through until one of them does not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    expressions: Vec<Expression>,
    comment: Option<Arc<str>>,
}

impl Rule {
    /// A rule that holds for every packet and does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn from_parts(expressions: Vec<Expression>, comment: Option<Arc<str>>) -> Self {
        Rule { expressions, comment }
    }

    /// What it is made of.
    pub fn expressions(&self) -> &[Expression] {
        &self.expressions
    }

    /// What is said of it.
    pub fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }

    /// Says something of it; at most 127 bytes are kept.
    pub fn with_comment(mut self, text: &str) -> Self {
        self.comment = Some(super::comment::shortened(text).into());
        self
    }

    /// Adds an expression.
    pub fn push(mut self, expression: Expression) -> Self {
        self.expressions.push(expression);
        self
    }

    /// Loads fields one after another into the registers from `to` on.
    pub fn load(mut self, fields: &[Field], mut to: Register) -> Self {
        for field in fields {
            self.expressions.push(field.load(to));
            to = to.after(field.length());
        }
        self
    }

    /// The field compares so with the value.
    pub fn compare(self, field: Field, op: Comparison, value: impl Into<Value>) -> Self {
        self.load(&[field], Register::FIRST).push(Expression::Compare {
            from: Register::FIRST,
            op,
            with: value.into(),
        })
    }

    /// The field has this value.
    pub fn is(self, field: Field, value: impl Into<Value>) -> Self {
        self.compare(field, Comparison::Equal, value)
    }

    /// The packet is of this family. In a table of both, it must come before anything of the network header.
    pub fn family(self, family: Family) -> Self {
        self.is(Field::Meta(Meta::NfProto), family.number())
    }

    /// The packet is of this transport protocol (`IPPROTO_*`).
    pub fn protocol(self, protocol: u8) -> Self {
        self.is(Field::PROTOCOL, protocol)
    }

    /// The source is this address.
    pub fn source(self, address: IpAddr) -> Self {
        let family = Family::from_address(address);
        self.family(family).is(Field::Source(family), address)
    }

    /// The destination is this address.
    pub fn destination(self, address: IpAddr) -> Self {
        let family = Family::from_address(address);
        self.family(family).is(Field::Destination(family), address)
    }

    /// The field, a number in network order, is in a range, both ends included.
    pub fn between(self, field: Field, first: impl Into<Value>, last: impl Into<Value>) -> Self {
        let (from, first, last) = (Register::FIRST, first.into(), last.into());
        let loaded = self.load(&[field], from);
        if first == last {
            return loaded.push(Expression::Compare { from, op: Comparison::Equal, with: first });
        }
        // Two comparisons, as `nft` writes ranges.
        loaded
            .push(Expression::Compare { from, op: Comparison::AtLeast, with: first })
            .push(Expression::Compare { from, op: Comparison::AtMost, with: last })
    }

    /// Some of these bits of the field, a number in host order, are set.
    pub fn any_bit(self, field: Field, bits: u32) -> Self {
        self.bits(field, bits, Comparison::NotEqual)
    }

    /// None of these bits of the field, a number in host order, is set.
    pub fn no_bit(self, field: Field, bits: u32) -> Self {
        self.bits(field, bits, Comparison::Equal)
    }

    fn bits(self, field: Field, bits: u32, op: Comparison) -> Self {
        let (from, zero) = (Register::FIRST, Value::new(&[0; 4]));
        self.load(&[field], from)
            .push(Expression::Bitwise {
                register: from,
                length: 4,
                mask: Value::new(&bits.to_ne_bytes()),
                xor: zero,
            })
            .push(Expression::Compare { from, op, with: zero })
    }

    /// The packet's place in its connection is one of these ([`super::CtState`]).
    pub fn ct_state(self, states: u32) -> Self {
        self.any_bit(Field::Ct(Ct::State), states)
    }

    /// This machine sends the packet itself, from an address of its own.
    pub fn sent_locally(self) -> Self {
        self.is(Field::Meta(Meta::Iif), Value::new(&0u32.to_ne_bytes())).from_local()
    }

    /// The source is an address of this machine.
    pub fn from_local(self) -> Self {
        self.is(Field::Fib(Fib::SourceType), Value::new(&FIB_LOCAL.to_ne_bytes()))
    }

    /// The destination is an address of this machine.
    pub fn to_local(self) -> Self {
        self.is(Field::Fib(Fib::DestinationType), Value::new(&FIB_LOCAL.to_ne_bytes()))
    }

    /// The destination is no address of this machine.
    pub fn not_to_local(self) -> Self {
        let local = Value::new(&FIB_LOCAL.to_ne_bytes());
        self.compare(Field::Fib(Fib::DestinationType), Comparison::NotEqual, local)
    }

    /// The destination is of this kind by the routing tables ([`super::FIB_BROADCAST`] and others).
    pub fn to_address_type(self, kind: u32) -> Self {
        self.is(Field::Fib(Fib::DestinationType), Value::new(&kind.to_ne_bytes()))
    }

    /// The frame carries packets of this family. In a table of the family `bridge`, it must come before anything of the
    /// network header.
    pub fn ether_family(self, family: Family) -> Self {
        self.is(Field::EtherType, ether_type(family))
    }

    /// The frame carries something else than this (`ETH_P_*`).
    pub fn ether_type_is_not(self, ether_type: u16) -> Self {
        self.compare(Field::EtherType, Comparison::NotEqual, ether_type)
    }

    /// Gives the packet the priority that a map holds for the fields. The rule ends if it holds nothing.
    pub fn set_priority_from_map(self, key: &[Field], map: impl Into<Arc<str>>) -> Self {
        let register = Register::FIRST;
        self.map(key, map, register).push(Expression::SetMeta { key: Meta::Priority, from: register })
    }

    /// The fields together are in the set.
    pub fn is_in(self, key: &[Field], set: impl Into<Arc<str>>) -> Self {
        self.look_up(key, set, LookupResult::Found)
    }

    /// The fields together are not in the set.
    pub fn is_not_in(self, key: &[Field], set: impl Into<Arc<str>>) -> Self {
        self.look_up(key, set, LookupResult::NotFound)
    }

    /// What a map holds for the fields goes to registers from `to` on. The rule ends if it holds nothing.
    pub fn map(self, key: &[Field], map: impl Into<Arc<str>>, to: Register) -> Self {
        self.look_up(key, map, LookupResult::Data(to))
    }

    /// What a map holds for the fields is the verdict. The rule ends if it holds nothing.
    pub fn verdict_map(self, key: &[Field], map: impl Into<Arc<str>>) -> Self {
        self.look_up(key, map, LookupResult::Verdict)
    }

    fn look_up(self, key: &[Field], set: impl Into<Arc<str>>, result: LookupResult) -> Self {
        let key_at = Register::FIRST;
        self.load(key, key_at).push(Expression::Lookup { set: set.into(), key: key_at, result })
    }

    /// The fields become an element of a set, whose timeout begins anew.
    pub fn update_set(self, key: &[Field], set: impl Into<Arc<str>>) -> Self {
        let key_at = Register::FIRST;
        self.load(key, key_at).push(Expression::Dynset {
            set: set.into(),
            op: DynsetOp::Update,
            key: key_at,
            data: None,
            timeout: None,
        })
    }

    /// Counts in a named counter.
    pub fn counter(self, name: impl Into<Arc<str>>) -> Self {
        self.push(Expression::NamedCounter(name.into()))
    }

    /// Holds for so many packets a second at most, and for `burst` more at once.
    pub fn limit_per_second(self, rate: u32, burst: u32) -> Self {
        self.push(Expression::Limit { rate: rate.into(), unit: RateUnit::Second, burst })
    }

    /// Hands the first bytes of the packet to an NFLOG group; the prefix has at most 127 bytes.
    pub fn log(self, group: u16, prefix: &str, length: u32) -> Self {
        self.push(Expression::Log { group, prefix: super::comment::shortened(prefix).into(), length })
    }

    /// Drops the packet and answers.
    pub fn reject(self, with: Reject) -> Self {
        self.push(Expression::Reject(with))
    }

    /// Sets bits of the packet mark.
    pub fn set_mark(self, bits: u32) -> Self {
        self.set_mark_in(Register::FIRST, bits)
    }

    /// Sets bits of the packet mark by way of this register, where others hold something.
    pub fn set_mark_in(self, register: Register, bits: u32) -> Self {
        self.change_mark(register, !bits, bits)
    }

    /// Turns bits of the packet mark over.
    pub fn flip_mark(self, bits: u32) -> Self {
        self.change_mark(Register::FIRST, u32::MAX, bits)
    }

    fn change_mark(self, register: Register, keep: u32, flip: u32) -> Self {
        let [mask, xor] = [keep, flip].map(|bits| Value::new(&bits.to_ne_bytes()));
        self.load(&[Field::Meta(Meta::Mark)], register)
            .push(Expression::Bitwise { register, length: 4, mask, xor })
            .push(Expression::SetMeta { key: Meta::Mark, from: register })
    }

    /// What becomes of the packet.
    pub fn then(self, verdict: Verdict) -> Self {
        self.push(Expression::Verdict(verdict))
    }
}

/// What frames with packets of a family carry (`ETH_P_IP`, `ETH_P_IPV6`).
fn ether_type(family: Family) -> u16 {
    match family {
        Family::V4 => libc::ETH_P_IP as u16,
        Family::V6 => libc::ETH_P_IPV6 as u16,
    }
}

impl Field {
    fn load(self, to: Register) -> Expression {
        if let Some((header, offset)) = self.place() {
            return Expression::Payload { header, offset, length: self.length() as u32, to };
        }
        match self {
            Field::Meta(key) => Expression::Meta { key, to },
            Field::Ct(key) => Expression::Ct { key, to },
            Field::Fib(of) => Expression::Fib { of, to },
            Field::Random { modulus, offset } => Expression::Random { modulus, offset, to },
            _ => unreachable!("all other fields have a place in the packet"),
        }
    }
}
