//! Why the kernel refused something about a set: its own error numbers (`IPSET_ERR_*`) in words.

use super::entry::SetEntry;
use crate::error::{Error, Result};

/// `IPSET_ERR_PROTOCOL`
const PROTOCOL: i32 = 4097;
/// `IPSET_ERR_FIND_TYPE`
pub(super) const NO_SUCH_TYPE: i32 = 4098;
/// `IPSET_ERR_BUSY`: rules or other sets refer to the set.
pub(super) const BUSY: i32 = 4100;

/// `IPSET_ERR_TYPE_SPECIFIC`: refusals from here on are about an entry, those below about a set. For hashes it is
/// `IPSET_ERR_HASH_FULL`.
pub(crate) const TYPE_SPECIFIC: i32 = 4352;

/// The words for a number of ipset's own. Those of a type mean different things for hashes and bitmaps.
fn words(errno: i32, bitmap: bool) -> Option<&'static str> {
    const REFERENCED: &str = "rules or other sets refer to it";
    Some(match errno {
        PROTOCOL => "ipset does not understand the request",
        NO_SUCH_TYPE => "it has no set type of this name, family and revision; is its module there?",
        4099 => "no more sets fit; raise max_sets of the module ip_set",
        BUSY | 4108 => REFERENCED,
        4101 => "the second name is that of another set, or of none",
        4102 => "the two sets are of different types",
        4103 => "it is there already, or is not there",
        4104 => "the length of the prefix must be 1 to that of an address",
        4106 => "the set type is not for this family",
        TYPE_SPECIFIC if bitmap => "the port is outside the range of the set",
        TYPE_SPECIFIC => "the set is full: it has as many entries as its maxelem allows",
        4353 if !bitmap => "sets cannot hold an address of zeros",
        4354 | 4355 if !bitmap => "the protocol is missing or is none",
        _ => return None,
    })
}

/// Adds to errors which set, which entry, and what the number means.
pub(super) trait About<T> {
    /// It is about the set of this name.
    fn about(self, set: &str) -> Result<T>;
}

impl<T> About<T> for Result<T> {
    fn about(self, set: &str) -> Result<T> {
        self.map_err(|error| refused(error, set, None, false))
    }
}

/// The error about a set and perhaps an entry. Errors that are no rejection, and those that have a set already,
/// stay as they are.
pub(super) fn refused(error: Error, set: &str, entry: Option<SetEntry>, bitmap: bool) -> Error {
    match error {
        Error::Rejected { action, errno, text, offset } => {
            let words = match errno {
                // All entries are written alike, so what it misses is what sets of this kind are made of.
                PROTOCOL if entry.is_some() => Some("it is of another family or type than the set"),
                _ => words(errno, bitmap),
            };
            let text = text.or_else(|| words.map(str::to_owned));
            let source = Box::new(Error::Rejected { action, errno, text, offset });
            Error::Set { set: set.to_owned(), entry, source }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_set_and_entry() {
        let full = || Error::Rejected { action: "add to an ipset", errno: 4352, text: None, offset: None };
        let entry = Some(SetEntry::Port(80));
        for (error, printed) in [
            (
                refused(full(), "KUBE-CLUSTER-IP", None, false),
                "ipset KUBE-CLUSTER-IP: cannot add to an ipset: the kernel returned error 4352 \
                 (the set is full: it has as many entries as its maxelem allows)",
            ),
            (
                refused(full(), "KUBE-NODE-PORT-TCP", entry, true),
                "ipset KUBE-NODE-PORT-TCP, entry 80: cannot add to an ipset: the kernel returned error 4352 \
                 (the port is outside the range of the set)",
            ),
        ] {
            assert_eq!(error.to_string(), printed);
            assert_eq!(error.errno(), Some(4352));
        }
    }
}
