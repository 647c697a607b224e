//! Encoding and decoding of the message types of `netlink-packet-route`.

use netlink_packet_core::{DecodeError, Emitable, NLA_HEADER_SIZE, NLA_TYPE_MASK, NlaBuffer};
use netlink_packet_route::AddressFamily;

use crate::Family;
use crate::attribute::align;
use crate::error;
use crate::message::{Batch, Message};

impl From<Family> for AddressFamily {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        }
    }
}

/// Returns a batch of one message.
pub(super) fn batch(
    action: &'static str,
    kind: u16,
    flags: u16,
    message: &impl Emitable,
) -> error::Result<Batch> {
    Batch::with_message(action, kind, flags, |writer| _ = writer.emit(message))
}

/// Returns the attributes of these kinds after a fixed header of this length. All others are skipped by their length
/// alone: a link has about fifty attributes, of which five are needed.
pub(super) fn attributes<'a>(
    message: &Message<'a>,
    header: usize,
    kinds: &'static [u16],
) -> impl Iterator<Item = Result<NlaBuffer<&'a [u8]>, DecodeError>> {
    let mut rest = message.payload.get(header..).unwrap_or_default();
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let [a, b, c, d, ..] = *rest else { return truncated(&mut rest) };
            let length = usize::from(u16::from_ne_bytes([a, b]));
            if length < NLA_HEADER_SIZE || length > rest.len() {
                return truncated(&mut rest);
            }
            let attribute = &rest[..length];
            rest = rest.get(align(length)..).unwrap_or_default();
            if kinds.contains(&(u16::from_ne_bytes([c, d]) & NLA_TYPE_MASK)) {
                return Some(Ok(NlaBuffer::new(attribute)));
            }
        }
        None
    })
}

/// Ends the iteration with an error.
fn truncated<T>(rest: &mut &[u8]) -> Option<Result<T, DecodeError>> {
    *rest = &[];
    Some(Err("an attribute is truncated".into()))
}

/// Returns a string attribute's text up to the NUL. Invalid UTF-8 is replaced: a link's name may be any bytes.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}
