//! Errors of ipset: the meaning of its error numbers (`IPSET_ERR_*`), with the set and entry concerned.

use super::entry::SetEntry;
use crate::error::{Error, Result};

/// `IPSET_ERR_PROTOCOL`
const PROTOCOL: i32 = 4097;
/// `IPSET_ERR_FIND_TYPE`
pub(super) const NO_SUCH_TYPE: i32 = 4098;
/// `IPSET_ERR_BUSY`: rules or other sets refer to the set.
pub(super) const BUSY: i32 = 4100;

/// `IPSET_ERR_TYPE_SPECIFIC`: errors from here on concern an entry, those below a set. For hashes it is
/// `IPSET_ERR_HASH_FULL`.
pub(crate) const TYPE_SPECIFIC: i32 = 4352;

/// Returns the meaning of an error number of ipset. Those of a type differ between hashes and bitmaps.
fn meaning(errno: i32, bitmap: bool) -> Option<&'static str> {
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

/// Adds the set to an error, and the meaning of its number.
pub(super) trait ForSet<T> {
    /// Adds the set of this name.
    fn for_set(self, set: &str) -> Result<T>;
}

impl<T> ForSet<T> for Result<T> {
    fn for_set(self, set: &str) -> Result<T> {
        self.map_err(|error| set_error(error, set, None, false))
    }
}

/// Returns a rejection with its set and entry. Other errors are returned unchanged.
pub(super) fn set_error(error: Error, set: &str, entry: Option<SetEntry>, bitmap: bool) -> Error {
    match error {
        Error::Rejected { action, errno, text, offset } => {
            let meaning = match errno {
                // Entries are always complete, so an invalid request means that the entry does not fit the set.
                PROTOCOL if entry.is_some() => Some("it is of another family or type than the set"),
                _ => meaning(errno, bitmap),
            };
            let text = text.or_else(|| meaning.map(str::to_owned));
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
    fn a_rejection_names_set_and_entry() {
        let full = || Error::Rejected { action: "add to an ipset", errno: 4352, text: None, offset: None };
        let entry = Some(SetEntry::Port(80));
        for (error, printed) in [
            (
                set_error(full(), "KUBE-CLUSTER-IP", None, false),
                "ipset KUBE-CLUSTER-IP: cannot add to an ipset: the kernel returned error 4352 \
                 (the set is full: it has as many entries as its maxelem allows)",
            ),
            (
                set_error(full(), "KUBE-NODE-PORT-TCP", entry, true),
                "ipset KUBE-NODE-PORT-TCP, entry 80: cannot add to an ipset: the kernel returned error 4352 \
                 (the port is outside the range of the set)",
            ),
        ] {
            assert_eq!(error.to_string(), printed);
            assert_eq!(error.errno(), Some(4352));
        }
    }
}
