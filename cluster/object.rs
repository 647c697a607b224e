//! Kubernetes objects of the kinds in use, and their parsing.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::cluster_network_policy::{ClusterNetworkPolicy, RawClusterNetworkPolicy};
use crate::endpoint_slice::{EndpointSlice, RawEndpointSlice};
use crate::labels::null_is_empty_string;
use crate::name::{Name, NamespacedName};
use crate::namespace::{Namespace, RawNamespace};
use crate::network_policy::{NetworkPolicy, RawNetworkPolicy};
use crate::node::{Node, RawNode};
use crate::pod::{Pod, RawPod};
use crate::problem::Problem;
use crate::service::{RawService, Service};
use crate::service_cidr::{RawServiceCidr, ServiceCidr};
use crate::strict_deserializer::StrictDeserializer;

/// The kinds of objects in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `v1` Node.
    Node,
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `networking.k8s.io/v1` ServiceCIDR.
    ServiceCidr,
    /// `v1` Namespace.
    Namespace,
    /// `v1` Pod.
    Pod,
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
    ClusterNetworkPolicy,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 8] = [
        Kind::Node,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::ServiceCidr,
        Kind::Namespace,
        Kind::Pod,
        Kind::NetworkPolicy,
        Kind::ClusterNetworkPolicy,
    ];

    /// Returns the kind of an `apiVersion` and `kind`; `None` for kinds and versions that are not in use.
    pub fn from_api(api_version: &str, kind: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|k| k.api_version() == api_version && k.as_str() == kind)
    }

    /// Returns its `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Node => "Node",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::ServiceCidr => "ServiceCIDR",
            Kind::Namespace => "Namespace",
            Kind::Pod => "Pod",
            Kind::NetworkPolicy => "NetworkPolicy",
            Kind::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }

    /// Returns its `apiVersion`.
    pub fn api_version(self) -> &'static str {
        match self {
            Kind::Node | Kind::Service | Kind::Namespace | Kind::Pod => "v1",
            Kind::EndpointSlice => "discovery.k8s.io/v1",
            Kind::ServiceCidr | Kind::NetworkPolicy => "networking.k8s.io/v1",
            Kind::ClusterNetworkPolicy => "policy.networking.k8s.io/v1alpha2",
        }
    }

    /// Returns the name of its resource in API paths.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Node => "nodes",
            Kind::Service => "services",
            Kind::EndpointSlice => "endpointslices",
            Kind::ServiceCidr => "servicecidrs",
            Kind::Namespace => "namespaces",
            Kind::Pod => "pods",
            Kind::NetworkPolicy => "networkpolicies",
            Kind::ClusterNetworkPolicy => "clusternetworkpolicies",
        }
    }

    /// Returns true if its objects are namespaced.
    pub fn namespaced(self) -> bool {
        matches!(self, Kind::Service | Kind::EndpointSlice | Kind::Pod | Kind::NetworkPolicy)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The identity of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// The kind.
    pub kind: Kind,
    /// The namespace and name.
    pub name: NamespacedName,
}

impl ObjectKey {
    /// Returns the key that represents all objects of a kind whose names cannot be read. No object has an empty name.
    pub fn unnamed(kind: Kind) -> Self {
        ObjectKey { kind, name: NamespacedName::new("", "") }
    }

    /// Reads the kind and name of an object; nothing else of it has to be readable.
    ///
    /// # Errors
    /// The object has no name, or one with characters that could forge a line of rules or logs.
    pub fn parse(kind: Kind, value: &Value) -> Result<ObjectKey, ObjectError> {
        let text = |field: &str| {
            value.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default()
        };
        let name = text("name");
        if name.is_empty() {
            return Err(ObjectError::NoName { kind });
        }
        let namespace = match (kind.namespaced(), text("namespace")) {
            (false, _) => "",
            (true, "") => "default",
            (true, namespace) => namespace,
        };
        for (field, value) in [("name", name), ("namespace", namespace)] {
            if !is_name(value) {
                return Err(ObjectError::InvalidName { kind, field, value: value.to_owned() });
            }
        }
        Ok(ObjectKey { kind, name: NamespacedName::new(namespace, name) })
    }

