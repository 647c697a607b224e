//! The log of packets that `loadBalancerSourceRanges` drop, while an observer is connected.
//!
//! ```text
//! packet ─► conntrack (-200) ─► this table (-111): logs packets to a frontend from a source that it does not allow
//!                          └─► rules of the proxy mode: drop them (nftables -110; iptables and ipvs in the filter table)
//! ```
//! The table is the same in all modes, so the rules of a mode never change for an observer. It exists only while one is
//! connected. The kernel removes it when the process ends, as the table belongs to a socket of the process
//! (`NFT_TABLE_F_OWNER`, since Linux 5.12; before that, the next daemon removes it when it starts).

mod table;

use portcullis_cluster::desired::Desired;
use portcullis_netlink::nf_tables::{self, Table, Transaction, delete_table};
use portcullis_netlink::socket::Socket;
use portcullis_netlink::{Error, Result};

use crate::node_facts::NodeFacts;
use crate::options::Options;
use crate::proxy_mode::ProxyMode;

use table::{FAMILY, source_range_table};
pub use table::{NAME, PREFIX};

/// Logs packets that source ranges drop. Dropping it removes the table.
#[derive(Debug)]
pub struct SourceRangeLog {
    socket: Socket,
    group: u16,
    /// The contents that the kernel has, if it has the table.
    written: Option<Table>,
    /// The kernel supports tables with an owner.
    has_owners: bool,
}

impl SourceRangeLog {
    /// Opens the log to an NFLOG group in the network namespace of the calling thread, without a table. Returns `None` if the
    /// kernel has no nf_tables.
    ///
    /// # Errors
    /// The process lacks privilege.
    pub fn open(group: u16) -> Result<Option<Self>> {
        let socket = nf_tables::open()?;
        Ok(socket.map(|socket| SourceRangeLog { socket, group, written: None, has_owners: true }))
    }

    /// Returns the NFLOG group.
    pub fn group(&self) -> u16 {
        self.group
    }

    /// Writes the table for these Services, if it changed. Without source ranges there is no table.
    ///
    /// # Errors
    /// The kernel rejects the table; the previous one stays.
    pub fn update(
        &mut self,
        mode: ProxyMode,
        desired: &Desired,
        options: &Options,
        facts: &NodeFacts,
    ) -> Result<()> {
        let wanted = source_range_table(mode, desired, options, facts, self.group);
        if wanted == self.written {
            return Ok(());
        }
        match wanted {
            None => self.remove(),
            Some(table) => self.write(table),
        }
    }

    fn write(&mut self, table: Table) -> Result<()> {
        if self.has_owners {
            match replacement(&table, true)?.commit(&mut self.socket) {
                // Before Linux 5.12.
                Err(error) if matches!(error.errno(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                    tracing::debug!(%error, "kernel rejected a table with an owner; writing one without");
                    self.has_owners = false;
                }
                written => {
                    written?;
                    self.written = Some(table);
                    return Ok(());
                }
            }
        }
        replacement(&table, false)?.commit(&mut self.socket)?;
        self.written = Some(table);
        Ok(())
    }

    fn remove(&mut self) -> Result<()> {
        delete_table(&mut self.socket, FAMILY, NAME)?;
        self.written = None;
        Ok(())
    }
}

impl Drop for SourceRangeLog {
    fn drop(&mut self) {
        if self.written.is_some()
            && let Err(error) = self.remove()
        {
            tracing::warn!(%error, "cannot remove the table {NAME}; the kernel removes it with this process");
        }
    }
}

/// Removes the table that an earlier process left behind. Returns true if there was one.
///
/// # Errors
/// The table belongs to another process that runs, or the privilege is missing.
pub fn remove_leftover() -> Result<bool> {
    match nf_tables::open()? {
        None => Ok(false),
        Some(mut socket) => delete_table(&mut socket, FAMILY, NAME),
    }
}

/// Returns a transaction that replaces the table, or adds it.
fn replacement(table: &Table, has_owner: bool) -> Result<Transaction, Error> {
    let mut transaction = Transaction::new("log packets that source ranges drop", table.family, &table.name)?;
    let add = |transaction: &mut Transaction| match has_owner {
        true => transaction.add_owned_table(table.comment.as_deref()),
        false => transaction.add_table(table.comment.as_deref()),
    };
    // Deleting a missing table is an error.
    add(&mut transaction)?;
    transaction.delete_table()?;
    add(&mut transaction)?;
    for (name, set) in &table.sets {
        transaction.add_set(name, &set.spec)?;
        transaction.add_elements(name, &set.spec, &set.elements)?;
    }
    for (name, chain) in &table.chains {
        transaction.add_chain(name, chain)?;
        for rule in &chain.rules {
            transaction.add_rule(name, rule)?;
        }
    }
    Ok(transaction)
}
