//! Expressions: the instructions that a rule is made of, as the kernel takes them and lists them.
//!
//! Only what [`super::Rule`] writes is known by name; a rule of somebody else may hold others, which are read as
//! [`Expression::Unknown`], equal to nothing that we would write.

use std::sync::Arc;

use super::data::{Register, Value, Verdict};
use super::field::{Ct, Fib, Header, Meta};

/// How two values are compared (`NFT_CMP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// They are the same.
    Equal = 0,
    /// They differ.
    NotEqual = 1,
    /// The register's is smaller, read as a big-endian number.
    Less = 2,
    /// It is smaller or the same.
    AtMost = 3,
    /// It is greater.
    Greater = 4,
    /// It is greater or the same.
    AtLeast = 5,
}

impl Comparison {
    pub(super) fn from_number(number: u32) -> Option<Self> {
        use Comparison::*;
        [Equal, NotEqual, Less, AtMost, Greater, AtLeast].into_iter().find(|op| *op as u32 == number)
    }
}

/// What an answer to a refused packet says (`NFT_REJECT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reject {
    /// A TCP reset.
    TcpReset,
    /// ICMP or ICMPv6 "port unreachable", in a table of the family `inet`. Elsewhere the kernel takes it, and answers
    /// nothing.
    IcmpxPortUnreachable,
    /// The same in a table of one family.
    IcmpPortUnreachable(crate::Family),
}

/// How a set is written to from the packet path (`NFT_DYNSET_OP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DynsetOp {
    /// Adds an element; one that is there stays as it is.
    Add = 0,
    /// Adds an element, or begins the timeout of one that is there anew.
    Update = 1,
    /// Takes an element away (Linux 5.11).
    Delete = 2,
}

/// How long a rate limit's unit is, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateUnit {
    /// A second.
    Second = 1,
    /// A minute.
    Minute = 60,
    /// An hour.
    Hour = 3600,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expression {
    /// Loads from the packet.
    Payload {
        /// Where the offset counts from.
        header: Header,
        /// In bytes.
        offset: u32,
        /// In bytes.
        length: u32,
        /// Where the value goes.
        to: Register,
    },
    /// Loads what the kernel keeps of the packet.
    Meta {
        /// Which.
        key: Meta,
        /// Where the value goes.
        to: Register,
    },
    /// Writes what the kernel keeps of the packet.
    SetMeta {
        /// Which.
        key: Meta,
        /// Where the value comes from.
        from: Register,
    },
    /// Loads what conntrack knows of the packet's connection.
    Ct {
        /// Which.
        key: Ct,
        /// Where the value goes.
        to: Register,
    },
    /// Loads what the routing tables say.
    Fib {
        /// Of which address.
        of: Fib,
        /// Where the value goes.
        to: Register,
    },
    /// Draws a number (`numgen random`).
    Random {
        /// How many different numbers there are.
        modulus: u32,
        /// The first of them.
        offset: u32,
        /// Where it goes.
        to: Register,
    },
    /// Hashes bytes (`jhash`).
    Hash {
        /// Where the bytes begin.
        from: Register,
        /// How many bytes.
        length: u32,
        /// From 0 up to this, not included.
        modulus: u32,
        /// Makes the hash another one.
        seed: u32,
        /// Where it goes.
        to: Register,
    },
    /// Puts a constant into a register.
    Immediate {
        /// The constant.
        value: Value,
        /// Where it goes.
        to: Register,
    },
    /// The end of the rule, and what becomes of the packet.
    Verdict(Verdict),
    /// Ends the rule unless the comparison holds.
    Compare {
        /// The value.
        from: Register,
        /// How.
        op: Comparison,
        /// With what.
        with: Value,
    },
    /// Ends the rule unless the value is in the range, or, negated, if it is.
    Range {
        /// The value.
        from: Register,
        /// Whether it must be outside.
        negated: bool,
        /// The first value in the range.
        first: Value,
        /// The last value in it.
        last: Value,
    },
    /// Sets `value & mask ^ xor`.
    Bitwise {
        /// The value, and where the result goes.
        register: Register,
        /// In bytes.
        length: u32,
        /// The bits to keep.
        mask: Value,
        /// The bits to turn over.
        xor: Value,
    },
    /// Ends the rule unless the key is in the set, or, negated, if it is. In a map, what belongs to the key goes to a
    /// register, or is the verdict.
    Lookup {
        /// The set's name.
        set: Arc<str>,
        /// Where the key begins.
        key: Register,
        /// What is done with what the map holds.
        result: LookupResult,
    },
    /// Writes to a set from the packet path. Ends the rule if the set is full.
    Dynset {
        /// The set's name.
        set: Arc<str>,
        /// How.
        op: DynsetOp,
        /// Where the key begins.
        key: Register,
        /// Where the data begins, in a map.
        data: Option<Register>,
        /// How long the element stays, in milliseconds; `None` is the set's own.
        timeout: Option<u64>,
    },
    /// Counts packets and bytes; the numbers are no part of the expression.
    Counter,
    /// Counts in a named counter.
    NamedCounter(Arc<str>),
    /// Ends the rule when there are more than so many packets in the unit.
    Limit {
        /// Packets.
        rate: u64,
        /// In how long.
        unit: RateUnit,
        /// So many more at once.
        burst: u32,
    },
    /// Hands a copy to who listens to an NFLOG group.
    Log {
        /// The group.
        group: u16,
        /// What is said with it; at most 127 bytes.
        prefix: Arc<str>,
        /// How many bytes of the packet; 0 is all.
        length: u32,
    },
    /// Drops the packet and answers.
    Reject(Reject),
    /// Translates the destination.
    Dnat {
        /// IPv4 or IPv6.
        family: crate::Family,
        /// Where the address begins.
        address: Register,
        /// Where the port is, if it is translated too.
        port: Option<Register>,
    },
    /// Translates the source to an address of the interface it goes out by.
    Masquerade {
        /// Picks source ports at random (`NF_NAT_RANGE_PROTO_RANDOM_FULLY`).
        random_fully: bool,
    },
    /// Does not track the packet's connection.
    Notrack,
    /// Something else, by its name: somebody else's.
    Unknown(String),
}

/// What is done with what a set holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LookupResult {
    /// The key must be there.
    Found,
    /// The key must not be there.
    NotFound,
    /// What belongs to the key goes to a register.
    Data(Register),
    /// What belongs to the key is the verdict.
    Verdict,
}
