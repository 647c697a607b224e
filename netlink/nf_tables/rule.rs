//! Rules and their builder: matches, then statements.
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
use super::field::{Ct, FIB_LOCAL, Fib, Field, Header, Meta};
use crate::family::Family;

/// A rule: expressions that the kernel evaluates until one of them breaks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    expressions: Vec<Expression>,
    comment: Option<Arc<str>>,
}

impl Rule {
    /// Returns a rule that matches every packet and does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn from_parts(expressions: Vec<Expression>, comment: Option<Arc<str>>) -> Self {
        Rule { expressions, comment }
    }

    /// Returns the expressions.
    pub fn expressions(&self) -> &[Expression] {
        &self.expressions
    }

    /// Returns the comment.
    pub fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }

    /// Sets the comment, truncated to 127 bytes.
    pub fn with_comment(mut self, text: &str) -> Self {
        self.comment = Some(super::comment::sanitize(text).into());
        self
    }

    /// Appends an expression.
    pub fn push(mut self, expression: Expression) -> Self {
        self.expressions.push(expression);
        self
    }

    /// Loads fields into consecutive registers, starting at `to`.
    pub fn load(mut self, fields: &[Field], mut to: Register) -> Self {
        for field in fields {
            self.expressions.push(field.load(to));
            to = to.after(field.length());
        }
        self
    }

    /// Compares a field with a value.
    pub fn compare(self, field: Field, op: Comparison, value: impl Into<Value>) -> Self {
        self.load(&[field], Register::FIRST).push(Expression::Compare {
            from: Register::FIRST,
            op,
            with: value.into(),
        })
    }

    /// Matches a value of a field.
    pub fn is(self, field: Field, value: impl Into<Value>) -> Self {
        self.compare(field, Comparison::Equal, value)
    }

    /// Matches packets of a family. In `inet` tables it must precede matches on the network header.
    pub fn family(self, family: Family) -> Self {
        self.is(Field::Meta(Meta::NfProto), family.number())
    }

    /// Matches a transport protocol (`IPPROTO_*`).
    pub fn protocol(self, protocol: u8) -> Self {
        self.is(Field::PROTOCOL, protocol)
    }

    /// Matches a source address.
    pub fn source(self, address: IpAddr) -> Self {
        let family = Family::from_address(address);
        self.family(family).is(Field::Source(family), address)
    }

    /// Matches a destination address.
    pub fn destination(self, address: IpAddr) -> Self {
        let family = Family::from_address(address);
        self.family(family).is(Field::Destination(family), address)
    }

    /// Matches a range of a field in network byte order; both ends are included.
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

    /// Matches if any of these bits of the field, a number in host byte order, is set.
    pub fn any_bit(self, field: Field, bits: u32) -> Self {
        self.bits(field, bits, Comparison::NotEqual)
    }

    /// Matches if none of these bits of the field, a number in host byte order, is set.
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

    /// Matches conntrack states ([`super::CtState`] bits).
    pub fn ct_state(self, states: u32) -> Self {
        self.any_bit(Field::Ct(Ct::State), states)
    }

    /// Matches packets that this host sends from one of its addresses.
    pub fn sent_locally(self) -> Self {
        self.is(Field::Meta(Meta::Iif), Value::new(&0u32.to_ne_bytes())).from_local()
    }

    /// Matches packets whose source address the kernel would not reach by the interface by which they arrived. Only on `prerouting`.
    pub fn without_source_route(self) -> Self {
        self.is(Field::Fib(Fib::SourceRoute), 0_u8)
    }

    /// Matches a local source address.
    pub fn from_local(self) -> Self {
        self.is(Field::Fib(Fib::SourceType), Value::new(&FIB_LOCAL.to_ne_bytes()))
    }

    /// Matches a local destination address.
    pub fn to_local(self) -> Self {
        self.is(Field::Fib(Fib::DestinationType), Value::new(&FIB_LOCAL.to_ne_bytes()))
    }

    /// Matches a destination address that is not local.
    pub fn not_to_local(self) -> Self {
        let local = Value::new(&FIB_LOCAL.to_ne_bytes());
        self.compare(Field::Fib(Fib::DestinationType), Comparison::NotEqual, local)
    }

    /// Matches a type of destination address ([`super::FIB_BROADCAST`] and others).
    pub fn to_address_type(self, kind: u32) -> Self {
        self.is(Field::Fib(Fib::DestinationType), Value::new(&kind.to_ne_bytes()))
    }

    /// Matches frames that carry a family. In `bridge` tables it must precede matches on the network header.
    pub fn ether_family(self, family: Family) -> Self {
        self.is(Field::EtherType, ether_type(family))
    }

    /// Matches frames with another EtherType (`ETH_P_*`).
    pub fn ether_type_is_not(self, ether_type: u16) -> Self {
        self.compare(Field::EtherType, Comparison::NotEqual, ether_type)
    }

    /// Sets the packet priority to the data of a map for the fields. Breaks if the map has no element.
    pub fn set_priority_from_map(self, key: &[Field], map: impl Into<Arc<str>>) -> Self {
        let register = Register::FIRST;
        self.map(key, map, register).push(Expression::SetMeta { key: Meta::Priority, from: register })
    }

    /// Sets the packet priority, and keeps all other registers than the last.
    pub fn set_priority(self, priority: u32) -> Self {
        let (value, register) = (Value::new(&priority.to_ne_bytes()), Register::LAST);
        self.push(Expression::Immediate { value, to: register })
            .push(Expression::SetMeta { key: Meta::Priority, from: register })
    }

    /// Matches if the bits of a mask have this value in a byte of a header. `offset` is in bytes.
    pub fn payload_bits(self, header: Header, offset: u32, mask: u8, value: u8) -> Self {
        let register = Register::FIRST;
        self.push(Expression::Payload { header, offset, length: 1, to: register })
            .push(Expression::Bitwise {
                register,
                length: 1,
                mask: Value::new(&[mask]),
                xor: Value::new(&[0]),
            })
            .push(Expression::Compare { from: register, op: Comparison::Equal, with: Value::new(&[value]) })
    }

    /// Matches if the set contains the fields.
    pub fn is_in(self, key: &[Field], set: impl Into<Arc<str>>) -> Self {
        self.look_up(key, set, LookupResult::Found)
    }

    /// Matches if the set does not contain the fields.
    pub fn is_not_in(self, key: &[Field], set: impl Into<Arc<str>>) -> Self {
        self.look_up(key, set, LookupResult::NotFound)
    }

    /// Loads the data of a map for the fields into registers, starting at `to`. Breaks if the map has no element.
    pub fn map(self, key: &[Field], map: impl Into<Arc<str>>, to: Register) -> Self {
        self.look_up(key, map, LookupResult::Data(to))
    }

    /// Ends the rule with the verdict of a verdict map for the fields. Breaks if the map has no element.
    pub fn verdict_map(self, key: &[Field], map: impl Into<Arc<str>>) -> Self {
        self.look_up(key, map, LookupResult::Verdict)
    }

    fn look_up(self, key: &[Field], set: impl Into<Arc<str>>, result: LookupResult) -> Self {
        let key_at = Register::FIRST;
        self.load(key, key_at).push(Expression::Lookup { set: set.into(), key: key_at, result })
    }

    /// Adds the fields to a set, or restarts the timeout of the element.
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

    /// Counts packets and bytes in a named counter.
    pub fn counter(self, name: impl Into<Arc<str>>) -> Self {
        self.push(Expression::NamedCounter(name.into()))
    }

    /// Matches up to `rate` packets per second, with a burst.
    pub fn limit_per_second(self, rate: u32, burst: u32) -> Self {
        self.push(Expression::Limit { rate: rate.into(), unit: RateUnit::Second, burst })
    }

    /// Logs the first `length` bytes of the packet to an NFLOG group; the prefix is truncated to 127 bytes.
    pub fn log(self, group: u16, prefix: &str, length: u32) -> Self {
        self.push(Expression::Log { group, prefix: super::comment::sanitize(prefix).into(), length })
    }

    /// Drops the packet and sends an error to its sender.
    pub fn reject(self, with: Reject) -> Self {
        self.push(Expression::Reject(with))
    }

    /// Sets bits of the packet mark.
    pub fn set_mark(self, bits: u32) -> Self {
        self.set_mark_in(Register::FIRST, bits)
    }

    /// Sets bits of the packet mark, using this register for the calculation.
    pub fn set_mark_in(self, register: Register, bits: u32) -> Self {
        self.change_mark(register, !bits, bits)
    }

    /// Flips bits of the packet mark.
    pub fn flip_mark(self, bits: u32) -> Self {
        self.change_mark(Register::FIRST, u32::MAX, bits)
    }

    fn change_mark(self, register: Register, keep: u32, flip: u32) -> Self {
        let [mask, xor] = [keep, flip].map(|bits| Value::new(&bits.to_ne_bytes()));
        self.load(&[Field::Meta(Meta::Mark)], register)
            .push(Expression::Bitwise { register, length: 4, mask, xor })
            .push(Expression::SetMeta { key: Meta::Mark, from: register })
    }

    /// Ends the rule with a verdict.
    pub fn then(self, verdict: Verdict) -> Self {
        self.push(Expression::Verdict(verdict))
    }
}

/// Returns the EtherType of a family (`ETH_P_IP`, `ETH_P_IPV6`).
fn ether_type(family: Family) -> u16 {
    match family {
        Family::V4 => libc::ETH_P_IP as u16,
        Family::V6 => libc::ETH_P_IPV6 as u16,
    }
}

impl Field {
    fn load(self, to: Register) -> Expression {
        if let Some((header, offset)) = self.payload_offset() {
            return Expression::Payload { header, offset, length: self.length() as u32, to };
        }
        match self {
            Field::Meta(key) => Expression::Meta { key, to },
            Field::Ct(key) => Expression::Ct { key, to },
            Field::Fib(of) => Expression::Fib { of, to },
            Field::Random { modulus, offset } => Expression::Random { modulus, offset, to },
            _ => unreachable!("all other fields are in the packet"),
        }
    }
}
