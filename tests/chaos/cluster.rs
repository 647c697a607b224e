//! The objects of the cluster as the model sees them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portcullis_policy::Connection;
use serde_json::Value;

use super::naive::{NaiveCluster, Verdicts};
use super::pools::NODE;

/// Kind, namespace and name.
pub(crate) type Key = (String, String, String);

pub(crate) fn key_of(object: &Value) -> Key {
    ["/kind", "/metadata/namespace", "/metadata/name"].map(|path| text(object, path).to_owned()).into()
}

/// All objects, and the reference evaluation of policies over them.
#[derive(Clone, Debug)]
pub(crate) struct ModelCluster {
    objects: BTreeMap<Key, Value>,
    /// `None` if policies are not enforced.
    policies: Option<NaiveCluster>,
}

pub(crate) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

impl ModelCluster {
    pub(crate) fn new(with_policies: bool) -> Self {
        ModelCluster { objects: BTreeMap::new(), policies: with_policies.then(NaiveCluster::default) }
    }

    pub(crate) fn apply(&mut self, object: &Value) {
        self.objects.insert(key_of(object), object.clone());
        self.policies.iter_mut().for_each(|policies| policies.apply(object));
    }

    /// Returns true if the object existed.
    pub(crate) fn delete(&mut self, kind: &str, namespace: &str, name: &str) -> bool {
        self.policies.iter_mut().for_each(|policies| policies.delete(kind, namespace, name));
        self.objects.remove(&(kind.to_owned(), namespace.to_owned(), name.to_owned())).is_some()
    }

    pub(crate) fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        let first = (kind.to_owned(), String::new(), String::new());
        self.objects.range(first..).take_while(move |(key, _)| key.0 == kind).map(|(_, object)| object)
    }

    pub(crate) fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(kind.to_owned(), namespace.to_owned(), name.to_owned()))
    }

    /// Returns true if the daemon's node lets a connection pass, by the reference evaluation.
    pub(crate) fn is_allowed(&self, connection: Connection) -> bool {
        let Some(policies) = &self.policies else { return true };
        let (egress, ingress): Verdicts = policies.evaluate(Some(NODE), connection);
        egress != Some(false) && ingress != Some(false)
    }

    /// Returns the zone of the daemon's node.
    pub(crate) fn own_zone(&self) -> Option<&str> {
        self.get("Node", "", NODE)?.pointer("/metadata/labels/topology.kubernetes.io~1zone")?.as_str()
    }
}

/// Parses an address of an object.
pub(crate) fn address(value: &Value) -> Option<IpAddr> {
    value.as_str()?.parse().ok()
}
