//! nf_tables in memory: applies transactions and lists tables as the kernel does, on attributes that it does not interpret
//! further than the kernel's reference checks need.

mod objects;
mod ruleset;
mod transport;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis_netlink::socket::with_transports;

pub(super) use objects::{Attributes, RawObject, RawSet, RawTable};
use ruleset::Ruleset;
use transport::FakeSocket;

/// The kernel. Clones share the rule set.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeNfTables(Arc<Mutex<Ruleset>>);

impl FakeNfTables {
    /// Runs `action`, with all of its sockets connected to this kernel.
    pub(super) fn run<T>(&self, action: impl FnOnce() -> T) -> T {
        let kernel = self.clone();
        with_transports(move |_| Ok(Box::new(FakeSocket::new(kernel.clone())?)), action)
    }

    /// Changes a table as another process may, without the kernel's checks.
    pub(super) fn tamper(&self, family: u8, name: &str, change: impl FnOnce(&mut RawTable)) {
        let mut ruleset = self.ruleset();
        ruleset.generation += 1;
        if let Some(table) = ruleset.tables.get_mut(&(family, objects::c_string(name))) {
            change(table);
        }
    }

    /// Deletes a table as another process may.
    pub(super) fn delete_table(&self, family: u8, name: &str) {
        self.ruleset().tables.remove(&(family, objects::c_string(name)));
    }

    /// Returns the number of requests since the start.
    pub(super) fn requests(&self) -> usize {
        self.ruleset().requests
    }

    fn ruleset(&self) -> MutexGuard<'_, Ruleset> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
