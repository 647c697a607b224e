//! Neighbours, and entries of forwarding databases (FDB), which have the same messages.

mod list;

pub(super) use list::Entry;
pub use list::{FdbEntry, Neighbour};

/// Parses a message, for tests with random bytes.
#[cfg(test)]
pub(super) fn parse_random_bytes(message: &crate::message::Message<'_>) {
    let _ = Entry::parse(message);
}
