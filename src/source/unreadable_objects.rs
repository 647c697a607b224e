//! The objects that cannot be read, as messages list them.

use std::fmt;

use crate::truncated_list;

/// How many reasons a message has.
const MAX_REASONS: usize = 10;

/// Why documents or objects cannot be read: one line each, with the file and line or the object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnreadableObjects(pub Vec<String>);

impl fmt::Display for UnreadableObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&truncated_list::clauses(&self.0, MAX_REASONS))
    }
}
