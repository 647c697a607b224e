//! Pods of a namespace, grouped by labels, so that selectors are evaluated once for all replicas of a workload.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use portcullis_cluster::labels::Labels;
use portcullis_cluster::{NamespacedName, sparse};

/// Live pods of a namespace by their labels.
#[derive(Default)]
pub(super) struct PodsByLabels {
    labels: HashMap<NamespacedName, Arc<Labels>>,
    pods: HashMap<Arc<Labels>, HashSet<NamespacedName>>,
}

impl PodsByLabels {
    /// Adds a pod, or moves it if its labels have changed.
    pub(super) fn insert(&mut self, pod: &NamespacedName, labels: &Labels) {
        if self.labels.get(pod).is_some_and(|known| **known == *labels) {
            return;
        }
        self.remove(pod);
        let labels = match self.pods.get_key_value(labels) {
            Some((known, _)) => known.clone(),
            None => Arc::new(labels.clone()),
        };
        self.labels.insert(pod.clone(), labels.clone());
        self.pods.entry(labels).or_default().insert(pod.clone());
    }

    /// Removes a pod, if it is present.
    pub(super) fn remove(&mut self, pod: &NamespacedName) {
        let Some(labels) = sparse::remove(&mut self.labels, pod) else { return };
        if let Some(pods) = self.pods.get_mut(&labels) {
            sparse::remove_element(pods, pod);
            if pods.is_empty() {
                sparse::remove(&mut self.pods, &labels);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Returns all pods.
    pub(super) fn pods(&self) -> impl Iterator<Item = &NamespacedName> {
        self.labels.keys()
    }

    /// Returns all labels, each with the pods that have them.
    pub(super) fn by_labels(&self) -> impl Iterator<Item = (&Labels, &HashSet<NamespacedName>)> {
        self.pods.iter().map(|(labels, pods)| (&**labels, pods))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn labels(app: &str) -> Labels {
        Labels::from(BTreeMap::from([("app".to_owned(), app.to_owned())]))
    }

    fn shown(replicas: &PodsByLabels) -> BTreeMap<&str, Vec<&str>> {
        let by_labels = replicas.by_labels().map(|(labels, pods)| {
            let mut pods: Vec<&str> = pods.iter().map(|pod| &*pod.name).collect();
            pods.sort_unstable();
            (labels.get("app").expect("all have it"), pods)
        });
        by_labels.collect()
    }

    #[test]
    fn pods_move_with_their_labels_and_removed_pods_leave_no_entries() {
        let [one, two] = ["one", "two"].map(|name| NamespacedName::new("shop", name));
        let mut replicas = PodsByLabels::default();
        replicas.insert(&one, &labels("web"));
        replicas.insert(&two, &labels("web"));
        assert_eq!(shown(&replicas), BTreeMap::from([("web", vec!["one", "two"])]));
        replicas.insert(&one, &labels("db"));
        replicas.insert(&one, &labels("db"));
        assert_eq!(shown(&replicas), BTreeMap::from([("db", vec!["one"]), ("web", vec!["two"])]));
        assert_eq!(replicas.pods().collect::<HashSet<_>>(), HashSet::from([&one, &two]));
        replicas.remove(&one);
        replicas.remove(&one);
        assert_eq!(shown(&replicas), BTreeMap::from([("web", vec!["two"])]));
        replicas.remove(&two);
        assert!(replicas.is_empty() && replicas.pods.is_empty());
    }
}
