//! Expressions: the instructions of a rule.
//!
//! Only expressions that [`super::Rule`] writes are known. Others, in rules of other processes, become
//! [`Expression::Unknown`], which equals none of ours.

use std::sync::Arc;

use super::data::{Register, Value, Verdict};
use super::field::{Ct, Fib, Header, Meta};

/// A comparison operator (`NFT_CMP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// Equal.
    Equal = 0,
    /// Not equal.
    NotEqual = 1,
    /// Less, as big-endian numbers.
    Less = 2,
    /// Less or equal.
    AtMost = 3,
    /// Greater.
    Greater = 4,
    /// Greater or equal.
    AtLeast = 5,
}

impl Comparison {
    pub(super) fn from_number(number: u32) -> Option<Self> {
        use Comparison::*;
        [Equal, NotEqual, Less, AtMost, Greater, AtLeast].into_iter().find(|op| *op as u32 == number)
    }
}

/// The error that the sender of a rejected packet receives (`NFT_REJECT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reject {
    /// A TCP reset.
    TcpReset,
    /// ICMP or ICMPv6 "port unreachable" (`icmpx`), in tables of family `inet`. In other families the kernel accepts the
    /// expression, but sends nothing.
    IcmpxPortUnreachable,
    /// ICMP or ICMPv6 "port unreachable" in a table of one family.
    IcmpPortUnreachable(crate::Family),
}

/// The operation of a `dynset` expression (`NFT_DYNSET_OP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DynsetOp {
    /// Adds an element; an existing one is kept.
    Add = 0,
    /// Adds an element, or restarts the timeout of an existing one.
    Update = 1,
    /// Deletes an element (Linux 5.11).
    Delete = 2,
}

/// The time unit of a rate limit, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateUnit {
    /// A second.
    Second = 1,
    /// A minute.
    Minute = 60,
    /// An hour.
    Hour = 3600,
}

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expression {
    /// Loads bytes of the packet.
    Payload {
        /// The base of the offset.
        header: Header,
        /// In bytes.
        offset: u32,
        /// In bytes.
        length: u32,
        /// The destination register.
        to: Register,
    },
    /// Loads metadata of the packet.
    Meta {
        /// The key.
        key: Meta,
        /// The destination register.
        to: Register,
    },
    /// Sets metadata of the packet.
    SetMeta {
        /// The key.
        key: Meta,
        /// The source register.
        from: Register,
    },
    /// Loads conntrack data of the packet's connection.
    Ct {
        /// The key.
        key: Ct,
        /// The destination register.
        to: Register,
    },
    /// Loads the result of a FIB lookup.
    Fib {
        /// The address to look up.
        of: Fib,
        /// The destination register.
        to: Register,
    },
    /// Loads a random number (`numgen random`).
    Random {
        /// The number of different values.
        modulus: u32,
        /// The lowest value.
        offset: u32,
        /// The destination register.
        to: Register,
    },
    /// Loads a hash of registers (`jhash`).
    Hash {
        /// The first source register.
        from: Register,
        /// The number of bytes.
        length: u32,
        /// The hash is below this value.
        modulus: u32,
        /// The seed of the hash.
        seed: u32,
        /// The destination register.
        to: Register,
    },
    /// Loads a constant (`immediate`).
    Immediate {
        /// The constant.
        value: Value,
        /// The destination register.
        to: Register,
    },
    /// Ends the rule with a verdict.
    Verdict(Verdict),
    /// Breaks unless the comparison holds (`cmp`).
    Compare {
        /// The register to compare.
        from: Register,
        /// The operator.
        op: Comparison,
        /// The constant to compare with.
        with: Value,
    },
    /// Breaks unless the value is in the range, or, negated, if it is.
    Range {
        /// The register to compare.
        from: Register,
        /// The value must be outside of the range.
        negated: bool,
        /// The first value in the range.
        first: Value,
        /// The last value in it.
        last: Value,
    },
    /// Sets `value & mask ^ xor`.
    Bitwise {
        /// The source and destination register.
        register: Register,
        /// In bytes.
        length: u32,
        /// The bits to keep.
        mask: Value,
        /// The bits to flip.
        xor: Value,
    },
    /// Looks up a key in a set or map, and breaks depending on the result.
    Lookup {
        /// The name of the set.
        set: Arc<str>,
        /// The first register of the key.
        key: Register,
        /// The use of the result.
        result: LookupResult,
    },
    /// Adds, updates or deletes an element of a set. Breaks if the set is full.
    Dynset {
        /// The name of the set.
        set: Arc<str>,
        /// The operation.
        op: DynsetOp,
        /// The first register of the key.
        key: Register,
        /// The first register of the data, in a map.
        data: Option<Register>,
        /// The timeout of the element in milliseconds; `None` for the default of the set.
        timeout: Option<u64>,
    },
    /// Counts packets and bytes. The values are not part of the expression.
    Counter,
    /// Counts packets and bytes in a named counter.
    NamedCounter(Arc<str>),
    /// Breaks if the packet exceeds a rate limit.
    Limit {
        /// Packets per unit.
        rate: u64,
        /// The time unit.
        unit: RateUnit,
        /// The burst in packets.
        burst: u32,
    },
    /// Sends a copy of the packet to an NFLOG group.
    Log {
        /// The group.
        group: u16,
        /// The prefix; at most 127 bytes.
        prefix: Arc<str>,
        /// The number of bytes of the packet; 0 for all.
        length: u32,
    },
    /// Drops the packet and sends an error to its sender.
    Reject(Reject),
    /// Destination NAT.
    Dnat {
        /// The address family.
        family: crate::Family,
        /// The first register of the address.
        address: Register,
        /// The register of the port, if that is translated too.
        port: Option<Register>,
    },
    /// Source NAT to an address of the output interface.
    Masquerade {
        /// Randomizes source ports (`NF_NAT_RANGE_PROTO_RANDOM_FULLY`).
        random_fully: bool,
    },
    /// Disables connection tracking for the packet.
    Notrack,
    /// An expression that this program never writes, by name.
    Unknown(String),
}

/// The use of the result of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LookupResult {
    /// Breaks unless the key is found.
    Found,
    /// Breaks if the key is found.
    NotFound,
    /// Loads the data of the key into a register; breaks if not found.
    Data(Register),
    /// Uses the data of the key as the verdict; breaks if not found.
    Verdict,
}
