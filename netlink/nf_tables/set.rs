//! Sets and maps: what their keys and data are, and what may be in them.

use std::sync::Arc;

use super::comment;
use super::data_type::DataType;
use super::element::Key;

/// What a set is: everything but its elements. Two of the same name that differ in it cannot be made into one another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SetSpec {
    /// The parts of the key: five at most, as their types are kept in one number.
    pub key: Arc<[DataType]>,
    /// What belongs to each key, in a map; [`DataType::Verdict`] for a verdict map.
    pub data: Arc<[DataType]>,
    /// Its elements are ranges.
    pub interval: bool,
    /// Rules may add elements from the packet path.
    pub dynamic: bool,
    /// Elements go after this many milliseconds unless they say otherwise; `Some(0)` for elements that may have a
    /// timeout, and have none by default.
    pub timeout: Option<u64>,
    /// The most elements it may have.
    pub size: Option<u32>,
    /// What is said of it.
    pub comment: Option<Arc<str>>,
}

impl SetSpec {
    /// A set of such keys.
    pub fn new(key: &[DataType]) -> Self {
        SetSpec {
            key: key.into(),
            data: Arc::default(),
            interval: false,
            dynamic: false,
            timeout: None,
            size: None,
            comment: None,
        }
    }

    /// A map from such keys to verdicts.
    pub fn verdict_map(key: &[DataType]) -> Self {
        Self::new(key).with_data(&[DataType::Verdict])
    }

    /// Makes it a map to such data.
    pub fn with_data(self, data: &[DataType]) -> Self {
        SetSpec { data: data.into(), ..self }
    }

    /// Makes its elements ranges.
    pub fn with_intervals(self) -> Self {
        SetSpec { interval: true, ..self }
    }

    /// Says something of it; at most 127 bytes are kept.
    pub fn with_comment(self, text: &str) -> Self {
        SetSpec { comment: Some(comment::shortened(text).into()), ..self }
    }

    /// Whether it is a map.
    pub fn is_map(&self) -> bool {
        !self.data.is_empty()
    }

    /// Bytes of a key: each part fills whole registers if there are several.
    pub(super) fn key_length(&self) -> usize {
        length(&self.key)
    }

    /// Bytes of what belongs to a key.
    pub(super) fn data_length(&self) -> usize {
        length(&self.data)
    }

    /// Whether ranges are kept as one element each, with both ends, as those of keys of several parts are. Those of a
    /// single part are two elements: where a range begins, and where none begins anew.
    pub(super) fn has_range_elements(&self) -> bool {
        self.interval && self.key.len() > 1
    }

    /// Whether every part of the key is between those of the ends.
    pub(super) fn covers(&self, first: &Key, last: Option<&Key>, key: &Key) -> bool {
        let last = last.unwrap_or(first);
        let mut at = 0;
        self.key.iter().all(|part| {
            let this = at..at + part.length();
            at += part.length().next_multiple_of(4);
            let part = |key: &'_ Key| key.bytes().get(this.clone()).map(<[u8]>::to_vec);
            part(first) <= part(key) && part(key) <= part(last)
        })
    }
}

fn length(types: &[DataType]) -> usize {
    match types {
        [one] => one.length(),
        several => several.iter().map(|part| part.length().next_multiple_of(4)).sum(),
    }
}

/// The type of keys of several parts, as `nft` knows it: six bits a part, so that there are five at most.
pub(super) fn type_number(types: &[DataType]) -> u32 {
    debug_assert!(types.len() <= 5, "the types of {types:?} do not fit into a number");
    match types {
        [one] => one.number(),
        several => several.iter().fold(0, |number, part| number << 6 | part.number()),
    }
}

/// Takes such a number apart. `None` if a part is not one that we know.
pub(super) fn types_of(number: u32) -> Option<Vec<DataType>> {
    if let Some(verdict) = DataType::from_number(number) {
        return Some(vec![verdict]);
    }
    let mut parts = Vec::new();
    let mut rest = number;
    while rest > 0 {
        parts.push(DataType::from_number(rest & 0x3f)?);
        rest >>= 6;
    }
    parts.reverse();
    Some(parts)
}
