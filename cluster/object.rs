//! Kubernetes objects of the kinds in use, and their parsing.

use std::fmt;

use serde_json::Value;

use crate::cluster_network_policy::ClusterNetworkPolicy;
use crate::cluster_network_policy::raw::RawClusterNetworkPolicy;
use crate::endpoint_slice::{EndpointSlice, RawEndpointSlice};
use crate::excerpt::excerpt;
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
use crate::strict_json::Strict;

/// The number of bytes of a field's path, of its value, and of the message about it.
const MAX_TEXT: usize = 300;

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
                return Err(ObjectError::InvalidName { kind, field, value: excerpt(value, MAX_TEXT) });
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

/// Declares the kinds of objects, a row each: the kind, its type, the type that is parsed first, and the name of an object.
macro_rules! objects {
    ($($kind:ident: $object:ident from $raw:ident, named $name:expr;)*) => {
        /// An object in compact form.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs, reason = "each variant is the kind of its name")]
        pub enum Object {
            $($kind($object),)*
        }

        impl Object {
            /// Returns its kind and name.
            pub fn key(&self) -> ObjectKey {
                match self {
                    $(Object::$kind(object) => {
                        let name: fn(&$object) -> NamespacedName = $name;
                        ObjectKey { kind: Kind::$kind, name: name(object) }
                    })*
                }
            }

            fn from_value(
                kind: Kind,
                value: Value,
                problems: &mut Vec<Problem>,
            ) -> Result<Object, (String, String)> {
                match kind {
                    $(Kind::$kind => from_value(value).map(|raw: $raw| Object::$kind(raw.convert(problems))),)*
                }
            }

            fn from_text(kind: Kind, text: &[u8], problems: &mut Vec<Problem>) -> serde_json::Result<Object> {
                match kind {
                    $(Kind::$kind => from_text(text).map(|raw: $raw| Object::$kind(raw.convert(problems))),)*
                }
            }
        }
    };
}

objects! {
    Node: Node from RawNode, named |node| cluster_scoped(&node.name);
    Service: Service from RawService, named |service| service.key.clone();
    EndpointSlice: EndpointSlice from RawEndpointSlice, named |slice| slice.key.clone();
    ServiceCidr: ServiceCidr from RawServiceCidr, named |cidr| cidr.key.clone();
    Namespace: Namespace from RawNamespace, named |namespace| cluster_scoped(&namespace.name);
    Pod: Pod from RawPod, named |pod| pod.key.clone();
    NetworkPolicy: NetworkPolicy from RawNetworkPolicy, named |policy| policy.key.clone();
    ClusterNetworkPolicy: ClusterNetworkPolicy from RawClusterNetworkPolicy, named |policy| policy.key.clone();
}

fn cluster_scoped(name: &Name) -> NamespacedName {
    NamespacedName::new("", name.as_str())
}

impl Object {
    /// Parses an object. Fields that are not in use are ignored; an invalid field that can be omitted safely becomes a
    /// [`Problem`].
    ///
    /// # Errors
    /// The object cannot be used at all: it has no name, or a field does not have the type that the API defines.
    pub fn parse(kind: Kind, value: Value) -> Result<ParsedObject, ObjectError> {
        let key = ObjectKey::parse(kind, &value)?;
        let mut problems = Vec::new();
        match Object::from_value(kind, value, &mut problems) {
            Ok(object) => Ok(ParsedObject { object, problems }),
            Err((field, message)) => Err(ObjectError::Field {
                key,
                field: excerpt(field, MAX_TEXT),
                message: excerpt(message, MAX_TEXT),
            }),
        }
    }
}

/// Parses the JSON text of an object, and decodes only the fields in use: the result is that of [`decode_object`] and
/// [`Object::parse`]. `None` if these must parse it: they find the reason why a text cannot be parsed.
///
/// A field that is not in use may have a value that cannot be decoded, or that is not UTF-8.
///
/// [`decode_object`]: crate::json_object::decode_object
pub fn parse_text(kind: Kind, text: &[u8]) -> Option<ParsedObject> {
    let mut problems = Vec::new();
    let object = Object::from_text(kind, text, &mut problems).ok()?;
    let NamespacedName { namespace, name } = object.key().name;
    let is_valid = !name.is_empty() && is_name(&name) && is_name(namespace.as_str());
    is_valid.then_some(ParsedObject { object, problems })
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

fn from_text<'a, T: serde::Deserialize<'a>>(text: &'a [u8]) -> serde_json::Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = T::deserialize(Strict(&mut deserializer))?;
    deserializer.end()?;
    Ok(value)
}
