//! Netlink attributes (`struct nlattr`): reading and writing.
//!
//! An attribute is `u16 length, u16 kind, payload`, padded to 4 bytes. The length includes the header and excludes
//! the padding; length and kind are in host byte order. The byte order of numbers in the payload depends on the
//! family: netfilter uses network order, rtnetlink host order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::Emitable;

use crate::error::{Error, Result};

/// Bytes of an attribute's header.
pub const HEADER: usize = 4;
/// Flag in `kind`: the payload consists of attributes (`NLA_F_NESTED`).
const NESTED: u16 = 1 << 15;
/// Flag in `kind`: the payload is in network order (`NLA_F_NET_BYTEORDER`). Most families ignore it; ipset
/// requires it.
pub const NETWORK_ORDER: u16 = 1 << 14;

/// A malformed message or attribute: truncated, or of an unexpected length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A length field exceeds the bytes that are left, or is smaller than the header.
    #[error("{what} has length {announced}, but {present} bytes are left")]
    Length {
        /// "message" or "attribute".
        what: &'static str,
        /// The value of the length field.
        announced: usize,
        /// The number of bytes left.
        present: usize,
    },
    /// An attribute's payload does not have the length of its type.
    #[error("attribute {kind} has {present} bytes; expected {expected}")]
    Payload {
        /// The attribute's number.
        kind: u16,
        /// The length of the type that is read.
        expected: usize,
        /// The length of the payload.
        present: usize,
    },
    /// A required attribute is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A response has a sequence number that was not sent yet.
    #[error("sequence number {0} belongs to no request")]
    Sequence(u32),
}

/// Rounds up to netlink's alignment of 4 bytes.
pub(crate) fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// Returns the number of padding bytes after `length` bytes.
fn padding(length: usize) -> usize {
    align(length) - length
}

/// One attribute of a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// The attribute's number in its family, without the flag bits.
    pub kind: u16,
    /// The value's bytes, without padding.
    pub payload: &'a [u8],
}

impl<'a> Attribute<'a> {
    fn exactly<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        self.payload.try_into().map_err(|_| Malformed::Payload {
            kind: self.kind,
            expected: N,
            present: self.payload.len(),
        })
    }

    /// One byte.
    pub fn u8(&self) -> Result<u8, Malformed> {
        Ok(self.exactly::<1>()?[0])
    }

    /// Two bytes in host order.
    pub fn u16(&self) -> Result<u16, Malformed> {
        self.exactly().map(u16::from_ne_bytes)
    }

    /// Two bytes in network order.
    pub fn u16_be(&self) -> Result<u16, Malformed> {
        self.exactly().map(u16::from_be_bytes)
    }

    /// Four bytes in network order.
    pub fn u32_be(&self) -> Result<u32, Malformed> {
        self.exactly().map(u32::from_be_bytes)
    }

    /// Four bytes in host order.
    pub fn u32(&self) -> Result<u32, Malformed> {
        self.exactly().map(u32::from_ne_bytes)
    }

    /// Eight bytes in host order.
    pub fn u64(&self) -> Result<u64, Malformed> {
        self.exactly().map(u64::from_ne_bytes)
    }

    /// Eight bytes in network order.
    pub fn u64_be(&self) -> Result<u64, Malformed> {
        self.exactly().map(u64::from_be_bytes)
    }

    /// An IPv4 address of 4 bytes or an IPv6 address of 16 bytes.
    pub fn address(&self) -> Result<IpAddr, Malformed> {
        match self.payload.len() {
            4 => self.exactly::<4>().map(|bytes| Ipv4Addr::from(bytes).into()),
            _ => self.exactly::<16>().map(|bytes| Ipv6Addr::from(bytes).into()),
        }
    }

    /// Text up to the first NUL, or to the end if there is none. Invalid UTF-8 is replaced.
    pub fn text(&self) -> String {
        let end = self.payload.iter().position(|&byte| byte == 0).unwrap_or(self.payload.len());
        String::from_utf8_lossy(&self.payload[..end]).into_owned()
    }

    /// The nested attributes.
    pub fn nested(&self) -> Attributes<'a> {
        Attributes::new(self.payload)
    }
}

