//! The kernel operations that nftables mode needs, as a trait, so that tests can replace the kernel.

use std::collections::HashMap;

use portcullis_netlink::Result;
use portcullis_netlink::nf_tables::{
    self, CommitSummary, DesiredTable, Element, Key, SetSpec, TableFamily, Transaction,
};
use portcullis_netlink::socket::Socket;

use crate::nftables::names::TABLE;

/// The elements of a set.
pub(in crate::nftables) type Elements = HashMap<Key, Element>;

/// A kernel with nf_tables.
pub(in crate::nftables) trait NftablesKernel {
    /// Gives the table the desired contents.
    ///
    /// # Errors
    /// [`portcullis_netlink::Error::Object`] if the kernel rejects an object.
    fn commit(&mut self, table: &mut DesiredTable) -> Result<CommitSummary>;

    /// Validates the edits since the last commit without applying them.
    ///
    /// # Errors
    /// As [`NftablesKernel::commit`].
    fn check_edits(&mut self, table: &DesiredTable) -> Result<()>;

    /// Validates the whole table as a replacement of the existing one, without applying it.
    ///
    /// # Errors
    /// As [`NftablesKernel::commit`].
    fn check_replacement(&mut self, table: &DesiredTable) -> Result<()>;

    /// Reads the elements of a set of the table.
    ///
    /// # Errors
    /// The kernel rejects the request.
    fn read_elements(&mut self, family: TableFamily, set: &str, spec: &SetSpec) -> Result<Elements>;

    /// Deletes elements of a set of the table in one transaction.
    ///
    /// # Errors
    /// The kernel rejects the request: `ENOENT` if an element does not exist. Then it deletes none.
    fn delete_elements(
        &mut self,
        family: TableFamily,
        set: &str,
        spec: &SetSpec,
        elements: &[(Key, Element)],
    ) -> Result<()>;
}

impl NftablesKernel for Socket {
    fn commit(&mut self, table: &mut DesiredTable) -> Result<CommitSummary> {
        nf_tables::commit(self, table)
    }

    fn check_edits(&mut self, table: &DesiredTable) -> Result<()> {
        nf_tables::check_edits(self, table)
    }

    fn check_replacement(&mut self, table: &DesiredTable) -> Result<()> {
        nf_tables::check_replacement(self, table)
    }

    fn read_elements(&mut self, family: TableFamily, set: &str, spec: &SetSpec) -> Result<Elements> {
        nf_tables::read_elements(self, family, TABLE, set, spec)
    }

    fn delete_elements(
        &mut self,
        family: TableFamily,
        set: &str,
        spec: &SetSpec,
        elements: &[(Key, Element)],
    ) -> Result<()> {
        let mut transaction = Transaction::new("delete session-affinity entries", family, TABLE)?;
        transaction.delete_elements(set, spec, elements.iter().map(|(key, element)| (key, element)))?;
        transaction.commit(self)
    }
}
