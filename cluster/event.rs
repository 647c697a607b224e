//! What a source tells the index.

use crate::object::{Kind, Object, ObjectKey};

/// One thing that happened outside. The API server and a folder of manifests speak the same events.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An object was added or changed.
    Applied(Object),
    /// An object is there, but cannot be read: what is known of it stays, also in a full list. The key of
    /// [`ObjectKey::unnamed`] stands for objects of a kind whose names cannot be read either, until it is deleted or no
    /// longer in a full list.
    Unreadable(ObjectKey),
    /// An object is gone.
    Deleted(ObjectKey),
    /// A full list of a kind begins: what is not applied before the matching [`Event::Listed`] is gone.
    ListStarted(Kind),
    /// A kind is fully listed.
    Listed(Kind),
}
