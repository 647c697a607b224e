//! Object metadata.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use crate::labels::null_is_empty_string;
use crate::name::NamespacedName;
use crate::problem::Problem;

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

    /// Returns the creation time, in seconds since 1970.
    pub(crate) fn created(&self, problems: &mut Vec<Problem>) -> Option<i64> {
        let text = self.creation_timestamp.as_deref()?;
        let time = text.parse::<Timestamp>().ok();
        if time.is_none() {
            let expected = "a time such as 2026-01-01T00:00:00Z";
            let problem = Problem::new("metadata.creationTimestamp", text, expected);
            problems.push(problem.with_consequence("the object is treated as the youngest"));
        }
        time.map(Timestamp::as_second)
    }

    /// Returns the name of a namespaced object.
    pub(crate) fn key(&self) -> NamespacedName {
        NamespacedName::new(self.namespace(), &self.name)
    }
}

/// Returns true if a text can be the name of an object. The API server is stricter, depending on the kind; this only rejects
/// characters that could forge a line of rules or logs.
pub(crate) fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':');
    text.len() <= 253 && text.bytes().all(allowed)
}
