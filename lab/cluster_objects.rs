//! Kubernetes objects as a user writes them, before any controller has run.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reference to an object: kind, namespace, name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// The kind, e.g. `Service`.
    pub kind: String,
    /// The namespace; empty for cluster-scoped objects, such as nodes.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectRef {
    /// Returns a reference to a namespaced object.
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self { kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// A Kubernetes object. Kinds that the lab acts on are typed; all others are passed to the daemons unchanged.
#[derive(Debug, Clone, PartialEq)]
pub enum LabObject {
    /// A node of the lab.
    Node(Node),
    /// A pod: a network namespace with an echo server.
    Pod(Pod),
    /// A Service.
    Service(Service),
    /// An EndpointSlice of the user; it replaces those of the EndpointSlice controller.
    EndpointSlice(EndpointSlice),
    /// Creates pods, numbered from 1.
    Deployment(Deployment),
    /// Creates pods, numbered from 1.
    ReplicaSet(ReplicaSet),
    /// Creates pods, numbered from 0.
    StatefulSet(StatefulSet),
    /// Creates a pod on each node.
    DaemonSet(DaemonSet),
    /// An object of any other kind, e.g. a NetworkPolicy.
    Other(Value),
}

impl LabObject {
    /// Deserializes an object according to its `apiVersion` and `kind`.
    ///
    /// # Errors
    /// `kind`, `apiVersion` or `metadata.name` is missing, or a field has the wrong type; the message names the field.
    pub fn from_value(value: Value) -> Result<Self, String> {
        let kind = value.get("kind").and_then(Value::as_str).ok_or("`kind` is missing")?.to_owned();
        let version = value.get("apiVersion").and_then(Value::as_str).ok_or("`apiVersion` is missing")?;
        let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() {
            return Err(format!("{kind}: `metadata.name` is missing"));
        }
        let about = format!("{kind} {name}");
        Ok(match (version, kind.as_str()) {
            ("v1", "Node") => Self::Node(typed(value, &about)?),
            ("v1", "Pod") => Self::Pod(typed(value, &about)?),
            ("v1", "Service") => Self::Service(typed(value, &about)?),
            ("discovery.k8s.io/v1", "EndpointSlice") => Self::EndpointSlice(typed(value, &about)?),
            ("apps/v1", "Deployment") => Self::Deployment(typed(value, &about)?),
            ("apps/v1", "ReplicaSet") => Self::ReplicaSet(typed(value, &about)?),
            ("apps/v1", "StatefulSet") => Self::StatefulSet(typed(value, &about)?),
            ("apps/v1", "DaemonSet") => Self::DaemonSet(typed(value, &about)?),
            _ => Self::Other(value),
        })
    }

    /// Returns a reference to the object. A namespaced object without a namespace is in `default`.
    pub fn name(&self) -> ObjectRef {
        match self {
            Self::Node(o) => ObjectRef::new("Node", "", meta_name(&o.metadata)),
            Self::Pod(o) => namespaced("Pod", &o.metadata),
            Self::Service(o) => namespaced("Service", &o.metadata),
            Self::EndpointSlice(o) => namespaced("EndpointSlice", &o.metadata),
            Self::Deployment(o) => namespaced("Deployment", &o.metadata),
            Self::ReplicaSet(o) => namespaced("ReplicaSet", &o.metadata),
            Self::StatefulSet(o) => namespaced("StatefulSet", &o.metadata),
            Self::DaemonSet(o) => namespaced("DaemonSet", &o.metadata),
            Self::Other(value) => {
                let text = |at: &str| value.pointer(at).and_then(Value::as_str).unwrap_or_default();
                ObjectRef::new(text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
            }
        }
    }
}

macro_rules! object_from {
    ($($kind:ident),*) => { $(
        impl From<$kind> for LabObject {
            fn from(object: $kind) -> Self {
                Self::$kind(object)
            }
        }
    )* };
}
object_from!(Node, Pod, Service, EndpointSlice, Deployment, ReplicaSet, StatefulSet, DaemonSet);

fn typed<T: DeserializeOwned>(value: Value, about: &str) -> Result<T, String> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| format!("{about}: field `{}`: {}", error.path(), error.inner()))
}

fn meta_name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

fn namespaced(kind: &str, meta: &ObjectMeta) -> ObjectRef {
    ObjectRef::new(kind, namespace_of(meta), meta_name(meta))
}

/// Returns the namespace of an object, `default` if it has none.
pub(crate) fn namespace_of(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("default")
}

/// A set of objects, at most one per kind, namespace and name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClusterObjects {
    objects: BTreeMap<ObjectRef, LabObject>,
}

impl ClusterObjects {
    /// Returns an empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an object, or replaces the one with the same reference.
    pub fn apply(&mut self, object: impl Into<LabObject>) {
        let object = object.into();
        self.objects.insert(object.name(), object);
    }

    /// Removes an object; returns true if it existed.
    pub fn delete(&mut self, name: &ObjectRef) -> bool {
        self.objects.remove(name).is_some()
    }

    /// Returns an object by reference.
    pub fn get(&self, name: &ObjectRef) -> Option<&LabObject> {
        self.objects.get(name)
    }

    /// Returns all objects, ordered by kind, namespace, name.
    pub fn objects(&self) -> impl Iterator<Item = &LabObject> {
        self.objects.values()
    }

    /// Returns true if the set has no objects.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

impl Extend<LabObject> for ClusterObjects {
    fn extend<T: IntoIterator<Item = LabObject>>(&mut self, objects: T) {
        for object in objects {
            self.apply(object);
        }
    }
}

impl FromIterator<LabObject> for ClusterObjects {
    fn from_iter<T: IntoIterator<Item = LabObject>>(objects: T) -> Self {
        let mut cluster = Self::new();
        cluster.extend(objects);
        cluster
    }
}
