//! Labels.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::name::Name;

/// The labels of an object, sorted by key, interned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels(Box<[(Name, Name)]>);

impl Labels {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&'static str> {
        self.0.iter().find(|(k, _)| k.as_str() == key).map(|(_, v)| v.as_str())
    }

    /// The value of a label, by its interned key.
    pub fn value(&self, key: Name) -> Option<Name> {
        self.0.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }

    /// Whether the label is there, with any value.
    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// These labels, with this value for one of them.
    pub fn with(&self, key: &'static str, value: &'static str) -> Labels {
        let pairs = self.iter().chain([(key, value)]);
        pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<BTreeMap<_, _>>().into()
    }

    /// All labels by key.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str)> + '_ {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }
}

impl From<BTreeMap<String, String>> for Labels {
    fn from(map: BTreeMap<String, String>) -> Self {
        Labels(map.iter().map(|(k, v)| (Name::new(k), Name::new(v))).collect())
    }
}

/// A map of strings, as of labels. The API server decodes `null`, as in the YAML `disktype:`, as the empty string, and a
/// map that is `null` as an empty one.
pub(crate) fn null_is_empty_string<'de, D>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let map: Option<BTreeMap<String, Option<String>>> = Option::deserialize(deserializer)?;
    let values = map.unwrap_or_default().into_iter();
    Ok(values.map(|(key, value)| (key, value.unwrap_or_default())).collect())
}

/// Labels that controllers and admission plugins put on each pod, and whose values differ between the replicas,
/// revisions or zones of one workload. They do not belong in a selector that is to keep matching. A trailing `*`
/// stands for the rest of the key.
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

/// Whether a label describes an instance of a workload and not the workload: see the list above.
pub fn is_per_instance(key: &str) -> bool {
    PER_INSTANCE.iter().any(|known| match known.strip_suffix('*') {
        Some(prefix) => key.starts_with(prefix),
        None => key == *known,
    })
}

/// The API takes `null` for an empty list or map.
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
    fn labels_of_instances_are_told_from_those_of_workloads() {
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
