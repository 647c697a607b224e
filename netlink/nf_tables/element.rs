//! Elements of sets and maps.

use std::net::IpAddr;

use super::data::Verdict;
use super::set::SetSpec;

/// A key, or the data of a map: the bytes of its parts one after another, each filled up to whole registers of 4
/// bytes. (The kernel wants a key of a single part without the filling; that is done when it is written.)
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Box<[u8]>);

impl Key {
    /// A key without parts, to add to.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part as it stands.
    pub fn part(self, bytes: &[u8]) -> Self {
        let mut all = Vec::with_capacity(self.0.len() + bytes.len().next_multiple_of(4));
        all.extend_from_slice(&self.0);
        all.extend_from_slice(bytes);
        all.resize(all.len().next_multiple_of(4), 0);
        Key(all.into())
    }

    /// Adds an address.
    pub fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => self.part(&v4.octets()),
            IpAddr::V6(v6) => self.part(&v6.octets()),
        }
    }

    /// Adds a transport protocol (`IPPROTO_*`).
    pub fn protocol(self, protocol: u8) -> Self {
        self.part(&[protocol])
    }

    /// Adds a port.
    pub fn port(self, port: u16) -> Self {
        self.part(&port.to_be_bytes())
    }

    /// Adds a mark, or another number of four bytes in host order.
    pub fn number(self, number: u32) -> Self {
        self.part(&number.to_ne_bytes())
    }

    /// All bytes, filled up.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key whose bytes are the number after these, read as one big-endian number; `None` after the last.
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

    /// The key before, so that it is the last of a range that ends before this one.
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

    /// A key of a set as the kernel lists it.
    pub(super) fn from_kernel(bytes: &[u8]) -> Self {
        Key::new().part(bytes)
    }

    /// The key as the kernel wants it.
    pub(super) fn for_kernel(&self, length: usize) -> &[u8] {
        &self.0[..length.min(self.0.len())]
    }
}

impl From<IpAddr> for Key {
    fn from(address: IpAddr) -> Self {
        Key::new().address(address)
    }
}

/// What belongs to a key in a map.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ElementData {
    /// Bytes.
    Value(Key),
    /// A verdict.
    Verdict(Verdict),
}

/// What an element is besides its key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Element {
    /// The last key of the range that begins with the key, in a set of ranges; it belongs to the range.
    pub last: Option<Key>,
    /// What belongs to the key, in a map.
    pub data: Option<ElementData>,
    /// How long it stays, in milliseconds, if not as long as its set says.
    pub timeout: Option<u64>,
}

impl Element {
    /// An element of a set.
    pub fn new() -> Self {
        Self::default()
    }

    /// An element of a set of ranges that ends with `last`.
    pub fn range_to(last: Key) -> Self {
        Element { last: Some(last), ..Self::default() }
    }

    /// An element of a verdict map.
    pub fn verdict(verdict: Verdict) -> Self {
        Element { data: Some(ElementData::Verdict(verdict)), ..Self::default() }
    }

    /// The same, with a timeout in milliseconds.
    pub fn with_timeout(self, milliseconds: u64) -> Self {
        Element { timeout: Some(milliseconds), ..self }
    }

    /// An element of a map to data.
    pub fn value(value: Key) -> Self {
        Element { data: Some(ElementData::Value(value)), ..Self::default() }
    }
}

/// Where the end of a range of one part lies, as the kernel keeps it: the first key beyond; `None` if there is none.
pub(super) fn end_of_range(key: &Key, element: &Element, spec: &SetSpec) -> Option<Key> {
    element.last.as_ref().unwrap_or(key).successor(spec.key_length())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_neighbours_but_for_the_ends() {
        let key = |address: &str| Key::from(address.parse::<IpAddr>().expect("an address"));
        for (from, to) in [("10.0.0.255", "10.0.1.0"), ("0.0.0.0", "0.0.0.1"), ("::ffff:ffff", "::1:0:0")] {
            let length = key(from).bytes().len();
            assert_eq!(key(from).successor(length), Some(key(to)));
            assert_eq!(key(to).predecessor(length), Some(key(from)));
        }
        assert_eq!(key("255.255.255.255").successor(4), None);
        assert_eq!(key("0.0.0.0").predecessor(4), None);
        assert_eq!(Key::new().port(80).successor(2), Some(Key::new().port(81)), "the filling is no number");
    }
}
