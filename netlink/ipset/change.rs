use std::iter::Peekable;

use super::entry::SetEntry;
use super::list::inside;
use super::rejection::refused;
use super::{IpSets, attributes, commands, push_named};
use crate::batches::SEND;
use crate::error::Result;
use crate::message::{Batch, Messages};
use crate::netfilter;

/// Entries in one message. The largest takes 84 bytes, so the message stays below 32 KiB: the kernel repeats
/// the whole of it if it refuses one, and that must fit the socket's buffer.
const ENTRIES_A_MESSAGE: usize = 350;

/// Bytes of the error number before the copy of the request (`struct nlmsgerr`).
const ERRNO: usize = 4;

impl IpSets {
    /// Deletes entries from a set, then adds others. To delete one that isn't there and to add one that is are
    /// no errors. Both are sent as they are drawn, and memory does not grow with their number.
    ///
    /// # Errors
    /// [`Error::Set`](crate::Error::Set) with the first entry that the kernel refused, and why: the set is
    /// full, the entry is of the other family or another type than the set. Up to some thousand entries after
    /// it may be in the set and others not; what is right to do is to list it. Without entry and with `ENOENT`
    /// if there is no such set.
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
                    // The kernel overwrites it in the copy that it sends back with a rejection.
                    message.u32(attributes::LINENO, 0).nested(attributes::ADT, |list| {
                        for (entry, number) in entries.by_ref().take(ENTRIES_A_MESSAGE).zip(1..) {
                            list.nested(attributes::DATA, |data| entry.write(data, number));
                        }
                    });
                })?;
            }
            self.socket.transact_reading(action, &mut batch, |_, error, answer| {
                Err(refused(error, name, refused_entry(answer), bitmap))
            })?;
        }
        Ok(())
    }
}

/// The entry that an answer is about: the request in it says which by number. Most refusals carry no request.
fn refused_entry(answer: &[u8]) -> Option<SetEntry> {
    let message = Messages::new(answer.get(ERRNO..)?).next()?.ok()?;
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
            let _ = refused_entry(&answer);
        }
    }
}
