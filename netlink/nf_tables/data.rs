//! Registers, values and verdicts.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::attribute::{Attribute, Malformed, Writer};

const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;

/// One of the sixteen 4-byte data registers (`NFT_REG32_00` and following), by its number from 0. A value longer than 4
/// bytes also occupies the following registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Register(pub u8);

/// `NFT_REG32_00`.
const FIRST_REGISTER: u32 = 8;
/// `NFT_REG_VERDICT`, the register of verdicts.
pub(super) const VERDICT_REGISTER: u32 = 0;

impl Register {
    /// The first data register.
    pub const FIRST: Register = Register(0);
    /// The last data register.
    pub const LAST: Register = Register(15);

    /// Returns the register after a value of `length` bytes that starts in this one.
    pub fn after(self, length: usize) -> Register {
        Register(self.0 + length.div_ceil(4) as u8)
    }

    pub(super) fn number(self) -> u32 {
        FIRST_REGISTER + u32::from(self.0)
    }

    /// Decodes the number of a register: 1 to 4 are the older 16-byte registers (`NFT_REG_1` to `NFT_REG_4`).
    pub(super) fn read(attribute: &Attribute<'_>) -> Result<Self, Malformed> {
        Ok(match attribute.u32_be()? {
            old @ 1..=4 => Register((old as u8 - 1) * 4),
            number => Register(number.saturating_sub(FIRST_REGISTER) as u8),
        })
    }
}

/// A value of up to 16 bytes, in the byte order of the packet or the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    bytes: [u8; 16],
    length: u8,
}

impl Value {
    /// Returns a value of these bytes, truncated to 16.
    pub fn new(from: &[u8]) -> Self {
        let length = from.len().min(16);
        let mut bytes = [0; 16];
        bytes[..length].copy_from_slice(&from[..length]);
        Value { bytes, length: length as u8 }
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    pub(super) fn write(&self, writer: &mut Writer<'_>, kind: u16) {
        writer.nested(kind, |data| {
            data.bytes(NFTA_DATA_VALUE, self.bytes());
        });
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl From<u8> for Value {
    fn from(number: u8) -> Self {
        Value::new(&[number])
    }
}

/// In network byte order, as ports are.
impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Value::new(&number.to_be_bytes())
    }
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Value::new(&v4.octets()),
            IpAddr::V6(v6) => Value::new(&v6.octets()),
        }
    }
}

/// A verdict (`NF_*`, `NFT_*`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// Ends the base chain; later base chains see the packet.
    Accept,
    /// Drops the packet.
    Drop,
    /// Continues with the next rule.
    Continue,
    /// Returns to the rule after the jump.
    Return,
    /// Evaluates a chain and returns after it.
    Jump(Arc<str>),
    /// Continues in a chain without returning.
    Goto(Arc<str>),
}

impl Verdict {
    /// Returns a jump to a chain.
    pub fn jump(chain: impl Into<Arc<str>>) -> Self {
        Verdict::Jump(chain.into())
    }

    /// Returns a goto to a chain.
    pub fn goto(chain: impl Into<Arc<str>>) -> Self {
        Verdict::Goto(chain.into())
    }

    /// Returns the target of a jump or goto.
    pub fn chain(&self) -> Option<&Arc<str>> {
        match self {
            Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain),
            _ => None,
        }
    }

    fn code(&self) -> i32 {
        match self {
            Verdict::Drop => 0,
            Verdict::Accept => 1,
            Verdict::Continue => -1,
            Verdict::Jump(_) => -3,
            Verdict::Goto(_) => -4,
            Verdict::Return => -5,
        }
    }

    pub(super) fn write(&self, writer: &mut Writer<'_>, kind: u16) {
        writer.nested(kind, |data| {
            data.nested(NFTA_DATA_VERDICT, |verdict| {
                verdict.u32_be(NFTA_VERDICT_CODE, self.code() as u32);
                if let Some(chain) = self.chain() {
                    verdict.text(NFTA_VERDICT_CHAIN, chain);
                }
            });
        });
    }

    fn read(attribute: &Attribute<'_>) -> Result<Self, Malformed> {
        let (mut code, mut chain) = (0, String::new());
        for attribute in attribute.nested() {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_VERDICT_CODE => code = attribute.u32_be()? as i32,
                NFTA_VERDICT_CHAIN => chain = attribute.text(),
                _ => {}
            }
        }
        Ok(match code {
            0 => Verdict::Drop,
            1 => Verdict::Accept,
            -1 => Verdict::Continue,
            -3 => Verdict::Jump(chain.into()),
            -4 => Verdict::Goto(chain.into()),
            -5 => Verdict::Return,
            _ => return Err(Malformed::Missing("a known verdict")),
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Accept => f.write_str("accept"),
            Verdict::Drop => f.write_str("drop"),
            Verdict::Continue => f.write_str("continue"),
            Verdict::Return => f.write_str("return"),
            Verdict::Jump(chain) => write!(f, "jump {chain}"),
            Verdict::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

/// The contents of a data attribute (`NFTA_DATA_*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data<'a> {
    Bytes(&'a [u8]),
    Verdict(Verdict),
}

impl<'a> Data<'a> {
    pub(super) fn read(attribute: &Attribute<'a>) -> Result<Self, Malformed> {
        for attribute in attribute.nested() {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_DATA_VALUE => return Ok(Data::Bytes(attribute.payload)),
                NFTA_DATA_VERDICT => return Verdict::read(&attribute).map(Data::Verdict),
                _ => {}
            }
        }
        Err(Malformed::Missing("NFTA_DATA_VALUE"))
    }

    pub(super) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Data::Bytes(bytes) => Ok(bytes),
            Data::Verdict(_) => Err(Malformed::Missing("NFTA_DATA_VALUE")),
        }
    }

    pub(super) fn value(self) -> Result<Value, Malformed> {
        match self.bytes()? {
            // If truncated, it could equal one of our values.
            long if long.len() > 16 => {
                Err(Malformed::Payload { kind: NFTA_DATA_VALUE, expected: 16, present: long.len() })
            }
            bytes => Ok(Value::new(bytes)),
        }
    }

    /// Writes bytes of any length as a data attribute.
    pub(super) fn write_bytes(bytes: &[u8], writer: &mut Writer<'_>, kind: u16) {
        writer.nested(kind, |data| {
            data.bytes(NFTA_DATA_VALUE, bytes);
        });
    }
}
