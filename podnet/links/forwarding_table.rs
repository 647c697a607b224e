//! Reading and writing routes, neighbours and FDB entries.

use std::collections::BTreeMap;

use portcullis_netlink::route::{ForwardingBatch, RouteTarget, Rtnetlink};
use portcullis_netlink::{Error, Result};

use crate::ROUTE_PROTOCOL;
use crate::node_routes::{Forwarding, ForwardingChanges, ForwardingKey, ForwardingObject};

/// Objects that the kernel rejected, with its error.
pub type Rejected = BTreeMap<ForwardingKey, Error>;

/// The routes, neighbours and FDB entries of this program in the kernel.
#[derive(Debug)]
pub struct ForwardingTable {
    rtnetlink: Rtnetlink,
    /// The objects that the kernel rejected, and which are therefore not there.
    rejected: Rejected,
}

impl ForwardingTable {
    /// Opens a socket.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel has no rtnetlink.
    pub fn open() -> Result<Self> {
        Ok(ForwardingTable { rtnetlink: Rtnetlink::open()?, rejected: Rejected::new() })
    }

    /// Returns the socket.
    pub fn rtnetlink(&mut self) -> &mut Rtnetlink {
        &mut self.rtnetlink
    }

    /// Returns the objects that the kernel rejected.
    pub fn rejected(&self) -> &Rejected {
        &self.rejected
    }

    /// Reads the objects of this program: routes with its protocol, except those to the pods of this node; and all permanent neighbours and
    /// FDB entries of the VXLAN links with these indexes. Also returns objects whose key another one has.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if they change faster than they can be read.
    pub fn read(&mut self, vteps: [Option<u32>; 2]) -> Result<(Forwarding, Vec<ForwardingObject>)> {
        let routes = self.rtnetlink.routes(Some(ROUTE_PROTOCOL))?.into_iter().map(|(route, _)| route);
        let routes = routes.filter(|route| !matches!(route.target, RouteTarget::Link(_)));
        let mut objects: Vec<ForwardingObject> = routes.map(ForwardingObject::Route).collect();
        for vtep in vteps.into_iter().flatten() {
            objects.extend(self.rtnetlink.neighbours(vtep)?.into_iter().map(ForwardingObject::Neighbour));
            objects.extend(self.rtnetlink.fdb_entries(vtep)?.into_iter().map(ForwardingObject::Fdb));
        }
        let (mut forwarding, mut duplicates) = (Forwarding::new(), Vec::new());
        for object in objects {
            duplicates.extend(forwarding.insert(object.key(), object));
        }
        Ok((forwarding, duplicates))
    }

    /// Compares the kernel with the wanted objects, and writes the difference. Returns the changes that were made. `expected`: the changes since
    /// everything was last written; `None` if it is not known what the kernel has. A route that was written and that another program has
    /// replaced by its own is put back; otherwise a route of another program stays, and ours is rejected.
    ///
    /// # Errors
    /// [`Error::Interrupted`], [`Error::Overrun`] or [`Error::Io`]; single rejections are in [`ForwardingTable::rejected`].
    pub fn restore(
        &mut self,
        wanted: &Forwarding,
        vteps: [Option<u32>; 2],
        expected: Option<&ForwardingChanges>,
    ) -> Result<ForwardingChanges> {
        let (current, duplicates) = self.read(vteps)?;
        let mut batch = ForwardingBatch::new(ROUTE_PROTOCOL);
        duplicates.iter().for_each(|object| delete(&mut batch, object));
        self.rtnetlink.forward(&mut batch, |_, _| {})?;
        let changes = ForwardingChanges::between(&current, wanted);
        let rejected = std::mem::take(&mut self.rejected);
        let was_written = |key: &ForwardingKey| {
            expected.is_some_and(|expected| !rejected.contains_key(key) && !expected.adds(key))
        };
        self.write_changes(&changes, was_written)?;
        Ok(changes)
    }

    /// Writes changes in one batch. Those that the kernel rejects are in [`ForwardingTable::rejected`]; all others take effect.
    ///
    /// # Errors
    /// [`Error::Overrun`] or [`Error::Io`]: it is then unknown what was written, and everything has to be restored.
    pub fn write(&mut self, changes: &ForwardingChanges) -> Result<()> {
        self.write_changes(changes, |_| false)
    }

    /// As [`ForwardingTable::write`]. `was_written` returns true for objects that were written and that the kernel may have in another form.
    fn write_changes(
        &mut self,
        changes: &ForwardingChanges,
        was_written: impl Fn(&ForwardingKey) -> bool,
    ) -> Result<()> {
        let mut batch = ForwardingBatch::new(ROUTE_PROTOCOL);
        let mut keys = Vec::with_capacity(changes.len());
        for (key, change) in changes.in_order() {
            // What was rejected is not there: another program has a route with the same key.
            let is_missing = self.rejected.remove(key).is_some();
            let before = change.before.filter(|_| !is_missing);
            match (before, change.after) {
                (Some(before), None) => delete(&mut batch, &before),
                (None, None) => continue,
                (before, Some(after)) => set(&mut batch, before.is_some() || was_written(key), &after),
            }
            keys.push(*key);
        }
        let rejected = &mut self.rejected;
        self.rtnetlink.forward(&mut batch, |position, error| _ = rejected.insert(keys[position], error))
    }

    /// Deletes all routes to other nodes. Returns their number.
    pub(super) fn remove_routes(&mut self, is_dry_run: bool) -> Result<usize> {
        let (routes, duplicates) = self.read([None; 2])?;
        let mut batch = ForwardingBatch::new(ROUTE_PROTOCOL);
        routes.values().chain(&duplicates).for_each(|object| delete(&mut batch, object));
        let count = batch.len();
        if is_dry_run {
            return Ok(count);
        }
        let mut first = Ok(());
        self.rtnetlink.forward(&mut batch, |_, error| {
            if first.is_ok() {
                first = Err(error);
            }
        })?;
        first.map(|()| count)
    }
}

fn delete(batch: &mut ForwardingBatch, object: &ForwardingObject) {
    match object {
        ForwardingObject::Route(route) => batch.delete_route(route),
        ForwardingObject::Neighbour(neighbour) => batch.delete_neighbour(neighbour),
        ForwardingObject::Fdb(entry) => batch.delete_fdb_entry(entry),
    }
}

fn set(batch: &mut ForwardingBatch, exists: bool, object: &ForwardingObject) {
    match object {
        ForwardingObject::Route(route) if exists => batch.replace_route(route),
        ForwardingObject::Route(route) => batch.add_route(route),
        ForwardingObject::Neighbour(neighbour) => batch.set_neighbour(neighbour),
        ForwardingObject::Fdb(entry) => batch.set_fdb_entry(entry),
    }
}
