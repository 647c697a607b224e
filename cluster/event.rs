//! Events from a source of objects to the index.

use crate::kind::Kind;
use crate::object::{Object, ObjectKey};

/// A change of the cluster's objects. The API server and manifests produce the same events.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An object was added or changed.
    Applied(Object),
    /// An object exists and cannot be read: its last readable version stays, also in a full list. [`ObjectKey::unnamed`] is the
    /// key of objects whose names cannot be read either, until it is deleted or missing in a full list.
    Unreadable(ObjectKey),
    /// An object was deleted.
    Deleted(ObjectKey),
    /// A full list of a kind begins: objects that are not applied before the matching [`Event::Listed`] were deleted.
    ListStarted(Kind),
    /// A kind was fully listed.
    Listed(Kind),
}
