//! Objects that cannot be read. The daemon keeps the last version that it has read, and holds its first sync back if there is none.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::cluster::{Key, ModelCluster};
use super::node::NodeUnderTest;
use super::step::plural;

/// The objects that are invalid in the API server. The model keeps their last valid version.
#[derive(Debug, Default)]
pub(crate) struct InvalidObjects {
    /// Each with true if the daemon knows its last valid version.
    objects: BTreeMap<Key, bool>,
    /// Objects of which the daemon may know another version than the last valid one.
    changing: BTreeSet<Key>,
    /// The daemon was started after the last quiet moment.
    is_new_daemon: bool,
}

impl InvalidObjects {
    /// Returns the number of objects that the daemon cannot read.
    pub(crate) fn count(&self) -> usize {
        self.objects.len()
    }

    /// Records that a valid version replaces an object, or that it is deleted.
    pub(crate) fn record_change(&mut self, key: Key) {
        self.objects.remove(&key);
        self.changing.insert(key);
    }

    pub(crate) fn record_start(&mut self) {
        self.is_new_daemon = true;
    }

    /// Replaces an object in the API server by an invalid version, unless the daemon may know another version than the model.
    pub(crate) fn invalidate(&mut self, node: &NodeUnderTest, cluster: &ModelCluster, key: Key) {
        if self.is_new_daemon || node.mode().is_none() || self.changing.contains(&key) {
            return;
        }
        let last = cluster.get(&key.0, &key.1, &key.2);
        node.server.apply(invalid(&key, last));
        let is_known = last.is_some();
        self.objects.insert(key, is_known);
    }

    /// Before a quiet moment: repairs the objects of which the daemon knows no version, without which it does not report success.
    /// `all`: and the others, of which subcommands know none.
    pub(crate) fn repair(&mut self, node: &NodeUnderTest, cluster: &ModelCluster, all: bool) {
        let all = all || self.is_new_daemon;
        self.objects.retain(|key, is_known| {
            let is_kept = *is_known && !all;
            if !is_kept {
                let (kind, namespace, name) = key;
                match cluster.get(kind, namespace, name) {
                    Some(object) => _ = node.server.apply(object.clone()),
                    None => _ = node.server.delete(plural(kind), &full_name(namespace, name)),
                }
            }
            is_kept
        });
    }

    /// After a quiet moment: the daemon knows all versions of the model.
    pub(crate) fn settle(&mut self) {
        self.changing.clear();
        self.is_new_daemon = false;
    }
}

pub(crate) fn full_name(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// Returns an object that cannot be decoded, with the metadata of its last valid version.
fn invalid((kind, namespace, name): &Key, last: Option<&Value>) -> Value {
    let version = match kind.as_str() {
        "EndpointSlice" => "discovery.k8s.io/v1",
        "NetworkPolicy" => "networking.k8s.io/v1",
        "ClusterNetworkPolicy" => "policy.networking.k8s.io/v1alpha2",
        _ => "v1",
    };
    let mut metadata = last.map_or_else(|| json!({"name": name}), |last| last["metadata"].clone());
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.as_str().into();
    }
    let mut object = json!({"apiVersion": version, "kind": kind, "metadata": metadata});
    match kind.as_str() {
        "EndpointSlice" => object["endpoints"] = 7.into(),
        "Service" => object["spec"] = "not an object".into(),
        "Node" | "Namespace" | "Pod" => object["metadata"]["labels"] = 7.into(),
        // Deeper than a decoder must follow.
        _ => object["spec"] = (0..200).fold(json!(7), |inner, _| json!({"podSelector": [inner]})),
    }
    object
}

pub(crate) mod tests {
    use portcullis_cluster::{Kind, Object};

    use super::*;

    pub(crate) fn invalid_objects_cannot_be_read() {
        for kind in [
            Kind::Service,
            Kind::EndpointSlice,
            Kind::Node,
            Kind::Namespace,
            Kind::Pod,
            Kind::NetworkPolicy,
            Kind::ClusterNetworkPolicy,
        ] {
            let key = (kind.to_string(), "a".to_owned(), "x".to_owned());
            // As the daemon receives it: nested values have a limit in text only.
            let text = invalid(&key, None).to_string();
            let object = serde_json::from_str(&text).map(|value| Object::parse(kind, value));
            assert!(!matches!(object, Ok(Ok(_))), "{kind}: {object:?}");
        }
    }
}
