//! Elements of sets and maps.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use super::data::Verdict;
use super::set::SetSpec;

/// A key, or the data of a map: its concatenated parts, each padded to a multiple of 4 bytes. (The kernel expects keys of a
/// single part without padding, which is removed when the key is written.)
#[derive(Clone)]
pub struct Key(Bytes);

/// The longest key without an allocation: an IPv6 address with protocol, port and number.
const SHORT: usize = 30;

#[derive(Clone)]
enum Bytes {
    Short(u8, [u8; SHORT]),
    Long(Box<[u8]>),
}

/// Sets are searched by the bytes of a key.
impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.bytes()).finish()
    }
}

impl Default for Key {
    fn default() -> Self {
        Key(Bytes::Short(0, [0; SHORT]))
    }
}

impl Key {
    /// Returns a key without parts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a part.
    pub fn part(self, bytes: &[u8]) -> Self {
        let start = self.bytes().len();
        let length = (start + bytes.len()).next_multiple_of(4);
        match self.0 {
            Bytes::Short(_, mut all) if length <= SHORT => {
                all[start..start + bytes.len()].copy_from_slice(bytes);
                Key(Bytes::Short(length as u8, all))
            }
            ref shorter => {
                let mut all = Vec::with_capacity(length);
                all.extend_from_slice(shorter.as_slice());
                all.extend_from_slice(bytes);
                all.resize(length, 0);
                Key(Bytes::Long(all.into()))
            }
        }
    }

    /// Appends an address.
    pub fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => self.part(&v4.octets()),
            IpAddr::V6(v6) => self.part(&v6.octets()),
        }
    }

    /// Appends a transport protocol (`IPPROTO_*`).
    pub fn protocol(self, protocol: u8) -> Self {
        self.part(&[protocol])
    }

    /// Appends a port.
    pub fn port(self, port: u16) -> Self {
        self.part(&port.to_be_bytes())
    }

    /// Appends a mark or another number of four bytes in host byte order.
    pub fn number(self, number: u32) -> Self {
        self.part(&number.to_ne_bytes())
    }

    /// Returns all bytes with padding.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// Returns the next key, interpreting the bytes as one big-endian number; `None` after the last.
    pub(super) fn successor(&self, length: usize) -> Option<Self> {
        let mut next = self.clone();
        for byte in next.0.as_mut_slice()[..length].iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte > 0 {
                return Some(next);
            }
        }
        None
    }

    /// Returns the previous key; `None` before the first.
    pub(super) fn predecessor(&self, length: usize) -> Option<Self> {
        let mut previous = self.clone();
        for byte in previous.0.as_mut_slice()[..length].iter_mut().rev() {
            *byte = byte.wrapping_sub(1);
            if *byte < 255 {
                return Some(previous);
            }
        }
        None
    }

    /// Returns a key that the kernel listed.
    pub(super) fn from_kernel(bytes: &[u8]) -> Self {
        Key::new().part(bytes)
    }

    /// Returns the bytes that the kernel expects.
    pub(super) fn for_kernel(&self, length: usize) -> &[u8] {
        let bytes = self.bytes();
        &bytes[..length.min(bytes.len())]
    }
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Short(length, bytes) => &bytes[..usize::from(*length)],
            Bytes::Long(bytes) => bytes,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        match self {
            Bytes::Short(length, bytes) => &mut bytes[..usize::from(*length)],
            Bytes::Long(bytes) => bytes,
        }
    }
}

impl From<IpAddr> for Key {
    fn from(address: IpAddr) -> Self {
        Key::new().address(address)
    }
}

/// The data of a map element.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ElementData {
    /// Bytes.
    Value(Key),
    /// A verdict, in a verdict map.
    Verdict(Verdict),
}

/// An element of a set or map without its key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Element {
    /// The last key of a range that starts at the key, inclusive, in an interval set.
    pub last: Option<Key>,
    /// The data, in a map.
    pub data: Option<ElementData>,
    /// The timeout in milliseconds, if not the default of the set.
    pub timeout: Option<u64>,
}

impl Element {
    /// Returns an element of a set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a range that ends with `last`.
    pub fn range_to(last: Key) -> Self {
        Element { last: Some(last), ..Self::default() }
    }

    /// Returns an element of a verdict map.
    pub fn verdict(verdict: Verdict) -> Self {
        Element { data: Some(ElementData::Verdict(verdict)), ..Self::default() }
    }

    /// Sets the timeout in milliseconds.
    pub fn with_timeout(self, milliseconds: u64) -> Self {
        Element { timeout: Some(milliseconds), ..self }
    }

    /// Returns an element of a map to values.
    pub fn value(value: Key) -> Self {
        Element { data: Some(ElementData::Value(value)), ..Self::default() }
    }
}

/// Returns the end of a range of one part as the kernel stores it: the first key after the range, if any.
pub(super) fn end_of_range(key: &Key, element: &Element, spec: &SetSpec) -> Option<Key> {
    element.last.as_ref().unwrap_or(key).successor(spec.key_length())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_all_lengths_have_their_bytes() {
        assert_eq!(size_of::<Key>(), 32);
        for length in 0..=64 {
            let bytes: Vec<u8> = (1..=length).collect();
            let whole = Key::new().part(&bytes);
            let padded = usize::from(length).next_multiple_of(4);
            assert_eq!((whole.bytes().len(), &whole.bytes()[..bytes.len()]), (padded, &bytes[..]));
            let parts = bytes.chunks(4).fold(Key::new(), Key::part);
            assert_eq!(parts, whole);
            assert_eq!(parts.cmp(&Key::new().part(&[1])), whole.bytes().cmp(&[1, 0, 0, 0]));
        }
    }

    #[test]
    fn successor_and_predecessor_are_inverse() {
        let key = |address: &str| Key::from(address.parse::<IpAddr>().expect("an address"));
        for (from, to) in [("10.0.0.255", "10.0.1.0"), ("0.0.0.0", "0.0.0.1"), ("::ffff:ffff", "::1:0:0")] {
            let length = key(from).bytes().len();
            assert_eq!(key(from).successor(length), Some(key(to)));
            assert_eq!(key(to).predecessor(length), Some(key(from)));
        }
        assert_eq!(key("255.255.255.255").successor(4), None);
        assert_eq!(key("0.0.0.0").predecessor(4), None);
        assert_eq!(Key::new().port(80).successor(2), Some(Key::new().port(81)), "padding is not counted");
    }
}
