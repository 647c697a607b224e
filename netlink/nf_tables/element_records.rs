//! Elements of one layout as records of the same length.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::element::{Element, ElementData, Key};

/// A table with fewer elements than this part of its capacity is sparse: an eighth.
pub(super) const SPARSE: usize = 8;

/// Elements of one layout: key, end of the range, data. Their numbers are 0 to the number of elements - 1.
#[derive(Clone, Default)]
pub(super) struct Records {
    layout: Layout,
    bytes: Vec<u8>,
    /// The number of each record, found by the hash of its key.
    index: HashTable<u32>,
    hasher: RandomState,
}

/// The lengths of the parts of a record, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Layout {
    key: u8,
    /// 0 if the element is not a range.
    last: u8,
    /// 0 without data.
    data: u8,
}

impl Layout {
    /// Returns the layout of an element; `None` if a record cannot have it.
    fn of(key: &Key, element: &Element) -> Option<Self> {
        let length = |key: &Key| u8::try_from(key.bytes().len()).ok().filter(|length| *length > 0);
        let last = element.last.as_ref().map_or(Some(0), length)?;
        let data = match &element.data {
            None => 0,
            Some(ElementData::Value(value)) => length(value)?,
            Some(ElementData::Verdict(_)) => return None,
        };
        element.timeout.is_none().then_some(Layout { key: length(key)?, last, data })
    }

    fn size(self) -> usize {
        usize::from(self.key) + usize::from(self.last) + usize::from(self.data)
    }
}

impl Records {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns the approximate memory in bytes.
    #[cfg(test)]
    pub(super) fn allocated(&self) -> usize {
        self.bytes.capacity() + self.index.capacity() * 5
    }

    pub(super) fn accepts(&self, key: &Key, element: &Element) -> bool {
        let layout = Layout::of(key, element);
        layout.is_some_and(|layout| layout == self.layout || self.index.is_empty())
            && self.index.len() < u32::MAX as usize
    }

    fn record(&self, at: usize) -> &[u8] {
        let size = self.layout.size();
        &self.bytes[at * size..(at + 1) * size]
    }

    pub(super) fn key(&self, at: usize) -> Key {
        Key::new().part(&self.record(at)[..usize::from(self.layout.key)])
    }

    pub(super) fn element(&self, at: usize) -> Element {
        let (_, rest) = self.record(at).split_at(self.layout.key.into());
        let (last, data) = rest.split_at(self.layout.last.into());
        Element {
            last: (!last.is_empty()).then(|| Key::new().part(last)),
            data: (!data.is_empty()).then(|| ElementData::Value(Key::new().part(data))),
            timeout: None,
        }
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<usize> {
        let at = self.index.find(self.hasher.hash_one(key), |at| self.has_key(*at, key))?;
        Some(*at as usize)
    }

    fn has_key(&self, at: u32, key: &[u8]) -> bool {
        has_key(&self.bytes, self.layout, at, key)
    }

    pub(super) fn insert(&mut self, key: &Key, element: &Element) -> Option<Element> {
        if self.index.is_empty() {
            self.layout = Layout::of(key, element).expect("the caller has asked");
            self.bytes.clear();
        }
        let before = self.find(key.bytes()).map(|at| (at, self.element(at)));
        if let Some((at, before)) = before {
            let size = self.layout.size();
            let start = at * size + usize::from(self.layout.key);
            let rest = &mut self.bytes[start..(at + 1) * size];
            let (last, data) = rest.split_at_mut(self.layout.last.into());
            copy(last, element.last.as_ref());
            copy(data, value(element));
            return Some(before);
        }
        let Records { layout, bytes, index, hasher } = self;
        if bytes.len() + layout.size() > bytes.capacity() {
            // Not doubled: most sets do not grow any more once the cluster is known.
            bytes.reserve_exact((bytes.len() / 8).max(layout.size()));
        }
        let number = u32::try_from(index.len()).expect("the caller has asked");
        bytes.extend_from_slice(key.bytes());
        let rest = element.last.iter().chain(value(element));
        rest.for_each(|part| bytes.extend_from_slice(part.bytes()));
        let hash = |at: &u32| hasher.hash_one(key_at(bytes, *layout, *at));
        index.insert_unique(hasher.hash_one(key.bytes()), number, hash);
        None
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Element> {
        let at = self.find(key)?;
        let removed = self.element(at);
        let Records { layout, bytes, index, hasher } = self;
        let hash = |at: &u32| hasher.hash_one(key_at(bytes, *layout, *at));
        let last = index.len() - 1;
        let entry = index.find_entry(hasher.hash_one(key), |number| *number as usize == at);
        entry.expect("it was found").remove();
        // The last record takes its place.
        if at != last {
            let moved = index.find_mut(hash(&(last as u32)), |number| *number as usize == last);
            *moved.expect("all records are in the index") = at as u32;
            bytes.copy_within(last * layout.size().., at * layout.size());
        }
        bytes.truncate(last * layout.size());
        // A set may have had the addresses of all pods for a moment.
        if index.len() < index.capacity() / SPARSE {
            let hash = |at: &u32| hasher.hash_one(key_at(bytes, *layout, *at));
            index.shrink_to(index.len() * 2, hash);
        }
        if bytes.len() < bytes.capacity() / SPARSE {
            bytes.shrink_to(bytes.len() * 2);
        }
        Some(removed)
    }
}

fn key_at(bytes: &[u8], layout: Layout, at: u32) -> &[u8] {
    let start = at as usize * layout.size();
    &bytes[start..start + usize::from(layout.key)]
}

fn has_key(bytes: &[u8], layout: Layout, at: u32, key: &[u8]) -> bool {
    key_at(bytes, layout, at) == key
}

fn value(element: &Element) -> Option<&Key> {
    match &element.data {
        Some(ElementData::Value(value)) => Some(value),
        _ => None,
    }
}

fn copy(to: &mut [u8], from: Option<&Key>) {
    if let Some(from) = from {
        to.copy_from_slice(from.bytes());
    }
}
