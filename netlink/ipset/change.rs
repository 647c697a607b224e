//! Adds and deletes entries of a set.

use std::iter::Peekable;

use super::entry::SetEntry;
use super::list::inside;
use super::rejection::set_error;
use super::{IpSets, attributes, commands, push_named};
use crate::batches::SEND;
use crate::error::Result;
use crate::message::{Batch, Messages};
use crate::netfilter;

/// The number of entries in one message. The largest has 84 bytes, so the message stays below 32 KiB: the kernel returns the
/// whole message if it rejects an entry, and that must fit the socket's buffer.
const ENTRIES_PER_MESSAGE: usize = 350;

/// The bytes of the error number, which precedes the copy of the request (`struct nlmsgerr`).
const ERRNO: usize = 4;

impl IpSets {
    /// Deletes entries from a set, then adds entries. Deleting a missing entry or adding an existing one is no error. Entries
    /// are sent while the iterators yield them, so memory does not grow with their number.
    ///
    /// # Errors
    /// [`Error::Set`](crate::Error::Set) with the first rejected entry and the reason: the set is full, or the entry has
    /// another family or type than the set. Some of the later entries may be in the set: list it to find out. Without an
    /// entry and with `ENOENT` if the set is missing.
    pub fn change(
        &mut self,
        name: &str,
        adds: impl IntoIterator<Item = SetEntry>,
        deletes: impl IntoIterator<Item = SetEntry>,
    ) -> Result<()> {
        self.run("delete from an ipset", commands::DEL, name, deletes.into_iter().peekable())?;
        self.run("add to an ipset", commands::ADD, name, adds.into_iter().peekable())
    }

    fn run(
        &mut self,
        action: &'static str,
        command: u8,
        name: &str,
        mut entries: Peekable<impl Iterator<Item = SetEntry>>,
    ) -> Result<()> {
        let bitmap = matches!(entries.peek(), Some(SetEntry::Port(_)));
        let mut batch = Batch::new();
        while entries.peek().is_some() {
            batch.clear();
            while batch.size() < SEND && entries.peek().is_some() {
                push_named(&mut batch, action, command, 0, name, |message| {
                    // The kernel overwrites the number in the copy that it returns with a rejection.
                    message.u32(attributes::LINENO, 0).nested(attributes::ADT, |list| {
                        for (entry, number) in entries.by_ref().take(ENTRIES_PER_MESSAGE).zip(1..) {
                            list.nested(attributes::DATA, |data| entry.write(data, number));
                        }
                    });
                })?;
            }
            self.socket.transact_reading(action, &mut batch, |_, error, response| {
                Err(set_error(error, name, rejected_entry(response), bitmap))
            })?;
        }
        Ok(())
    }
}

/// Returns the rejected entry of an error message, which the copy of the request names by number. Most rejections have no
/// copy.
fn rejected_entry(response: &[u8]) -> Option<SetEntry> {
    let message = Messages::new(response.get(ERRNO..)?).next()?.ok()?;
    let (_, attributes) = message.split::<{ netfilter::HEADER }>().ok()?;
    let (mut number, mut entries) = (None, None);
    for attribute in attributes.flatten() {
        match attribute.kind {
            attributes::LINENO => number = attribute.u32().ok(),
            attributes::ADT => entries = Some(attribute),
            _ => {}
        }
    }
    let number = number.filter(|&number| number != 0);
    inside(entries?.nested(), attributes::DATA)
        .flatten()
        .filter_map(|data| SetEntry::parse(&data).ok().flatten())
        .find_map(|(entry, its)| (its == number && number.is_some()).then_some(entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn noise_never_panics(answer in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = rejected_entry(&answer);
        }
    }
}
