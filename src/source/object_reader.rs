//! The reader of API objects, which reports each problem of an object once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use portcullis_cluster::json_object::UndecodableObject;
use portcullis_cluster::object::{ParsedObject, parse_text};
use portcullis_cluster::{Event, Kind, Object, ObjectKey};
use serde_json::Value;

use super::api::{ApiEvent, EventRecorder, ObjectVersion, invalid_policy};
use super::reported_problems::ReportedProblems;

/// The most objects of one kind in a list. Kubernetes supports 150,000 pods and 5,000 nodes in a cluster.
const MAX_LISTED_OBJECTS: usize = 1_000_000;

/// How many errors of objects without a name are kept.
const MAX_NAMELESS: usize = 100;

/// Parses objects of one kind into events. Each problem of an object is reported once, however often the object is listed or
/// changes, until the object has no problem.
#[derive(Debug)]
pub(super) struct ObjectReader {
    kind: Kind,
    invalid: HashMap<ObjectKey, InvalidObject>,
    list: u64,
    is_listing: bool,
    recorder: Option<EventRecorder>,
    /// Errors of the items of the current list that have no name, without duplicates, and at most [`MAX_NAMELESS`].
    nameless: BTreeSet<Arc<str>>,
    /// The number of objects of the list that is being read; 0 after its end.
    listed_objects: usize,
    max_listed_objects: usize,
    reported_nameless: ReportedProblems,
    /// The invalid objects have changed since [`ObjectReader::take_invalid`].
    has_changed: bool,
}

/// Objects that cannot be parsed, and objects with invalid fields.
#[derive(Debug, Default)]
pub(super) struct InvalidObjects {
    /// Why objects cannot be parsed, one line for each object.
    pub(super) unreadable: Vec<Arc<str>>,
    /// The number of objects with an invalid field, which is ignored.
    pub(super) with_problems: usize,
}

#[derive(Debug, Default)]
struct InvalidObject {
    reported: ReportedProblems,
    /// Why the object cannot be parsed at all.
    unreadable: Option<Arc<str>>,
    /// The number of the last list that had it.
    list: u64,
}

impl ObjectReader {
    pub(super) fn new(kind: Kind) -> Self {
        ObjectReader {
            kind,
            invalid: HashMap::new(),
            list: 0,
            is_listing: false,
            recorder: None,
            nameless: BTreeSet::new(),
            listed_objects: 0,
            max_listed_objects: MAX_LISTED_OBJECTS,
            reported_nameless: ReportedProblems::default(),
            has_changed: false,
        }
    }

    /// Also records Events about invalid policies.
    pub(super) fn with_events(self, recorder: EventRecorder) -> Self {
        ObjectReader { recorder: invalid_policy::is_policy(self.kind).then_some(recorder), ..self }
    }

    /// Sets another limit of objects in a list.
    #[cfg(test)]
    pub(super) fn with_max_listed_objects(self, max_listed_objects: usize) -> Self {
        ObjectReader { max_listed_objects, ..self }
    }

    /// Starts a full list.
    pub(super) fn list_started(&mut self) {
        self.list += 1;
        self.listed_objects = 0;
        self.is_listing = true;
        self.nameless.clear();
    }

    /// Ends a full list: invalid objects that it did not have were deleted.
    pub(super) fn listed(&mut self) {
        self.is_listing = false;
        self.listed_objects = 0;
        self.invalid.retain(|_, invalid_object| invalid_object.list == self.list);
        self.has_changed = true;
    }

    /// Returns the limit of objects in a list if the list that is being read has more.
    pub(super) fn exceeded_limit(&self) -> Option<usize> {
        (self.listed_objects > self.max_listed_objects).then_some(self.max_listed_objects)
    }

    /// Parses the JSON text of an object, for [`ObjectReader::applied_parsed`]. `None` if [`ObjectReader::applied`] has to report
    /// the object, or needs its metadata for an Event.
    pub(super) fn parse_text(&self, text: &[u8]) -> Option<ParsedObject> {
        if self.recorder.is_some() { None } else { parse_text(self.kind, text) }
    }

    /// Returns the event of an object that was added or changed and is parsed already.
    pub(super) fn applied_parsed(&mut self, parsed: ParsedObject) -> Event {
        self.listed_objects += usize::from(self.is_listing);
        self.parsed(parsed, ObjectVersion::default())
    }

