//! The kernel interface of iptables mode: write rules, read rules, and detect external changes cheaply.

use std::io::{self, Write};

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

/// A value that changes with every change of the rules of this network namespace.
pub type Fingerprint = Vec<u64>;

/// Returns true if this is the fingerprint of rules in nf_tables at this generation or a later one.
pub(crate) fn has_synced_since(flavour: Flavour, fingerprint: Option<&Fingerprint>, generation: u32) -> bool {
    // Generations wrap around.
    let later = |seen: &u64| (*seen as u32).wrapping_sub(generation) < u32::MAX / 2;
    flavour == Flavour::Nft && fingerprint.is_some_and(|seen| !seen.is_empty() && seen.iter().all(later))
}

/// The iptables rules of one family in the kernel.
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
        let seen = |flavour, fingerprint: Option<&[u64]>, generation| {
            has_synced_since(flavour, fingerprint.map(<[u64]>::to_vec).as_ref(), generation)
        };
        let wrapped = [u64::from(u32::MAX - 1)];
        for (fingerprint, generation, expected) in [
            (None, 1, false),
            (Some(&[7, 7][..]), 7, true),
            (Some(&[7, 7][..]), 3, true),
            (Some(&[7, 8][..]), 8, false),
            (Some(&[2][..]), u32::MAX, true),
            (Some(&wrapped[..]), 1, false),
        ] {
            assert_eq!(seen(Flavour::Nft, fingerprint, generation), expected, "{fingerprint:?} {generation}");
            assert!(!seen(Flavour::Legacy, fingerprint, generation));
        }
    }
}
