//! The kernel interface of iptables mode: write rules, read rules, and detect external changes cheaply.

use std::io::{self, Write};

use portcullis_netlink::xtables::TableInfo;

use super::chain::Table;
use super::error::ToolError;

/// The kernel interface that the iptables tools of this host use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// nf_tables (`iptables-nft`). The cost of a restore grows faster than its number of chains, but depends on its
    /// changes only.
    Nft,
    /// x_tables (`iptables-legacy`). Each restore reads and replaces whole tables, however small the change.
    Legacy,
}

/// A value that changes with changes of the rules of this network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fingerprint {
    /// The generation of nf_tables, which each transaction raises by 1. It wraps around.
    Generation(u32),
    /// The sizes of the legacy tables, in the order of [`Table::ALL`]; `None` for a table that does not exist. They do not count
    /// writes: a rule that is replaced by one of the same size does not change them.
    Sizes([Option<TableInfo>; Table::ALL.len()]),
}

/// Returns true if these are fingerprints of rules in nf_tables at this generation or a later one.
pub(crate) fn has_synced_since(fingerprints: &[Fingerprint], generation: u32) -> bool {
    let is_later = |seen: &Fingerprint| match seen {
        Fingerprint::Generation(seen) => seen.wrapping_sub(generation) < u32::MAX / 2,
        Fingerprint::Sizes(_) => false,
    };
    !fingerprints.is_empty() && fingerprints.iter().all(is_later)
}

/// The iptables rules of one family in the kernel. No method has a default, so that kernels which pass requests on to another one
/// cannot omit any.
pub trait IptablesKernel: Send {
    /// Returns the flavour of the tools.
    fn flavour(&self) -> Flavour;

    /// Restores the rules that `write` writes, without changing chains that it does not name. Atomic for each table.
    ///
    /// # Errors
    /// The tool could not be run, did not get the lock, or rejected the rules.
    fn restore(&self, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<(), ToolError>;

    /// Calls `line` with each line of the dump of a table; a table that does not exist has none.
    ///
    /// # Errors
    /// The tool could not be run or failed.
    fn dump(&self, table: Table, line: &mut dyn FnMut(&str)) -> Result<(), ToolError>;

    /// Calls `line` with each line of the dump of a table, at least with the declarations of all chains and the rules of those for
    /// which `is_skipped` is false. It is cheaper than [`IptablesKernel::dump`] if the nft tool would take long to print the others.
    ///
    /// # Errors
    /// As [`IptablesKernel::dump`].
    fn dump_without(
        &self,
        table: Table,
        is_skipped: &dyn Fn(&str) -> bool,
        line: &mut dyn FnMut(&str),
    ) -> Result<(), ToolError>;

    /// Returns true if the tool takes longer to list the rules of our chains in a table than to write them.
    fn is_costly_to_list(&self, table: Table) -> bool;

    /// Deletes rules that jump to other chains, each given as a line of a dump, if this takes no restore. Returns false, and deletes
    /// none, if it does. In a restore, the nft tool reads the rules of all chains to find them.
    fn delete_jumps(&self, table: Table, jumps: &[String]) -> bool;

    /// Calls `line` with each rule of a chain of table nat and its counters, as `-A CHAIN … -c PACKETS BYTES …`.
    ///
    /// # Errors
    /// The tool could not be run or failed, for example because there is no such chain.
    fn dump_counters(&self, chain: &str, line: &mut dyn FnMut(&str)) -> Result<(), ToolError>;

    /// Returns the fingerprint, which takes microseconds; `None` if it cannot be read.
    fn fingerprint(&self) -> Option<Fingerprint>;

    /// Returns a value that changes when rules are added to our chains or deleted from them, or when a jump to one is
    /// deleted, whatever happens to other chains. Takes a little time for each chain. `None` if it cannot be read.
    fn chain_fingerprint(&self) -> Option<u64>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_up_to_the_fingerprint_are_synced() {
        for (seen, generation, expected) in [
            (&[][..], 1, false),
            (&[7, 7], 7, true),
            (&[7, 7], 3, true),
            (&[7, 8], 8, false),
            (&[2], u32::MAX, true),
            (&[u32::MAX - 1], 1, false),
        ] {
            let fingerprints: Vec<Fingerprint> =
                seen.iter().map(|seen| Fingerprint::Generation(*seen)).collect();
            assert_eq!(has_synced_since(&fingerprints, generation), expected, "{seen:?} {generation}");
        }
        assert!(!has_synced_since(&[Fingerprint::Sizes([None; 3])], 0));
    }
}
