//! What the engine needs of the outside: write rules, read rules, and tell cheaply whether somebody else wrote.

use std::io::{self, Write};

use super::chain::Table;
use crate::mode::SyncError;

/// How the tool of a host keeps its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// In nf_tables. One restore costs more than in proportion to its chains, but only what it changes.
    Nft,
    /// In tables of old: each restore reads and replaces whole tables, however little it changes.
    Legacy,
}

/// A value that differs once anybody has changed the rules of this network namespace.
pub type Fingerprint = Vec<u64>;

/// Whether this is the fingerprint of rules in nf_tables at this generation or a later one.
pub(crate) fn has_synced_since(flavour: Flavour, fingerprint: Option<&Fingerprint>, generation: u32) -> bool {
    // Generations wrap around.
    let later = |seen: &u64| (*seen as u32).wrapping_sub(generation) < u32::MAX / 2;
    flavour == Flavour::Nft && fingerprint.is_some_and(|seen| !seen.is_empty() && seen.iter().all(later))
}

/// The iptables of one family.
pub trait IptablesKernel: Send {
    /// How it keeps its rules.
    fn flavour(&self) -> Flavour;

    /// Restores what `write` writes, leaving alone the chains it does not name. All or nothing a table.
    ///
    /// # Errors
    /// The tool could not be run, did not get the lock, or refused the rules.
    fn restore(&self, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<(), SyncError>;

    /// Hands over every line of the dump of a table; none if the table is not there.
    ///
    /// # Errors
    /// The tool could not be run or failed.
    fn dump(&self, table: Table, line: &mut dyn FnMut(&str)) -> Result<(), SyncError>;

    /// Hands over every rule of a chain of table nat with its counters, as `-A CHAIN … -c PACKETS BYTES …`.
    ///
    /// # Errors
    /// The tool could not be run or failed, as where there is no such chain.
    fn counted(&self, chain: &str, line: &mut dyn FnMut(&str)) -> Result<(), SyncError>;

    /// Costs next to nothing. `None` where it cannot be told.
    fn fingerprint(&self) -> Option<Fingerprint>;

    /// A value that differs once rules were added to our chains, taken from them, or lead to them no more,
    /// whatever happens to other chains. Costs little for each chain. `None` where it cannot be told.
    fn shape(&self) -> Option<u64>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_up_to_the_fingerprint_are_seen() {
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
