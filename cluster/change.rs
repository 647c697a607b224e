//! Changes of the index.

use jiff::Timestamp;

use crate::name::{Name, NamespacedName};
use crate::object::ObjectKey;

/// A change of one object in the index: it was added, changed or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The object.
    pub key: ObjectKey,
    /// For an EndpointSlice: the Service of which the endpoints changed.
    pub slice: Option<SliceChange>,
}

/// A change of the endpoints of a Service. A slice that moves from one Service to another is one change of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceChange {
    /// The Service.
    pub service: NamespacedName,
    /// The slice's new `endpoints.kubernetes.io/last-change-trigger-time`.
    pub trigger_time: Option<Timestamp>,
}

impl Change {
    /// A change of an object of any kind but EndpointSlice.
    pub(crate) fn new(key: ObjectKey) -> Self {
        Change { key, slice: None }
    }

    /// Returns the name of a cluster-scoped object.
    pub fn cluster_scoped_name(&self) -> Name {
        Name::new(&self.key.name.name)
    }
}
