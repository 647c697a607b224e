//! Namespaces, with the labels that NetworkPolicies select.

use serde::Deserialize;

use crate::labels::Labels;
use crate::metadata::Metadata;
use crate::name::Name;
use crate::problem::Problem;

/// The label that the API server sets on every Namespace to its name, overriding the object (`SetDefaults_Namespace`).
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Namespace {
    /// Its name.
    pub name: Name,
    /// Its labels.
    pub labels: Labels,
}

#[derive(Deserialize)]
pub(crate) struct RawNamespace {
    metadata: Metadata,
}

impl RawNamespace {
    pub(crate) fn convert(self, _: &mut Vec<Problem>) -> Namespace {
        let Metadata { name, mut labels, .. } = self.metadata;
        labels.insert(NAMESPACE_NAME_LABEL.to_owned(), name.clone());
        Namespace { name: Name::new(&name), labels: labels.into() }
    }
}
