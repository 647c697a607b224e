//! Raises the maximum size of a set.

use super::create::Created;
use super::{IpSets, SetType};
use crate::error::{Error, Result};
use crate::family::Family;

/// The name of the larger set that replaces another one.
const SUCCESSOR: &str = "PORTCULLIS-SUCCESSOR";

impl IpSets {
    /// Raises the maximum number of entries of a set. Fills a larger set and swaps the two, so that rules which match against
    /// the set always find all entries.
    ///
    /// # Errors
    /// [`Error::Set`], usually without memory. The set is then unchanged.
    pub fn enlarge(&mut self, name: &str, set_type: SetType, family: Family, maxelem: u32) -> Result<()> {
        // A killed process may have left one with unknown entries.
        self.destroy(SUCCESSOR)?;
        let mut entries = Vec::new();
        self.entries(name, |entry| {
            entries.push(entry);
            Ok(())
        })?;
        if self.create(SUCCESSOR, set_type, family, maxelem)? != Created::Yes {
            const ACTION: &str = "make a larger ipset";
            return Err(Error::Rejected { action: ACTION, errno: libc::EEXIST, text: None, offset: None });
        }
        let swapped =
            self.change(SUCCESSOR, entries, std::iter::empty()).and_then(|()| self.swap(name, SUCCESSOR));
        // After the swap this is the old set, and after a failure the new one.
        let destroyed = self.destroy(SUCCESSOR);
        swapped?;
        destroyed.map(drop)
    }
}