/// Iterator over consecutive attributes. It ends after the first malformed one.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Reads attributes from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Attributes { rest: bytes }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let present = self.rest.len();
        if present == 0 {
            return None;
        }
        // Fewer bytes than a header have no length field; report a truncated header.
        let length = match self.rest {
            [a, b, _, _, ..] => usize::from(u16::from_ne_bytes([*a, *b])),
            _ => HEADER,
        };
        if length < HEADER || length > present {
            self.rest = &[];
            return Some(Err(Malformed::Length { what: "attribute", announced: length, present }));
        }
        let kind = u16::from_ne_bytes([self.rest[2], self.rest[3]]) & !(NESTED | NETWORK_ORDER);
        let payload = &self.rest[HEADER..length];
        // The last attribute may lack its padding.
        self.rest = &self.rest[align(length).min(present)..];
        Some(Ok(Attribute { kind, payload }))
    }
}

/// Appends attributes to a message under construction.
#[derive(Debug)]
pub struct Writer<'b> {
    bytes: &'b mut Vec<u8>,
    /// The first attribute that exceeded its 16-bit length field: kind and length.
    too_long: Option<(u16, usize)>,
}

impl<'b> Writer<'b> {
    pub(crate) fn new(bytes: &'b mut Vec<u8>) -> Self {
        Writer { bytes, too_long: None }
    }

    pub(crate) fn finish(self, action: &'static str) -> Result<()> {
        match self.too_long {
            Some((kind, length)) => Err(Error::AttributeTooLong { action, kind, length }),
            None => Ok(()),
        }
    }

    /// Returns the number of bytes in the message, or in the batch that contains it.
    pub(crate) fn written(&self) -> usize {
        self.bytes.len()
    }

    /// Appends bytes outside of any attribute: the fixed header of a family, which precedes its attributes.
    pub fn raw(&mut self, header: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(header);
        self.pad();
        self
    }

    /// Appends a whole message of `netlink-packet-route`: its fixed header and its attributes.
    pub(crate) fn emit(&mut self, message: &impl Emitable) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.resize(start + message.buffer_len(), 0);
        message.emit(&mut self.bytes[start..]);
        self.pad();
        self
    }

    /// Appends an attribute with these bytes.
    pub fn bytes(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        self.open(kind, |writer| writer.bytes.extend_from_slice(payload))
    }

    /// Appends an attribute of one byte.
    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    /// Appends an attribute of two bytes in host order.
    pub fn u16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Appends an attribute of two bytes in network order.
    pub fn u16_be(&mut self, kind: u16, value: u16) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Appends an attribute of four bytes in network order.
    pub fn u32_be(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Appends an attribute of four bytes in host order.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Appends an attribute of eight bytes in network order.
    pub fn u64_be(&mut self, kind: u16, value: u64) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Appends an attribute with an address of 4 or 16 bytes.
    pub fn address(&mut self, kind: u16, address: IpAddr) -> &mut Self {
        match address {
            IpAddr::V4(v4) => self.bytes(kind, &v4.octets()),
            IpAddr::V6(v6) => self.bytes(kind, &v6.octets()),
        }
    }

    /// Appends an attribute with NUL-terminated text. The kernel ignores the rest after a NUL inside of the text.
    pub fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        self.open(kind, |writer| {
            writer.bytes.extend_from_slice(text.as_bytes());
            writer.bytes.push(0);
        })
    }

    /// Appends an attribute that contains the attributes that `fill` writes.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Writer<'_>)) -> &mut Self {
        self.open(kind | NESTED, fill)
    }

    fn open(&mut self, kind: u16, fill: impl FnOnce(&mut Writer<'_>)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER]);
        fill(self);
        let length = self.bytes.len() - start;
        match u16::try_from(length) {
            Ok(length) => self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.too_long = self.too_long.or(Some((kind & !NESTED, length))),
        }
        self.bytes[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        self.pad();
        self
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len() + padding(self.bytes.len()), 0);
    }
}
