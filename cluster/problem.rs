//! What is wrong with an object, in words that name the field and what was expected.

use std::fmt;

/// One field of an object that could not be understood. The field is skipped, the rest of the
/// object counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, as in `spec.ports[0].port`.
    pub field: String,
    /// What stands there.
    pub value: String,
    /// What was expected.
    pub expected: &'static str,
}

impl Problem {
    pub(crate) fn new(field: impl Into<String>, value: impl fmt::Display, expected: &'static str) -> Self {
        Problem { field: field.into(), value: value.to_string(), expected }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?} is ignored, expected {}", self.field, self.value, self.expected)
    }
}
