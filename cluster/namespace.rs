//! Namespaces: only their labels matter, for NetworkPolicy.

use serde::Deserialize;

use crate::labels::Labels;
use crate::name::Name;
use crate::object::Metadata;

/// A namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Namespace {
    /// Its name.
    pub name: Name,
    /// Its labels.
    pub labels: Labels,
}

#[derive(Deserialize)]
pub(crate) struct Wire {
    metadata: Metadata,
}

impl Wire {
    pub(crate) fn slim(self) -> Namespace {
        Namespace { name: Name::new(&self.metadata.name), labels: self.metadata.labels.into() }
    }
}
