//! Specifications of sets and maps: key, data and flags.

use std::sync::Arc;

use super::comment;
use super::data_type::DataType;

/// The specification of a set or map: everything except its elements. The kernel cannot change the specification of an
/// existing set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SetSpec {
    /// The types of the parts of the key: at most five, because one number encodes them.
    pub key: Arc<[DataType]>,
    /// The types of the data of a map; [`DataType::Verdict`] for a verdict map; empty for a set.
    pub data: Arc<[DataType]>,
    /// The elements are ranges.
    pub interval: bool,
    /// Rules may add elements.
    pub dynamic: bool,
    /// The default timeout of elements in milliseconds; `Some(0)` if elements may have a timeout, but have none by default.
    pub timeout: Option<u64>,
    /// The maximum number of elements.
    pub size: Option<u32>,
    /// Each element counts the packets and bytes of the lookups that find it (since Linux 5.7).
    pub counter: bool,
    /// The comment.
    pub comment: Option<Arc<str>>,
}

impl SetSpec {
    /// Returns the specification of a set.
    pub fn new(key: &[DataType]) -> Self {
        SetSpec {
            key: key.into(),
            data: Arc::default(),
            interval: false,
            dynamic: false,
            timeout: None,
            size: None,
            counter: false,
            comment: None,
        }
    }

    /// Returns the specification of a verdict map.
    pub fn verdict_map(key: &[DataType]) -> Self {
        Self::new(key).with_data(&[DataType::Verdict])
    }

    /// Makes it a map with data of these types.
    pub fn with_data(self, data: &[DataType]) -> Self {
        SetSpec { data: data.into(), ..self }
    }

    /// Makes it an interval set.
    pub fn with_intervals(self) -> Self {
        SetSpec { interval: true, ..self }
    }

    /// Makes each element count the packets that match it.
    pub fn with_counters(self) -> Self {
        SetSpec { counter: true, ..self }
    }

    /// Sets the comment, truncated to 127 bytes.
    pub fn with_comment(self, text: &str) -> Self {
        SetSpec { comment: Some(comment::sanitize(text).into()), ..self }
    }

    /// Returns true for a map.
    pub fn is_map(&self) -> bool {
        !self.data.is_empty()
    }

    /// Returns true for a map whose data are values, not verdicts.
    pub(super) fn is_value_map(&self) -> bool {
        self.is_map() && *self.data != [DataType::Verdict]
    }

    /// Returns the length of a key in bytes. In concatenated keys, each part is padded to whole registers.
    pub(super) fn key_length(&self) -> usize {
        length(&self.key)
    }

    /// Returns the length of the data in bytes.
    pub(super) fn data_length(&self) -> usize {
        length(&self.data)
    }

    /// Returns true if the kernel stores a range as one element with both ends, as it does for concatenated keys. A range of
    /// a single part is two elements: its start, and the first key after it.
    pub(super) fn has_range_elements(&self) -> bool {
        self.interval && self.key.len() > 1
    }
}

fn length(types: &[DataType]) -> usize {
    match types {
        [one] => one.length(),
        several => several.iter().map(|part| part.length().next_multiple_of(4)).sum(),
    }
}

/// Returns the type of a concatenation as `nft` encodes it: six bits per part, so at most five parts.
pub(super) fn type_number(types: &[DataType]) -> u32 {
    debug_assert!(types.len() <= 5, "the types of {types:?} do not fit into one number");
    match types {
        [one] => one.number(),
        several => several.iter().fold(0, |number, part| number << 6 | part.number()),
    }
}

/// Decodes such a number. Returns `None` if a type is unknown.
pub(super) fn types_from_number(number: u32) -> Option<Vec<DataType>> {
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
