//! The events of a watch, and those of a streaming list.

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

/// A stream of events as far as it has been read.
pub(super) struct WatchStream<'a> {
    kind: Kind,
    reader: &'a mut ObjectReader,
    phase: StreamPhase,
    /// The revision from which another watch can go on.
    pub(super) revision: Option<String>,
    /// What has been read and not been taken yet.
    pub(super) events: Vec<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamPhase {
    /// A streaming list of which nothing has come yet.
    ListRequested,
    /// In the objects of a streaming list.
    Listing,
    /// What changes.
    Changes,
}

impl<'a> WatchStream<'a> {
    /// What changes after a revision.
    pub(super) fn after(kind: Kind, revision: &str, reader: &'a mut ObjectReader) -> Self {
        let revision = Some(revision.to_owned());
        WatchStream { kind, reader, phase: StreamPhase::Changes, revision, events: Vec::new() }
    }

    /// A streaming list, and then what changes.
    pub(super) fn with_list(kind: Kind, reader: &'a mut ObjectReader) -> Self {
        WatchStream { kind, reader, phase: StreamPhase::ListRequested, revision: None, events: Vec::new() }
    }

    /// Whether all objects are known.
    pub(super) fn listed(&self) -> bool {
        self.phase == StreamPhase::Changes
    }

    /// The objects that are invalid, as [`ObjectReader::invalid`].
    pub(super) fn invalid(&self) -> InvalidObjects {
        self.reader.invalid()
    }

    /// Takes in one line.
    ///
    /// # Errors
    /// It is no event, or it is one that ends the stream.
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
        // Revisions within a streaming list are those of its objects, in no order: none to go on from.
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
            // A server that knows streaming lists sends no other bookmark before.
            let message = "the list has no end: this server does not know sendInitialEvents".to_owned();
            return Err(RequestError::Rejected(StatusError { code: 400, message, ..StatusError::default() }));
        }
        self.begin();
        self.reader.listed();
        self.events.push(Event::Listed(self.kind));
        self.phase = StreamPhase::Changes;
        Ok(())
    }
}