    /// Returns the event of an object that was added or changed; for one that cannot be parsed, [`Event::Unreadable`].
    pub(super) fn applied(&mut self, object: Result<Value, UndecodableObject>) -> Event {
        self.listed_objects += usize::from(self.is_listing);
        let head = object.as_ref().unwrap_or_else(|undecodable| &undecodable.head);
        let subject = self.recorder.as_ref().map(|_| ObjectVersion::of(head)).unwrap_or_default();
        let parsed = match object {
            Ok(value) => Object::parse(self.kind, value),
            Err(undecodable) => Err(undecodable.into_error(self.kind)),
        };
        match parsed {
            Ok(parsed) => self.parsed(parsed, subject),
            Err(error) => {
                let text: Arc<str> = error.to_string().into();
                let new = match error.key() {
                    Some(key) => self.invalid_object(key, Some(text.clone())).reported.is_new(&text),
                    None => {
                        if self.nameless.len() < MAX_NAMELESS {
                            self.has_changed |= self.nameless.insert(text.clone());
                        }
                        self.reported_nameless.is_new(&text)
                    }
                };
                if new {
                    tracing::warn!(kind = %self.kind, "{text}; skipping this object");
                    self.record(|| invalid_policy::of_error(&error, subject));
                }
                Event::Unreadable(error.key().cloned().unwrap_or_else(|| ObjectKey::unnamed(self.kind)))
            }
        }
    }

    /// Reports the problems of an object, and returns its event.
    fn parsed(&mut self, parsed: ParsedObject, subject: ObjectVersion) -> Event {
        let ParsedObject { object, problems } = parsed;
        if !problems.is_empty() {
            let key = object.key();
            if self.invalid_object(&key, None).reported.warn(&key, &problems) {
                self.record(|| Some(invalid_policy::of_problems(&key, subject, &problems)));
            }
        } else if !self.invalid.is_empty() {
            self.remove_invalid(&object.key());
        }
        Event::Applied(object)
    }

    fn record(&self, event: impl FnOnce() -> Option<ApiEvent>) {
        if let Some(recorder) = &self.recorder {
            event().into_iter().for_each(|event| recorder.send(event));
        }
    }

    /// Returns the event of a deleted object; `None` if it has no name.
    pub(super) fn deleted(&mut self, value: &Value) -> Option<Event> {
        match ObjectKey::parse(self.kind, value) {
            Ok(key) => {
                self.remove_invalid(&key);
                Some(Event::Deleted(key))
            }
            Err(error) => {
                tracing::warn!(kind = %self.kind, "ignoring a DELETED event for an object without a name: {error}");
                None
            }
        }
    }

    /// Returns the objects that are invalid now, if they have changed since the last call. `None` also while a list is read, so that
    /// the cost of a list with many of them follows their number.
    pub(super) fn take_invalid(&mut self) -> Option<InvalidObjects> {
        (!self.is_listing && std::mem::take(&mut self.has_changed)).then(|| self.invalid())
    }

    fn invalid(&self) -> InvalidObjects {
        let unreadable = self.invalid.values().filter_map(|invalid_object| invalid_object.unreadable.clone());
        let unreadable: Vec<Arc<str>> = unreadable.chain(self.nameless.iter().cloned()).collect();
        let with_problems = self.invalid.len() + self.nameless.len() - unreadable.len();
        InvalidObjects { unreadable, with_problems }
    }

    /// Records an invalid object.
    fn invalid_object(&mut self, key: &ObjectKey, unreadable: Option<Arc<str>>) -> &mut InvalidObject {
        let is_new = !self.invalid.contains_key(key);
        let invalid_object = self.invalid.entry(key.clone()).or_default();
        self.has_changed |= is_new || invalid_object.unreadable != unreadable;
        (invalid_object.unreadable, invalid_object.list) = (unreadable, self.list);
        invalid_object
    }

    fn remove_invalid(&mut self, key: &ObjectKey) {
        self.has_changed |= self.invalid.remove(key).is_some();
    }
}

