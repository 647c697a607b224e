//! The egress rules in the kernel.

use portcullis_netlink::nf_tables::{
    self, ChangeCounts, CommitSummary, DesiredTable, Table, TableFamily, UnknownObjects, delete_table,
};
use portcullis_netlink::socket::Socket;

use super::error::EgressError;
use super::table::{EgressPolicy, TABLE, empty_table, put_policy};

/// Keeps the egress rules in the kernel.
#[derive(Debug)]
pub struct Egress {
    socket: Socket,
    table: DesiredTable,
    /// Traffic is masqueraded; if not, there is no table.
    masquerades: bool,
    may_have_table: bool,
}

impl Egress {
    /// Opens the rules in the network namespace of the calling thread. It changes nothing before [`Egress::sync`].
    ///
    /// # Errors
    /// The kernel has no nf_tables, or the process lacks privilege.
    pub fn open() -> Result<Self, EgressError> {
        let socket = nf_tables::open()?.ok_or(EgressError::NoTables)?;
        Ok(Egress { socket, table: empty_table(), masquerades: false, may_have_table: true })
    }

    /// Sets the traffic that is masqueraded, with effect from the next [`Egress::sync`]; `None` for none.
    pub fn set_policy(&mut self, policy: Option<&EgressPolicy>) {
        self.masquerades = policy.is_some();
        if let Some(policy) = policy {
            put_policy(&mut self.table, policy);
        }
    }

    /// Returns the desired table; `None` if nothing is masqueraded.
    pub fn desired(&self) -> Option<&Table> {
        self.masquerades.then(|| self.table.desired())
    }

    /// Returns the socket that writes, whose port id distinguishes own changes from external ones.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Returns true if the kernel's table may differ from the desired one.
    pub fn needs_sync(&self) -> bool {
        if self.masquerades { self.table.is_dirty() } else { self.may_have_table }
    }

    /// Makes the next [`Egress::sync`] compare the table with the kernel.
    pub fn request_full_sync(&mut self) {
        self.table.invalidate();
        self.may_have_table = true;
    }

    /// Writes what differs, or deletes the table if nothing is masqueraded.
    ///
    /// # Errors
    /// The kernel rejected the transaction, which then has no effect.
    pub fn sync(&mut self) -> Result<CommitSummary, EgressError> {
        if self.masquerades {
            self.may_have_table = true;
            return Ok(nf_tables::commit(&mut self.socket, &mut self.table)?);
        }
        let mut summary = CommitSummary { full: true, ..CommitSummary::default() };
        if self.may_have_table && delete_table(&mut self.socket, TableFamily::Inet, TABLE)? {
            summary.changes = ChangeCounts { chains: 1, ..ChangeCounts::default() };
        }
        self.may_have_table = false;
        self.table.invalidate();
        Ok(summary)
    }

    /// Compares the kernel's table with the desired one. Returns the number of differing objects.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn compare(&mut self) -> Result<ChangeCounts, EgressError> {
        if self.masquerades {
            return Ok(nf_tables::compare(&mut self.socket, &self.table)?);
        }
        let exists = nf_tables::has_table(&mut self.socket, TableFamily::Inet, TABLE)?;
        Ok(ChangeCounts { chains: usize::from(exists), ..ChangeCounts::default() })
    }

    /// Reads the kernel's table, with its objects that this program does not know; `None` if there is none.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn read(&mut self) -> Result<Option<(Table, UnknownObjects)>, EgressError> {
        Ok(nf_tables::read(&mut self.socket, TableFamily::Inet, TABLE)?)
    }

    /// Deletes the table. Returns false if there was none.
    ///
    /// # Errors
    /// The process lacks privilege.
    pub fn delete_table() -> Result<bool, EgressError> {
        let Some(mut socket) = nf_tables::open()? else { return Ok(false) };
        Ok(delete_table(&mut socket, TableFamily::Inet, TABLE)?)
    }
}
