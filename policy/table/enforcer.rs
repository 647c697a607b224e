//! The table in the kernel.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_netlink::nf_tables::{
    self, Committed, Extent, Foreign, Table, TableFamily, delete_table, read_counters,
};
use portcullis_netlink::socket::Socket;

use super::layout::{Label, PolicyTable};
use super::names::TABLE;
use super::options::Options;
use crate::compile::{Changes, Compiled};

/// Keeps the kernel's table as the policies want it.
#[derive(Debug)]
pub struct Enforcer {
    table: PolicyTable,
    socket: Socket,
}

/// Packets that were dropped, or, with [`Options::audit`], would have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Why.
    pub label: Label,
    /// How many packets, since the counter was made.
    pub packets: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// Why policies cannot be enforced.
#[derive(Debug, thiserror::Error)]
pub enum EnforceError {
    /// The kernel has no nf_tables.
    #[error("this kernel has no nf_tables (CONFIG_NF_TABLES), by which NetworkPolicies are enforced")]
    NoTables,
    /// The kernel refuses.
    #[error(transparent)]
    Kernel(#[from] portcullis_netlink::Error),
}

impl Enforcer {
    /// Prepares to enforce; the kernel is not touched before [`Enforcer::sync`]. Belongs to the network namespace of
    /// the calling thread.
    ///
    /// # Errors
    /// The kernel has no nf_tables, or there is no privilege.
    pub fn open(options: Options) -> Result<Self, EnforceError> {
        let socket = nf_tables::open()?.ok_or(EnforceError::NoTables)?;
        Ok(Enforcer { table: PolicyTable::new(options), socket })
    }

    /// How policies are enforced.
    pub fn options(&self) -> &Options {
        self.table.options()
    }

    /// The table as it should be.
    pub fn table(&self) -> &PolicyTable {
        &self.table
    }

    /// The socket that writes, by which events tell our own changes from those of others.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Takes in what changed. `compiled` is how it is after the changes.
    pub fn follow(&mut self, changes: &Changes, compiled: &Compiled) {
        self.table.follow(changes, compiled);
    }

    /// Enforces in another way from the next [`Enforcer::sync`] on.
    pub fn set_options(&mut self, options: Options, compiled: &Compiled) {
        if options == *self.table.options() {
            return;
        }
        self.table = PolicyTable::of(options, compiled);
    }

    /// Whether the kernel may hold something else than it should.
    pub fn is_dirty(&self) -> bool {
        self.table.table().is_dirty()
    }

    /// Has the next [`Enforcer::sync`] compare everything with the kernel.
    pub fn doubt(&mut self) {
        self.table.table_mut().doubt();
    }

    /// Makes the kernel hold what it should, in one transaction.
    ///
    /// # Errors
    /// The kernel refuses; it then holds what it held before.
    pub fn sync(&mut self) -> Result<Committed, portcullis_netlink::Error> {
        let Enforcer { table, socket } = self;
        table.table_mut().commit(socket)
    }

    /// What the kernel's table differs in.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn check(&mut self) -> Result<Extent, portcullis_netlink::Error> {
        self.table.table().check(&mut self.socket)
    }

    /// Takes the table away: nothing is enforced any more. Says whether there was one.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove() -> Result<bool, EnforceError> {
        let mut socket = nf_tables::open()?.ok_or(EnforceError::NoTables)?;
        Ok(delete_table(&mut socket, TableFamily::Inet, TABLE)?)
    }
}

/// The kernel's table, and what is in it that we have no words for; `None` if there is none. Belongs to the network
/// namespace of the calling thread.
///
/// # Errors
/// It cannot be read.
pub fn read() -> Result<Option<(Table, Foreign)>, EnforceError> {
    let mut socket = nf_tables::open()?.ok_or(EnforceError::NoTables)?;
    Ok(nf_tables::read(&mut socket, TableFamily::Inet, TABLE)?)
}

/// What was dropped so far, by the counters of the kernel's table. Belongs to the network namespace of the calling
/// thread.
///
/// # Errors
/// It cannot be read.
pub fn counted(labels: &BTreeMap<Arc<str>, Label>) -> Result<Vec<Counted>, EnforceError> {
    let mut socket = nf_tables::open()?.ok_or(EnforceError::NoTables)?;
    let counters = read_counters(&mut socket, TableFamily::Inet, TABLE)?;
    let counted = counters.into_iter().filter_map(|(name, (packets, bytes))| {
        Some(Counted { label: labels.get(name.as_str())?.clone(), packets, bytes })
    });
    let mut counted: Vec<Counted> = counted.collect();
    counted.sort_by(|a, b| a.label.cmp(&b.label));
    Ok(counted)
}
