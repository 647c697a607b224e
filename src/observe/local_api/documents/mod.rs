//! The documents of the local API, as programs and the commands of this program read them. `docs/local-api.md` describes each
//! field; a test compares the page with these types.
//!
//! Keys are in camel case. A document starts with `apiVersion` and `kind`. Durations are numbers of seconds, with the unit in
//! the key; times are RFC 3339 in UTC. A list that a tenant can make grow has a limit, and the number of omitted items beside
//! it. `null` means that something is not known or does not apply; a key is never omitted.

mod error;
mod pod_network;
mod policies;
#[cfg(test)]
mod reference;
#[cfg(test)]
pub(crate) mod samples;
mod status;
mod timeline;

pub(crate) use error::ErrorDocument;
pub(crate) use pod_network::{PodAddressesStatus, PodNetworkStatus, UnreachableNodeStatus};
pub(crate) use policies::{DroppedPackets, PodPolicies, PoliciesDocument};
pub(crate) use status::*;
pub(crate) use timeline::{EntryType, TimelineDocument, TimelineEntry};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::moment::Moment;
use crate::service_report::ServiceReport;

/// The version of all documents.
pub(crate) use crate::document::API_VERSION;

/// The head of each document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TypeMeta {
    /// [`API_VERSION`].
    pub(crate) api_version: String,
    /// The kind of document, such as `Status`.
    pub(crate) kind: String,
}

impl TypeMeta {
    /// Returns the head of a kind of document.
    pub(crate) fn new(kind: &str) -> Self {
        TypeMeta { api_version: API_VERSION.to_owned(), kind: kind.to_owned() }
    }
}

/// A document that names its version and kind.
pub(crate) trait Typed {
    /// Returns the version and the kind.
    fn type_meta(&self) -> (&str, &str);
}

impl Typed for StatusDocument {
    fn type_meta(&self) -> (&str, &str) {
        (&self.meta.api_version, &self.meta.kind)
    }
}

impl Typed for TimelineDocument {
    fn type_meta(&self) -> (&str, &str) {
        (&self.meta.api_version, &self.meta.kind)
    }
}

impl Typed for ServiceReport {
    fn type_meta(&self) -> (&str, &str) {
        (&self.api_version, &self.kind)
    }
}

/// A time with its distance from the time of the document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PastTime {
    /// The time.
    pub(crate) time: Timestamp,
    /// The time since then.
    pub(crate) age_seconds: f64,
}

impl PastTime {
    /// Returns a time as seen at `now`.
    pub(crate) fn new(at: Moment, now: Moment) -> Self {
        PastTime { time: at.wall(), age_seconds: seconds(now.since(at)) }
    }
}

/// Returns a duration in seconds, in whole microseconds.
pub(crate) fn seconds(duration: std::time::Duration) -> f64 {
    duration.as_micros() as f64 / 1e6
}

/// A list with a limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LimitedList<T> {
    /// The number of all items.
    pub(crate) count: usize,
    /// The number of items that are not in `items`.
    pub(crate) omitted: usize,
    /// The items.
    pub(crate) items: Vec<T>,
}

impl<T> LimitedList<T> {
    /// Returns the first `limit` of these items.
    pub(crate) fn new(items: impl IntoIterator<Item = T>, limit: usize) -> Self {
        let mut all = items.into_iter();
        let items: Vec<T> = all.by_ref().take(limit).collect();
        let omitted = all.count();
        LimitedList { count: items.len() + omitted, omitted, items }
    }
}
