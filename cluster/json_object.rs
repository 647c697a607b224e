//! Decoding of the JSON text of an object.
//!
//! An object is decoded part by part if it cannot be decoded as a whole, so that its name is known: one of its fields may be
//! nested more deeply than serde_json's limit of 128 levels, or have a number that is out of range. `metadata.managedFields`, which
//! no kind needs and which is often the largest part of an object, is not decoded at all.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::kind::Kind;
use crate::object::{ObjectError, ObjectKey};

/// An object of which a field cannot be decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct UndecodableObject {
    /// The object with the fields of its metadata that can be decoded, and no other fields.
    pub head: Value,
    /// The field, such as `spec`; empty if the text is not an object.
    field: String,
    message: String,
}

impl UndecodableObject {
    /// Returns the error for an object of this kind.
    pub fn into_error(self, kind: Kind) -> ObjectError {
        let UndecodableObject { head, field, message } = self;
        match ObjectKey::parse(kind, &head) {
            Ok(key) => ObjectError::Field { key, field, message },
            Err(error) => error,
        }
    }
}

/// Decodes the JSON text of an object.
///
/// # Errors
/// The text is not a JSON object, or one of its fields cannot be decoded.
pub fn decode_object(text: &str) -> Result<Value, UndecodableObject> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let decoded = FieldsVisitor { skipped: None }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    decoded.map_err(|error| undecodable(text, &error))
}

/// Returns `metadata.resourceVersion` in the JSON text of an object.
pub fn resource_version(text: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Head {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(rename = "resourceVersion")]
        resource_version: String,
    }
    serde_json::from_slice(text).ok().map(|head: Head| head.metadata.resource_version)
}

/// Decodes the fields of an object, or of its metadata without a skipped field.
struct FieldsVisitor {
    skipped: Option<&'static str>,
}

impl<'de> DeserializeSeed<'de> for FieldsVisitor {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            if self.skipped == Some(name.as_str()) {
                access.next_value::<IgnoredAny>()?;
            } else if self.skipped.is_none() && name == METADATA {
                let value = access.next_value_seed(FieldsVisitor { skipped: Some(MANAGED_FIELDS) })?;
                fields.insert(name, value);
            } else {
                let value = access.next_value()?;
                fields.insert(name, value);
            }
        }
        Ok(Value::Object(fields))
    }
}

const METADATA: &str = "metadata";
const MANAGED_FIELDS: &str = "managedFields";

/// The fields of an object, not decoded. Skipping a value has no limit of levels.
type RawFields<'a> = BTreeMap<String, &'a RawValue>;

/// Returns the first field that cannot be decoded, and the metadata that can.
fn undecodable(text: &str, error: &serde_json::Error) -> UndecodableObject {
    let mut found = None;
    let mut metadata = Map::new();
    for (name, raw) in serde_json::from_str::<RawFields<'_>>(text).into_iter().flatten() {
        let fields =
            if name == METADATA { serde_json::from_str::<RawFields<'_>>(raw.get()).ok() } else { None };
        match fields {
            Some(fields) => {
                for (field, raw) in fields.into_iter().filter(|(field, _)| field != MANAGED_FIELDS) {
                    match decode(raw) {
                        Ok(value) => _ = metadata.insert(field, value),
                        Err(message) => found = found.or(Some((format!("{METADATA}.{field}"), message))),
                    }
                }
            }
            None => found = found.or_else(|| decode(raw).err().map(|message| (name, message))),
        }
    }
    let (field, message) = found.unwrap_or_else(|| (String::new(), error.to_string()));
    UndecodableObject { head: json!({ METADATA: metadata }), field, message }
}

fn decode(raw: &RawValue) -> Result<Value, String> {
    serde_json::from_str(raw.get()).map_err(|error| format!("cannot be decoded: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a list that is nested in this number of levels.
    fn nested(levels: usize) -> String {
        "[".repeat(levels) + &"]".repeat(levels)
    }

    #[test]
    fn managed_fields_are_not_decoded() {
        let text = format!(
            r#"{{"metadata": {{"name": "a", "managedFields": {}, "uid": "u"}}, "spec": {{"managedFields": 1}}}}"#,
            nested(200)
        );
        let expected = json!({"metadata": {"name": "a", "uid": "u"}, "spec": {"managedFields": 1}});
        assert_eq!(decode_object(&text), Ok(expected));
    }

    #[test]
    fn name_is_known_although_a_field_cannot_be_decoded() {
        let deep = nested(200);
        // Field that cannot be decoded, the metadata that can, and the error.
        let rows = [
            (
                "",
                json!({"name": "a"}),
                format!(r#""spec": {deep}"#),
                "Service ns/a: field spec: cannot be decoded",
            ),
            (
                "",
                json!({"name": "a"}),
                r#""spec": 1e999"#.to_owned(),
                "Service ns/a: field spec: cannot be decoded",
            ),
            (
                "",
                json!({"name": "a"}),
                r#""spec": "\ud800""#.to_owned(),
                "Service ns/a: field spec: cannot be decoded",
            ),
            (
                &*format!(r#", "annotations": {deep}"#),
                json!({"name": "a"}),
                r#""spec": 1"#.to_owned(),
                "Service ns/a: field metadata.annotations: cannot be decoded",
            ),
        ];
        for (metadata, known, spec, expected) in rows {
            let text = format!(r#"{{{spec}, "metadata": {{"name": "a", "namespace": "ns"{metadata}}}}}"#);
            let undecodable = decode_object(&text).expect_err(&text);
            assert_eq!(undecodable.head["metadata"]["name"], known["name"]);
            let error = undecodable.into_error(Kind::Service).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn other_texts_have_no_name() {
        for text in ["8", "null", "[]", r#"{"metadata": 3}"#, r#"{"metadata": {"name": "a"}"#, "{} {}", ""] {
            let error = decode_object(text).expect_err(text).into_error(Kind::Service);
            assert_eq!(error, ObjectError::NoName { kind: Kind::Service }, "{text}");
        }
    }
}
