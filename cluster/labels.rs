//! Labels of objects.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::interned::{InternTable, Internable, Interned};
use crate::name::Name;

/// The labels of an object, sorted by key, in 8 bytes: the replicas of a workload have the same labels, and share them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Labels(Interned<[(Name, Name)]>);

impl Internable for [(Name, Name)] {
    fn table() -> &'static InternTable<[(Name, Name)]> {
        static LABELS: LazyLock<InternTable<[(Name, Name)]>> = LazyLock::new(InternTable::new);
        &LABELS
    }
}

impl Default for Labels {
    fn default() -> Self {
        Labels::from(BTreeMap::new())
    }
}

impl Labels {
    /// Returns the value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k.as_str() == key).map(|(_, v)| v.as_str())
    }

    /// Returns the value of a label by its interned key.
    pub fn value(&self, key: &Name) -> Option<&Name> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// Returns all labels, sorted by key.
    pub fn pairs(&self) -> &[(Name, Name)] {
        &self.0
    }

    /// Returns true if the label exists.
    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Returns these labels with one label set to a value.
    pub fn with(&self, key: &str, value: &str) -> Labels {
        let pairs = self.iter().chain([(key, value)]);
        pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<BTreeMap<_, _>>().into()
    }

    /// Returns all labels, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }
}

impl From<BTreeMap<String, String>> for Labels {
    fn from(map: BTreeMap<String, String>) -> Self {
        let pairs: Vec<(Name, Name)> = map.iter().map(|(k, v)| (Name::new(k), Name::new(v))).collect();
        Labels(Internable::table().intern(&pairs))
    }
}

/// Deserializes a map of strings, such as labels. As in the API server, a value `null` (as in the YAML `disktype:`) is the empty
/// string, and a map that is `null` is empty.
pub(crate) fn null_is_empty_string<'de, D>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let map: Option<BTreeMap<String, Option<String>>> = Option::deserialize(deserializer)?;
    let values = map.unwrap_or_default().into_iter();
    Ok(values.map(|(key, value)| (key, value.unwrap_or_default())).collect())
}

/// Labels that controllers and admission plugins add to pods, and whose values differ between the replicas, revisions or zones
/// of a workload. A selector for all pods of the workload must not contain them. A trailing `*` matches the rest of the key.
///
/// | keys | written by |
/// | --- | --- |
/// | `pod-template-hash`, `controller-revision-hash`, `pod-template-generation` | Deployment, StatefulSet, DaemonSet |
/// | `statefulset.kubernetes.io/pod-name`, `apps.kubernetes.io/pod-index` | StatefulSet |
/// | `batch.kubernetes.io/*`, `controller-uid`, `job-name` | Job |
/// | `topology.kubernetes.io/*`, `topology.k8s.io/*` | the admission plugin PodTopologyLabels (KEP-4742, since 1.35) |
/// | `failure-domain.beta.kubernetes.io/*`, `kubernetes.io/hostname` | webhooks that copy labels of the node |
const PER_INSTANCE: [&str; 12] = [
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/*",
    "controller-revision-hash",
    "controller-uid",
    "failure-domain.beta.kubernetes.io/*",
    "job-name",
    "kubernetes.io/hostname",
    "pod-template-generation",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
    "topology.k8s.io/*",
    "topology.kubernetes.io/*",
];

/// Returns true if a label describes a single pod of a workload, not the workload.
pub fn is_per_instance(key: &str) -> bool {
    PER_INSTANCE.iter().any(|known| match known.strip_suffix('*') {
        Some(prefix) => key.starts_with(prefix),
        None => key == *known,
    })
}

/// Deserializes `null` as an empty list, map or object, as the API server does.
pub(crate) fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_instances_are_recognised() {
        for (key, expected) in [
            ("app", false),
            ("app.kubernetes.io/name", false),
            ("batch.kubernetes.io/job-name", true),
            ("controller-uid", true),
            ("example.com/topology.kubernetes.io", false),
            ("job-name", true),
            ("pod-template-hash", true),
            ("topology.kubernetes.io/zone", true),
            ("topology.kubernetes.io/region", true),
        ] {
            assert_eq!(is_per_instance(key), expected, "{key}");
        }
    }
}
