//! Watch events, and those of a streaming list.

use std::borrow::Cow;

use portcullis_cluster::json_object::{self, decode_object};
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

    /// The invalid objects if they have changed, see [`ObjectReader::take_invalid`].
    pub(super) fn take_invalid(&mut self) -> Option<InvalidObjects> {
        self.reader.take_invalid()
    }

    /// Parses one line.
    ///
    /// # Errors
    /// The line is not a watch event, or is an ERROR event.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<(), RequestError> {
        if let Some(object) = applied_object(line)
            && let Some(parsed) = self.reader.parse_text(object)
        {
            self.begin();
            self.events.push(self.reader.applied_parsed(parsed));
            if self.listed() {
                self.revision = json_object::resource_version(object).or(self.revision.take());
            }
            return self.check_limit();
        }
        // The API server sends UTF-8. Only the object with other bytes is affected by them.
        let line = String::from_utf8_lossy(line);
        let malformed = |e: serde_json::Error| {
            let text: String = line.chars().take(80).collect();
            RequestError::Malformed(format!("{text:?} in a watch of {}: {e}", self.kind.plural()))
        };
        let event: WatchEvent = serde_json::from_str(&line).map_err(malformed)?;
        if event.kind == "ERROR" {
            return Err(RequestError::Rejected(StatusError::from_body(0, event.object.get().as_bytes())));
        }
        let object = decode_object(event.object.get());
        // Of an object that cannot be decoded, the metadata is known.
        let head = object.as_ref().unwrap_or_else(|undecodable| &undecodable.head);
        let revision = resource_version(head).map(str::to_owned);
        match &*event.kind {
            "ADDED" | "MODIFIED" => {
                self.begin();
                self.events.push(self.reader.applied(object));
                self.check_limit()?;
            }
            "DELETED" => {
                self.begin();
                self.events.extend(self.reader.deleted(head));
            }
            "BOOKMARK" => self.bookmark(head)?,
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

    fn check_limit(&self) -> Result<(), RequestError> {
        let plural = self.kind.plural();
        self.reader.exceeded_limit().map_or(Ok(()), |limit| Err(RequestError::TooMany { plural, limit }))
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

/// Returns the object of an ADDED or MODIFIED event as the API server writes it; `None` for other lines. The object is not
/// checked: if it is valid JSON, so is the line.
fn applied_object(line: &[u8]) -> Option<&[u8]> {
    let event = line.strip_prefix(br#"{"type":""#)?;
    let object = event.strip_prefix(b"ADDED").or_else(|| event.strip_prefix(b"MODIFIED"))?;
    object.strip_prefix(br#"","object":"#)?.strip_suffix(b"}")
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::Index;

    use super::*;

    /// An event about Service `ns/NAME` with other fields of its metadata and object.
    fn line(event: &str, name: &str, revision: u32, metadata: &str, fields: &str) -> String {
        format!(
            r#"{{"type":"{event}","object":{{"metadata":{{"name":"{name}","namespace":"ns","uid":"u","resourceVersion":"{revision}"{metadata}}}{fields}}}}}"#
        )
    }

    /// Returns a value that is nested too deeply to be decoded.
    fn deep() -> String {
        "[".repeat(200) + &"]".repeat(200)
    }

    #[test]
    fn undecodable_object_affects_neither_the_watch_nor_other_objects() {
        let deep = deep();
        let managed = format!(r#","managedFields":[{{"fieldsV1":{deep}}}]"#);
        let port = |port: u16| format!(r#","spec":{{"clusterIP":"10.0.0.1","ports":[{{"port":{port}}}]}}"#);
        let unreadable = format!(r#","spec":{deep}"#);
        // Event, and the ports of `a` and `b` in the index after it, the number of unreadable objects, and whether an object exists
        // of which no version is known.
        type Ports = [Option<u16>; 2];
        let rows: [(String, Ports, usize, bool); 9] = [
            (line("ADDED", "a", 1, &managed, &port(1)), [Some(1), None], 0, false),
            (line("MODIFIED", "a", 2, &managed, &port(2)), [Some(2), None], 0, false),
            (line("MODIFIED", "a", 3, "", &unreadable), [Some(2), None], 1, false),
            (line("ADDED", "b", 4, "", &unreadable), [Some(2), None], 2, true),
            (line("MODIFIED", "a", 5, "", &port(5)), [Some(5), None], 1, true),
            (line("MODIFIED", "b", 6, &managed, &port(6)), [Some(5), Some(6)], 0, false),
            (line("MODIFIED", "b", 7, "", &unreadable), [Some(5), Some(6)], 1, false),
            (line("DELETED", "b", 8, &managed, &unreadable), [Some(5), None], 0, false),
            (line("ADDED", "c", 9, "", r#","spec":1e999"#), [Some(5), None], 1, true),
        ];
        let mut reader = ObjectReader::new(Kind::Service);
        let mut watch = WatchStream::after(Kind::Service, "0", &mut reader);
        let (mut index, mut invalid) = (Index::new(), None);
        for (number, (line, ports, unreadable, is_unknown)) in rows.into_iter().enumerate() {
            watch.line(line.as_bytes()).expect("the line is an event");
            assert_eq!(
                watch.revision,
                Some((number + 1).to_string()),
                "the watch continues from here: {line}"
            );
            watch.events.drain(..).for_each(|event| _ = index.handle(event));
            let port_of = |name| {
                let service = index.service(&portcullis_cluster::NamespacedName::new("ns", name));
                service.map(|service| service.ports[0].port.get())
            };
            assert_eq!(["a", "b"].map(port_of), ports, "{line}");
            invalid = watch.take_invalid().or(invalid);
            let count = invalid.as_ref().map_or(0, |invalid| invalid.unreadable.len());
            assert_eq!(count, unreadable, "{line}");
            assert_eq!(!index.unreadable().is_empty(), is_unknown, "{line}");
        }
        let text = invalid.expect("there are some").unreadable.concat();
        assert!(text.contains("Service ns/c: field spec: cannot be decoded: number out of range"), "{text}");
    }

    #[test]
    fn unreadable_policy_keeps_its_last_version_in_force() {
        let deep = deep();
        let policy =
            |revision, spec: &str| line("MODIFIED", "deny", revision, "", &format!(r#","spec":{spec}"#));
        let mut reader = ObjectReader::new(Kind::NetworkPolicy);
        let mut watch = WatchStream::after(Kind::NetworkPolicy, "0", &mut reader);
        let mut index = Index::new();
        for spec in [r#"{"podSelector":{}}"#.to_owned(), format!(r#"{{"podSelector":{{"x":{deep}}}}}"#)] {
            watch.line(policy(1, &spec).as_bytes()).expect("the line is an event");
            watch.events.drain(..).for_each(|event| _ = index.handle(event));
            assert_eq!(index.network_policies().count(), 1, "{spec}");
        }
        assert!(index.unreadable().is_empty(), "the last version is known");
        let unknown = line("ADDED", "new", 2, "", &format!(r#","spec":{deep}"#));
        watch.line(unknown.as_bytes()).expect("the line is an event");
        watch.events.drain(..).for_each(|event| _ = index.handle(event));
        assert!(!index.unreadable().is_empty(), "no version of `new` is known");
    }
}
