//! Kubernetes objects of the kinds in use, and their parsing.

use std::fmt;

use serde_json::Value;

use crate::cluster_network_policy::ClusterNetworkPolicy;
use crate::cluster_network_policy::raw::RawClusterNetworkPolicy;
use crate::endpoint_slice::{EndpointSlice, RawEndpointSlice};
use crate::kind::Kind;
use crate::metadata::is_name;
use crate::name::{Name, NamespacedName};
use crate::namespace::{Namespace, RawNamespace};
use crate::network_policy::{NetworkPolicy, RawNetworkPolicy};
use crate::node::{Node, RawNode};
use crate::pod::{Pod, RawPod};
use crate::problem::Problem;
use crate::service::{RawService, Service};
use crate::service_cidr::{RawServiceCidr, ServiceCidr};
use crate::strict_deserializer::StrictDeserializer;

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
        let cluster_scoped = |name: &Name| NamespacedName::new("", name.as_str());
        let (kind, name) = match self {
            Object::Node(o) => (Kind::Node, cluster_scoped(&o.name)),
            Object::Service(o) => (Kind::Service, o.key.clone()),
            Object::EndpointSlice(o) => (Kind::EndpointSlice, o.key.clone()),
            Object::ServiceCidr(o) => (Kind::ServiceCidr, o.key.clone()),
            Object::Namespace(o) => (Kind::Namespace, cluster_scoped(&o.name)),
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

fn from_value<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, (String, String)> {
    serde_path_to_error::deserialize(StrictDeserializer(value))
        .map_err(|e| (e.path().to_string(), e.inner().to_string()))
}
