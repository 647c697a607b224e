//! Batches of changes of routes, neighbours and FDB entries.

use crate::batches::Batches;
use crate::error::{Error, Result};
use crate::message::{CREATE, EXCLUSIVE};
use crate::route::Rtnetlink;
use crate::route::neighbour::{FdbEntry, Neighbour};
use crate::route::route::Route;

/// `NLM_F_REPLACE`.
const REPLACE: u16 = libc::NLM_F_REPLACE as u16;

/// Changes of routes, neighbours and FDB entries, executed in order by [`Rtnetlink::forward`].
#[derive(Debug)]
pub struct ForwardingBatch {
    requests: Batches,
    /// The protocol number of the routes.
    protocol: u8,
    /// Whether each request deletes.
    deletes: Vec<bool>,
}

impl ForwardingBatch {
    /// Returns an empty batch, for routes with this protocol number (`RTPROT_*`).
    pub fn new(protocol: u8) -> Self {
        ForwardingBatch { requests: Batches::new(), protocol, deletes: Vec::new() }
    }

    /// Returns the number of changes.
    pub fn len(&self) -> usize {
        self.deletes.len()
    }

    /// Returns true if there are no changes.
    pub fn is_empty(&self) -> bool {
        self.deletes.is_empty()
    }

    /// Adds a route. The kernel rejects it with `EEXIST` if another one has the same destinations and metric, whichever program
    /// added that.
    pub fn add_route(&mut self, route: &Route) {
        self.push_route("add a route", libc::RTM_NEWROUTE, CREATE | EXCLUSIVE, route);
    }

    /// Replaces a route with the same destinations and metric, whichever program added that. Packets find one of the two at all
    /// times.
    pub fn replace_route(&mut self, route: &Route) {
        self.push_route("replace a route", libc::RTM_NEWROUTE, CREATE | REPLACE, route);
    }

    /// Deletes a route with the protocol number of the batch.
    pub fn delete_route(&mut self, route: &Route) {
        self.push_route("delete a route", libc::RTM_DELROUTE, 0, route);
    }

    /// Adds a permanent neighbour, or changes the MAC address of its IP address.
    pub fn set_neighbour(&mut self, neighbour: &Neighbour) {
        self.push_neighbour("set a neighbour", libc::RTM_NEWNEIGH, CREATE | REPLACE, neighbour);
    }

    /// Deletes a neighbour.
    pub fn delete_neighbour(&mut self, neighbour: &Neighbour) {
        self.push_neighbour("delete a neighbour", libc::RTM_DELNEIGH, 0, neighbour);
    }

    /// Adds an FDB entry, or changes the remote host of its MAC address.
    pub fn set_fdb_entry(&mut self, entry: &FdbEntry) {
        self.push_fdb_entry("set an FDB entry", libc::RTM_NEWNEIGH, CREATE | REPLACE, entry);
    }

    /// Deletes an FDB entry.
    pub fn delete_fdb_entry(&mut self, entry: &FdbEntry) {
        self.push_fdb_entry("delete an FDB entry", libc::RTM_DELNEIGH, 0, entry);
    }

    fn push_route(&mut self, action: &'static str, kind: u16, flags: u16, route: &Route) {
        let protocol = self.protocol;
        self.pushed(kind, |requests| {
            requests.push(action, kind, flags, |message| route.write(protocol, message))
        });
    }

    fn push_neighbour(&mut self, action: &'static str, kind: u16, flags: u16, neighbour: &Neighbour) {
        self.pushed(kind, |requests| requests.push(action, kind, flags, |message| neighbour.write(message)));
    }

    fn push_fdb_entry(&mut self, action: &'static str, kind: u16, flags: u16, entry: &FdbEntry) {
        self.pushed(kind, |requests| requests.push(action, kind, flags, |message| entry.write(message)));
    }

    fn pushed(&mut self, kind: u16, push: impl FnOnce(&mut Batches) -> Result<()>) {
        push(&mut self.requests).expect("attributes of 16 bytes are short");
        self.deletes.push(matches!(kind, libc::RTM_DELROUTE | libc::RTM_DELNEIGH));
    }
}

impl Rtnetlink {
    /// Executes a batch with as few sends as the socket's buffer allows. Calls `rejected` with the position of each rejected
    /// change in the batch; the others take effect. Deleting what does not exist is no rejection.
    ///
    /// # Errors
    /// [`Error::Overrun`] if responses were lost: it is then unknown which changes the kernel rejected.
    pub fn forward(
        &mut self,
        batch: &mut ForwardingBatch,
        mut rejected: impl FnMut(usize, Error),
    ) -> Result<()> {
        let ForwardingBatch { requests, deletes, .. } = batch;
        self.socket.transact_all("change routes, neighbours and FDB entries", requests, |position, error| {
            let is_missing = matches!(error.errno(), Some(libc::ESRCH | libc::ENOENT | libc::ENODEV));
            if !(deletes[position] && is_missing) {
                rejected(position, error);
            }
            Ok(())
        })
    }
}
