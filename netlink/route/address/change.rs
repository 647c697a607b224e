//! Addition and deletion of addresses.

use ipnet::IpNet;

use super::one;
use crate::batches::Batches;
use crate::error::{Error, Result};
use crate::message::{CREATE, EXCLUSIVE};
use crate::route::Rtnetlink;

const ADD: &str = "add an address";
const DELETE: &str = "delete an address";

/// Addresses to add and to delete, executed in order by [`Rtnetlink::change_addresses`].
#[derive(Debug, Default)]
pub struct AddressBatch {
    requests: Batches,
    /// The operation of each request.
    verbs: Vec<Verb>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Add,
    Delete,
}

impl Verb {
    /// Returns true if the kernel rejected the request because it had no effect.
    fn had_no_effect(self, error: &Error) -> bool {
        match self {
            Verb::Add => error.errno() == Some(libc::EEXIST),
            Verb::Delete => matches!(error.errno(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)),
        }
    }
}

impl AddressBatch {
    /// Returns an empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an address to the link with this index: an IPv4 address with global scope, an IPv6 address without
    /// duplicate address detection (nodad), so that it is usable immediately.
    pub fn add(&mut self, index: u32, address: IpNet) {
        self.push(Verb::Add, index, address);
    }

    /// Deletes an address with this prefix length from the link with this index. If an IPv4 address is the first of its
    /// network on the link, the kernel deletes the others of that network too, unless `promote_secondaries` is set; an
    /// address with prefix length 32 is the only one of its network.
    pub fn delete(&mut self, index: u32, address: IpNet) {
        self.push(Verb::Delete, index, address);
    }

    /// Returns the number of changes.
    pub fn len(&self) -> usize {
        self.verbs.len()
    }

    /// Returns true if there are no changes.
    pub fn is_empty(&self) -> bool {
        self.verbs.is_empty()
    }

    /// Removes all changes and keeps the memory of one send.
    pub fn clear(&mut self) {
        self.requests.clear();
        self.verbs.clear();
    }

    fn push(&mut self, verb: Verb, index: u32, net: IpNet) {
        let (action, kind, flags) = match verb {
            Verb::Add => (ADD, libc::RTM_NEWADDR, CREATE | EXCLUSIVE),
            Verb::Delete => (DELETE, libc::RTM_DELADDR, 0),
        };
        let pushed = self.requests.push(action, kind, flags, |message| _ = message.emit(&one(index, net)));
        pushed.expect("attributes of 16 bytes are short");
        self.verbs.push(verb);
    }
}

impl Rtnetlink {
    /// Executes a batch with as few sends as the socket's buffer allows. Calls `rejected` with the position of each
    /// rejected change in the batch; the others take effect. Adding an existing address and deleting a missing one are
    /// no rejections.
    ///
    /// # Errors
    /// The error of `rejected`, after which the remaining sends are skipped; [`Error::Overrun`] if responses were lost.
    pub fn change_addresses(
        &mut self,
        batch: &mut AddressBatch,
        mut rejected: impl FnMut(usize, Error) -> Result<()>,
    ) -> Result<()> {
        let AddressBatch { requests, verbs } = batch;
        self.socket.transact_all("change addresses", requests, |position, error| match verbs[position] {
            verb if verb.had_no_effect(&error) => Ok(()),
            _ => rejected(position, error),
        })
    }

    /// Adds an address to a link, as [`AddressBatch::add`]. Returns false if it existed.
    ///
    /// # Errors
    /// [`Error::Rejected`]: `ENODEV` if there is no such link, `EACCES` if IPv6 is disabled on it, `EADDRNOTAVAIL` for
    /// IPv6 addresses that no link may have, `EPERM` without CAP_NET_ADMIN.
    pub fn add_address(&mut self, index: u32, address: IpNet) -> Result<bool> {
        let mut batch = AddressBatch::new();
        batch.add(index, address);
        self.change_one(ADD, batch)
    }

    /// Deletes an address from a link, as [`AddressBatch::delete`]. Returns false if it did not exist.
    ///
    /// # Errors
    /// [`Error::Rejected`], usually without privilege.
    pub fn delete_address(&mut self, index: u32, address: IpNet) -> Result<bool> {
        let mut batch = AddressBatch::new();
        batch.delete(index, address);
        self.change_one(DELETE, batch)
    }

    fn change_one(&mut self, action: &'static str, mut batch: AddressBatch) -> Result<bool> {
        let mut had_effect = true;
        let AddressBatch { requests, verbs } = &mut batch;
        self.socket.transact_all(action, requests, |position, error| {
            had_effect = false;
            if verbs[position].had_no_effect(&error) { Ok(()) } else { Err(error) }
        })?;
        Ok(had_effect)
    }
}
