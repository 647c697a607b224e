use ipnet::IpNet;

use super::{Rtnetlink, address};
use crate::batches::Batches;
use crate::error::{Error, Result};
use crate::message::{CREATE, EXCLUSIVE};

const ADD: &str = "add an address";
const DELETE: &str = "delete an address";

/// Addresses to add and to delete, carried out in order by [`Rtnetlink::change_addresses`].
#[derive(Debug, Default)]
pub struct AddressBatch {
    requests: Batches,
    /// For each request, what it does.
    verbs: Vec<Verb>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Add,
    Delete,
}

impl Verb {
    /// Whether the kernel refused because there was nothing to do.
    fn was_done_before(self, error: &Error) -> bool {
        match self {
            Verb::Add => error.errno() == Some(libc::EEXIST),
            Verb::Delete => matches!(error.errno(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)),
        }
    }
}

impl AddressBatch {
    /// Nothing to do.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an address to the link of this index: an IPv4 one of global scope, an IPv6 one without duplicate
    /// address detection (nodad), so that it serves at once.
    pub fn add(&mut self, index: u32, address: IpNet) {
        self.push(Verb::Add, index, address);
    }

    /// Deletes an address with this length of its prefix from the link of this index. With an IPv4 address
    /// that is the first of its network on the link, the others of that network go too, unless
    /// `promote_secondaries` is set; one of length 32 is alone in its network.
    pub fn delete(&mut self, index: u32, address: IpNet) {
        self.push(Verb::Delete, index, address);
    }

    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.verbs.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.verbs.is_empty()
    }

    /// Forgets the changes and keeps the memory of one send.
    pub fn clear(&mut self) {
        self.requests.clear();
        self.verbs.clear();
    }

    fn push(&mut self, verb: Verb, index: u32, net: IpNet) {
        let (action, kind, flags) = match verb {
            Verb::Add => (ADD, libc::RTM_NEWADDR, CREATE | EXCLUSIVE),
            Verb::Delete => (DELETE, libc::RTM_DELADDR, 0),
        };
        let pushed = self.requests.push(action, kind, flags, |message| address::write(message, index, net));
        pushed.expect("attributes of 16 bytes are short");
        self.verbs.push(verb);
    }
}

impl Rtnetlink {
    /// Carries out a batch, in as few sends as fit the socket's buffer. What the kernel refuses is given to
    /// `refused` by its position in the whole batch; the rest is done. To add what is there, and to delete what
    /// is missing, are no refusals.
    ///
    /// # Errors
    /// What `refused` returns, after which the sends that remain are not made; [`Error::Overrun`] if answers
    /// were lost.
    pub fn change_addresses(
        &mut self,
        batch: &mut AddressBatch,
        mut refused: impl FnMut(usize, Error) -> Result<()>,
    ) -> Result<()> {
        let AddressBatch { requests, verbs } = batch;
        self.socket.transact_all("change addresses", requests, |position, error| match verbs[position] {
            verb if verb.was_done_before(&error) => Ok(()),
            _ => refused(position, error),
        })
    }

    /// Adds an address to a link, as [`AddressBatch::add`] does. Says whether it was missing.
    ///
    /// # Errors
    /// [`Error::Rejected`]: `ENODEV` if there is no such link, `EACCES` if IPv6 is disabled on it,
    /// `EADDRNOTAVAIL` for IPv6 addresses that no link may have, `EPERM` without CAP_NET_ADMIN.
    pub fn add_address(&mut self, index: u32, address: IpNet) -> Result<bool> {
        let mut batch = AddressBatch::new();
        batch.add(index, address);
        self.change_one(ADD, batch)
    }

    /// Deletes an address from a link, as [`AddressBatch::delete`] does. Says whether it was there.
    ///
    /// # Errors
    /// [`Error::Rejected`], as a rule for want of privilege.
    pub fn delete_address(&mut self, index: u32, address: IpNet) -> Result<bool> {
        let mut batch = AddressBatch::new();
        batch.delete(index, address);
        self.change_one(DELETE, batch)
    }

    fn change_one(&mut self, action: &'static str, mut batch: AddressBatch) -> Result<bool> {
        let mut done = true;
        let AddressBatch { requests, verbs } = &mut batch;
        self.socket.transact_all(action, requests, |position, error| {
            done = false;
            if verbs[position].was_done_before(&error) { Ok(()) } else { Err(error) }
        })?;
        Ok(done)
    }
}
