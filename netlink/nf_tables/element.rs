//! Elements of sets and maps.

use std::borrow::Borrow;
use std::net::IpAddr;

use super::data::Verdict;
use super::set::SetSpec;

/// A key, or the data of a map: its concatenated parts, each padded to a multiple of 4 bytes. (The kernel expects keys of a
/// single part without padding, which is removed when the key is written.)
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Box<[u8]>);

/// Sets are searched by the bytes of a key.
impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl Key {
    /// Returns a key without parts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a part.
    pub fn part(self, bytes: &[u8]) -> Self {
        let mut all = Vec::with_capacity(self.0.len() + bytes.len().next_multiple_of(4));
        all.extend_from_slice(&self.0);
        all.extend_from_slice(bytes);
        all.resize(all.len().next_multiple_of(4), 0);
        Key(all.into())
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
        &self.0
    }

    /// Returns the next key, interpreting the bytes as one big-endian number; `None` after the last.
    pub(super) fn successor(&self, length: usize) -> Option<Self> {
        let mut bytes = self.0.clone();
        for byte in bytes[..length].iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte > 0 {
                return Some(Key(bytes));
            }
        }
        None
    }

    /// Returns the previous key; `None` before the first.
    pub(super) fn predecessor(&self, length: usize) -> Option<Self> {
        let mut bytes = self.0.clone();
        for byte in bytes[..length].iter_mut().rev() {
            *byte = byte.wrapping_sub(1);
            if *byte < 255 {
                return Some(Key(bytes));
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
        &self.0[..length.min(self.0.len())]
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
