//! What a source tells the index.

use crate::object::{Kind, Object, ObjectKey};

/// One thing that happened outside. The API server and a folder of manifests speak the same events.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An object was added or changed.
    Applied(Object),
    /// An object is there, but cannot be read: what is known of it stays, also in a full list.
    Kept(ObjectKey),
    /// The number of documents or list items that cannot be read and whose names are not known either. It replaces the
    /// number that was reported before for the same kind; `None` where the kind is not known.
    Unidentified(Option<Kind>, usize),
    /// An object is gone.
    Deleted(ObjectKey),
    /// A full list of a kind begins: what is not applied before the matching [`Event::Listed`] is gone.
    ListStarted(Kind),
    /// A kind is fully listed.
    Listed(Kind),
}
