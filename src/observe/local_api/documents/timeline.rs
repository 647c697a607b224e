//! The document of what happened recently.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::TypeMeta;

/// What happened recently: syncs, failures, drift, isolation, and the state of the sources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TimelineDocument {
    /// `kind: Timeline`
    #[serde(flatten)]
    pub(crate) meta: TypeMeta,
    /// The time of the document.
    pub(crate) time: Timestamp,
    /// The number of entries since the start that the timeline no longer has.
    pub(crate) discarded: u64,
    /// The number of entries that match `since` and are left out because of `limit`: the older ones.
    pub(crate) omitted: usize,
    /// The entries, oldest first.
    pub(crate) entries: Vec<TimelineEntry>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TimelineEntry {
    /// Its number, from 1 at the start of the daemon; `since=NUMBER` returns those after it.
    pub(crate) number: u64,
    /// When it ended.
    pub(crate) time: Timestamp,
    /// The type.
    pub(crate) r#type: EntryType,
    /// The controller or source that it is about, such as `services`.
    pub(crate) component: String,
    /// The set of rules of a sync, such as `IPv4`.
    pub(crate) rules: Option<String>,
    /// One line of text.
    pub(crate) text: String,
    /// The reason of a sync: `start`, `change`, `retry`, `periodic`, `externalChange` or `timer`.
    pub(crate) trigger: Option<String>,
    /// The duration of a sync.
    pub(crate) duration_seconds: Option<f64>,
    /// The number of objects that another process had changed and that the sync restored.
    pub(crate) restored: Option<usize>,
    /// The process that changed rules, if it is known.
    pub(crate) process: Option<String>,
    /// The object, as `KIND NAMESPACE/NAME`.
    pub(crate) object: Option<String>,
    /// The error, as the kernel or the API server returned it.
    pub(crate) error: Option<String>,
}

/// The type of an entry of the timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum EntryType {
    /// The daemon started.
    Started,
    /// A sync succeeded.
    Sync,
    /// A sync failed as a whole.
    SyncFailed,
    /// A sync restored rules that another process had changed.
    Drift,
    /// An object was isolated.
    Isolated,
    /// An object is no longer isolated.
    NoLongerIsolated,
    /// A list or watch of the API server, or the reading of manifests, failed.
    SourceFailed,
    /// It succeeds again.
    SourceRecovered,
    /// Objects were listed completely again, as their watch could not be continued.
    Relisted,
}

impl EntryType {
    /// Returns true for a sync without anything to report, of which there are many.
    pub(crate) fn is_routine(self) -> bool {
        self == EntryType::Sync
    }
}