/// Returns `metadata.resourceVersion` of an object.
pub(super) fn resource_version(value: &Value) -> Option<&str> {
    value.get("metadata")?.get("resourceVersion")?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(version: &str, spec: Value) -> Value {
        json!({"metadata": {"name": "a", "namespace": "x", "resourceVersion": version}, "spec": spec})
    }

    fn counts(reader: &ObjectReader) -> (usize, usize) {
        let invalid = reader.invalid();
        (invalid.unreadable.len(), invalid.with_problems)
    }

    #[test]
    fn unreadable_object_is_counted_until_it_is_readable_deleted_or_not_listed() {
        let bad = || service("5", json!({"ports": "none"}));
        let mut reader = ObjectReader::new(Kind::Service);
        assert!(matches!(reader.applied(Ok(bad())), Event::Unreadable(_)));
        assert_eq!(counts(&reader), (1, 0));
        assert!(matches!(reader.applied(Ok(service("6", json!({})))), Event::Applied(_)));
        assert_eq!(counts(&reader), (0, 0));
        reader.applied(Ok(bad()));
        assert!(matches!(reader.deleted(&bad()), Some(Event::Deleted(_))));
        assert_eq!(counts(&reader), (0, 0));
        reader.applied(Ok(bad()));
        reader.list_started();
        reader.listed();
        assert_eq!(counts(&reader), (0, 0));
    }

    #[test]
    fn invalid_objects_are_returned_when_they_have_changed_and_no_list_is_read() {
        let mut reader = ObjectReader::new(Kind::Service);
        let mut taken = |step: &dyn Fn(&mut ObjectReader)| {
            step(&mut reader);
            reader.take_invalid().map(|invalid| invalid.unreadable.len())
        };
        let bad = |name: &str, ports: &str| json!({"metadata": {"name": name, "namespace": "x"}, "spec": {"ports": ports}});
        assert_eq!(taken(&|reader| reader.list_started()), None);
        assert_eq!(taken(&|reader| drop(reader.applied(Ok(bad("a", "x"))))), None, "the list is being read");
        assert_eq!(taken(&|reader| drop(reader.applied(Ok(bad("b", "x"))))), None);
        assert_eq!(taken(&|reader| reader.listed()), Some(2));
        assert_eq!(taken(&|reader| drop(reader.applied(Ok(bad("a", "x"))))), None, "it is the same");
        assert_eq!(
            taken(&|reader| drop(reader.applied(Ok(service("5", json!({})))))),
            Some(1),
            "it is valid"
        );
        assert_eq!(taken(&|reader| drop(reader.applied(Ok(service("6", json!({})))))), None);
        assert_eq!(taken(&|reader| drop(reader.applied(Ok(bad("c", "x"))))), Some(2));
        assert_eq!(taken(&|reader| drop(reader.deleted(&bad("c", "x")))), Some(1));
    }

    /// Returns how many Events are recorded for each of these versions of one NetworkPolicy.
    fn event_counts(specs: &[Value]) -> Vec<usize> {
        let (recorder, mut queue) = EventRecorder::channel(portcullis_cluster::Name::new("node-1"));
        let mut reader = ObjectReader::new(Kind::NetworkPolicy).with_events(recorder);
        let versions = specs.iter().enumerate();
        versions
            .map(|(version, spec)| {
                let metadata = json!({"name": "a", "namespace": "x", "uid": "u", "generation": version});
                reader.applied(Ok(json!({"metadata": metadata, "spec": spec})));
                queue.drain()
            })
            .collect()
    }

    #[test]
    fn problem_is_reported_once_for_all_versions_of_an_object() {
        let block =
            |cidr: &str| json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": cidr}}]}]});
        let (bad, worse) = (block("x"), block("y"));
        let unreadable = json!({"ingress": 3});
        assert_eq!(
            event_counts(&[bad.clone(), bad.clone(), bad.clone()]),
            [1, 0, 0],
            "an annotation changes"
        );
        assert_eq!(event_counts(&[bad.clone(), worse.clone(), bad.clone(), worse]), [1, 1, 0, 0]);
        assert_eq!(
            event_counts(&[unreadable.clone(), unreadable.clone(), bad.clone(), unreadable]),
            [1, 0, 1, 0]
        );
        assert_eq!(
            event_counts(&[bad.clone(), block("10.0.0.0/8"), bad]),
            [1, 0, 1],
            "it was good in between"
        );
    }
}
