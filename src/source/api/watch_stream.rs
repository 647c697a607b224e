//! Watch events, and those of a streaming list.

use std::borrow::Cow;

use portcullis_cluster::{Event, Kind};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::request_error::{RequestError, StatusError};
use crate::source::object_reader::{InvalidObjects, ObjectReader, resource_version};

/// The annotation of the bookmark that ends a streaming list (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

#[derive(Deserialize)]
struct WatchEvent<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// A parser of the events of a watch or streaming list.
pub(super) struct WatchStream<'a> {
    kind: Kind,
    reader: &'a mut ObjectReader,
    phase: StreamPhase,
    /// The resourceVersion from which another watch can continue.
    pub(super) revision: Option<String>,
    /// Parsed events that the caller has not taken yet.
    pub(super) events: Vec<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamPhase {
    /// A streaming list of which no event has arrived yet.
    ListRequested,
    /// The initial events of a streaming list.
    Listing,
    /// Changes after the list.
    Changes,
}

impl<'a> WatchStream<'a> {
    /// A watch of the changes after a resourceVersion.
    pub(super) fn after(kind: Kind, revision: &str, reader: &'a mut ObjectReader) -> Self {
        let revision = Some(revision.to_owned());
        WatchStream { kind, reader, phase: StreamPhase::Changes, revision, events: Vec::new() }
    }

    /// A streaming list, and then changes.
    pub(super) fn with_list(kind: Kind, reader: &'a mut ObjectReader) -> Self {
        WatchStream { kind, reader, phase: StreamPhase::ListRequested, revision: None, events: Vec::new() }
    }

    /// Returns true once all initial events have arrived.
    pub(super) fn listed(&self) -> bool {
        self.phase == StreamPhase::Changes
    }

    /// The invalid objects, see [`ObjectReader::invalid`].
    pub(super) fn invalid(&self) -> InvalidObjects {
        self.reader.invalid()
    }

    /// Parses one line.
    ///
    /// # Errors
    /// The line is not a watch event, or is an ERROR event.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<(), RequestError> {
        let malformed = |e: serde_json::Error| {
            let text: String = String::from_utf8_lossy(line).chars().take(80).collect();
            RequestError::Malformed(format!("{text:?} in a watch of {}: {e}", self.kind.plural()))
        };
        let event: WatchEvent = serde_json::from_slice(line).map_err(malformed)?;
        if event.kind == "ERROR" {
            return Err(RequestError::Rejected(StatusError::from_body(0, event.object.get().as_bytes())));
        }
        let object: Value = serde_json::from_str(event.object.get()).map_err(malformed)?;
        let revision = resource_version(&object).map(str::to_owned);
        match &*event.kind {
            "ADDED" | "MODIFIED" => {
                self.begin();
                self.events.push(self.reader.applied(object));
            }
            "DELETED" => {
                self.begin();
                self.events.extend(self.reader.deleted(&object));
            }
            "BOOKMARK" => self.bookmark(&object)?,
            other => {
                tracing::debug!(kind = %self.kind, "a watch event of the unknown type {other:?} is ignored")
            }
        }
        // The resourceVersions of initial events are unordered: a watch cannot continue from one of them.
        if self.listed() && revision.is_some() {
            self.revision = revision;
        }
        Ok(())
    }

    fn begin(&mut self) {
        if self.phase == StreamPhase::ListRequested {
            self.phase = StreamPhase::Listing;
            self.reader.list_started();
            self.events.push(Event::ListStarted(self.kind));
        }
    }

    fn bookmark(&mut self, object: &Value) -> Result<(), RequestError> {
        if self.listed() {
            return Ok(());
        }
        let annotations = object.get("metadata").and_then(|metadata| metadata.get("annotations"));
        let end =
            annotations.and_then(|annotations| annotations.get(INITIAL_EVENTS_END)).and_then(Value::as_str);
        if end != Some("true") {
            // A server that supports streaming lists sends no other bookmark before.
            let message =
                "the server does not support sendInitialEvents: the streaming list has no end".to_owned();
            return Err(RequestError::Rejected(StatusError { code: 400, message, ..StatusError::default() }));
        }
        self.begin();
        self.reader.listed();
        self.events.push(Event::Listed(self.kind));
        self.phase = StreamPhase::Changes;
        Ok(())
    }
}