    /// Returns true for the key of [`ObjectKey::unnamed`].
    pub fn is_unnamed(&self) -> bool {
        self.name.name.is_empty()
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// An object in compact form.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each variant is the kind of its name")]
pub enum Object {
    Node(Node),
    Service(Service),
    EndpointSlice(EndpointSlice),
    ServiceCidr(ServiceCidr),
    Namespace(Namespace),
    Pod(Pod),
    NetworkPolicy(NetworkPolicy),
    ClusterNetworkPolicy(ClusterNetworkPolicy),
}

impl Object {
    /// Returns its kind and name.
    pub fn key(&self) -> ObjectKey {
        let cluster_scoped = |name: Name| NamespacedName::new("", name.as_str());
        let (kind, name) = match self {
            Object::Node(o) => (Kind::Node, cluster_scoped(o.name)),
            Object::Service(o) => (Kind::Service, o.key.clone()),
            Object::EndpointSlice(o) => (Kind::EndpointSlice, o.key.clone()),
            Object::ServiceCidr(o) => (Kind::ServiceCidr, o.key.clone()),
            Object::Namespace(o) => (Kind::Namespace, cluster_scoped(o.name)),
            Object::Pod(o) => (Kind::Pod, o.key.clone()),
            Object::NetworkPolicy(o) => (Kind::NetworkPolicy, o.key.clone()),
            Object::ClusterNetworkPolicy(o) => (Kind::ClusterNetworkPolicy, o.key.clone()),
        };
        ObjectKey { kind, name }
    }

    /// Parses an object. Fields that are not in use are ignored; an invalid field that can be omitted safely becomes a
    /// [`Problem`].
    ///
    /// # Errors
    /// The object cannot be used at all: it has no name, or a field does not have the type that the API defines.
    pub fn parse(kind: Kind, value: Value) -> Result<ParsedObject, ObjectError> {
        let key = ObjectKey::parse(kind, &value)?;
        let mut problems = Vec::new();
        let p = &mut problems;
        let read = match kind {
            Kind::Node => from_value(value).map(|w: RawNode| Object::Node(w.convert(p))),
            Kind::Service => from_value(value).map(|w: RawService| Object::Service(w.convert(p))),
            Kind::EndpointSlice => {
                from_value(value).map(|w: RawEndpointSlice| Object::EndpointSlice(w.convert(p)))
            }
            Kind::ServiceCidr => from_value(value).map(|w: RawServiceCidr| Object::ServiceCidr(w.convert(p))),
            Kind::Namespace => from_value(value).map(|w: RawNamespace| Object::Namespace(w.convert())),
            Kind::Pod => from_value(value).map(|w: RawPod| Object::Pod(w.convert(p))),
            Kind::NetworkPolicy => {
                from_value(value).map(|w: RawNetworkPolicy| Object::NetworkPolicy(w.convert(p)))
            }
            Kind::ClusterNetworkPolicy => {
                from_value(value).map(|w: RawClusterNetworkPolicy| Object::ClusterNetworkPolicy(w.convert(p)))
            }
        };
        match read {
            Ok(object) => Ok(ParsedObject { object, problems }),
            Err((field, message)) => Err(ObjectError::Field { key, field, message }),
        }
    }
}

/// A parsed object, and the problems with its fields.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedObject {
    /// The object.
    pub object: Object,
    /// The invalid fields, which were omitted.
    pub problems: Vec<Problem>,
}

/// An error that prevents the parsing of an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// It has no name.
    #[error("{kind}: metadata.name is missing or empty, expected the object's name")]
    NoName {
        /// Its kind.
        kind: Kind,
    },
    /// Its name or namespace has a character that is not allowed in Kubernetes, such as a newline.
    #[error(
        "{kind} {value:?}: metadata.{field}: expected letters, digits, '-' and '.', up to 253 characters"
    )]
    InvalidName {
        /// Its kind.
        kind: Kind,
        /// `name` or `namespace`.
        field: &'static str,
        /// The value of the field.
        value: String,
    },
    /// A field does not have the type that the API defines.
    #[error("{key}: field {field}: {message}")]
    Field {
        /// The object.
        key: ObjectKey,
        /// The field's path, as in `spec.ports[0].port`.
        field: String,
        /// The value, and what was expected.
        message: String,
    },
}

impl ObjectError {
    /// Returns the kind and name of the object, if it has a name.
    pub fn key(&self) -> Option<&ObjectKey> {
        match self {
            ObjectError::NoName { .. } | ObjectError::InvalidName { .. } => None,
            ObjectError::Field { key, .. } => Some(key),
        }
    }
}

/// Returns true if a text can be the name of an object. The API server is stricter, depending on the kind; this only rejects
/// characters that could forge a line of rules or logs.
pub(crate) fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':');
    text.len() <= 253 && text.bytes().all(allowed)
}

fn from_value<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, (String, String)> {
    serde_path_to_error::deserialize(StrictDeserializer(value))
        .map_err(|e| (e.path().to_string(), e.inner().to_string()))
}

/// The fields of `metadata` in use.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) name: String,
    namespace: Option<String>,
    #[serde(default, deserialize_with = "null_is_empty_string")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_empty_string")]
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) uid: Option<String>,
    pub(crate) creation_timestamp: Option<String>,
    pub(crate) deletion_timestamp: Option<String>,
}

impl Metadata {
    /// Returns the namespace; `default` if the object (a manifest) has none, as in kubectl.
    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default")
    }

    /// When the object was created, in seconds since 1970.
    pub(crate) fn created(&self, problems: &mut Vec<Problem>) -> Option<i64> {
        let text = self.creation_timestamp.as_deref()?;
        let time = text.parse::<Timestamp>().ok();
        if time.is_none() {
            let expected = "a time such as 2026-01-01T00:00:00Z";
            let problem = Problem::new("metadata.creationTimestamp", text, expected);
            problems.push(problem.with_consequence("the object counts as younger than all others"));
        }
        time.map(Timestamp::as_second)
    }

    /// The key of an object that lives in a namespace.
    pub(crate) fn key(&self) -> NamespacedName {
        NamespacedName::new(self.namespace(), &self.name)
    }
}
