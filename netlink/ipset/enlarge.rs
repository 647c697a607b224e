use super::create::Created;
use super::{IpSets, SetType};
use crate::error::{Error, Result};
use crate::family::Family;

/// The name of a set that is being made to take another's place.
const SUCCESSOR: &str = "PORTCULLIS-SUCCESSOR";

impl IpSets {
    /// Makes a set hold at most `maxelem` entries, under the same name, with the entries that it has. Rules that
    /// match against it never see it otherwise than whole: a larger one is filled beside it, and takes its place.
    ///
    /// # Errors
    /// [`Error::Set`], as a rule for want of memory. The set is then as it was.
    pub fn enlarge(&mut self, name: &str, set_type: SetType, family: Family, maxelem: u32) -> Result<()> {
        // One that a process left which was killed at this has who knows what in it.
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
        // After the swap this is the old one, else the new one that came to nothing.
        let destroyed = self.destroy(SUCCESSOR);
        swapped?;
        destroyed.map(drop)
    }
}
