//! Reads objects, and says once what is wrong with each.

use std::collections::HashMap;

use portcullis_cluster::object::{Kind, Object, ObjectKey, key_of};
use portcullis_cluster::{Event, Problem};
use serde_json::Value;

use super::api::{Notice, Recorder, Version, complaint};

/// Turns objects of one kind into events. An object that cannot be read, or only in part, is reported once
/// for each of its versions, however often it is listed.
#[derive(Debug)]
pub(super) struct Reader {
    kind: Kind,
    doubtful: HashMap<ObjectKey, Doubt>,
    list: u64,
    recorder: Option<Recorder>,
    /// Why items of the current list have no name.
    nameless: Vec<String>,
}

/// Objects that cannot be read as a whole, or only in part.
#[derive(Debug, Default)]
pub(super) struct Doubtful {
    /// Why objects cannot be read as a whole, a line each.
    pub(super) unreadable: Vec<String>,
    /// The number of objects of which a field is ignored.
    pub(super) with_problems: usize,
}

#[derive(Debug)]
struct Doubt {
    version: String,
    /// Why the object cannot be read as a whole.
    unreadable: Option<String>,
    /// The list in which it was last seen.
    list: u64,
}

impl Reader {
    pub(super) fn new(kind: Kind) -> Self {
        Reader { kind, doubtful: HashMap::new(), list: 0, recorder: None, nameless: Vec::new() }
    }

    /// Complains also there of policies that cannot be read, or only in part.
    pub(super) fn complaining(self, recorder: Recorder) -> Self {
        Reader { recorder: complaint::concerns(self.kind).then_some(recorder), ..self }
    }

    /// A full list begins.
    pub(super) fn list_started(&mut self) {
        self.list += 1;
        self.nameless.clear();
    }

    /// A full list has ended: what was not in it is gone.
    pub(super) fn listed(&mut self) {
        self.doubtful.retain(|_, doubt| doubt.list == self.list);
    }

    /// The event of an object that was added or changed; of one that cannot be read, that what was known of it
    /// stays.
    pub(super) fn applied(&mut self, value: Value) -> Event {
        let version = resource_version(&value).unwrap_or_default().to_owned();
        let subject = self.recorder.as_ref().map(|_| Version::of(&value)).unwrap_or_default();
        match Object::parse(self.kind, value) {
            Ok(parsed) => {
                let key = parsed.object.key();
                if parsed.problems.is_empty() {
                    self.doubtful.remove(&key);
                } else if self.is_new(&key, &version, None) {
                    warn_of_problems(&key, &parsed.problems);
                    self.complain(|| Some(complaint::of_problems(&key, subject, &parsed.problems)));
                }
                Event::Applied(parsed.object)
            }
            Err(error) => {
                let reason = error.to_string();
                let new = match error.key() {
                    Some(key) => self.is_new(key, &version, Some(reason)),
                    None => {
                        self.nameless.push(reason);
                        true
                    }
                };
                if new {
                    tracing::warn!(kind = %self.kind, "{error}; the object is skipped, all others count");
                    self.complain(|| complaint::of_error(&error, subject));
                }
                Event::Kept(error.key().cloned().unwrap_or_else(|| ObjectKey::unnamed(self.kind)))
            }
        }
    }

    fn complain(&self, notice: impl FnOnce() -> Option<Notice>) {
        if let Some(recorder) = &self.recorder {
            notice().into_iter().for_each(|notice| recorder.tell(notice));
        }
    }

    /// The event of an object that is gone; `None` if it has no name.
    pub(super) fn deleted(&mut self, value: &Value) -> Option<Event> {
        match key_of(self.kind, value) {
            Ok(key) => {
                self.doubtful.remove(&key);
                Some(Event::Deleted(key))
            }
            Err(error) => {
                tracing::warn!(kind = %self.kind, "an object without a name is said to be deleted: {error}");
                None
            }
        }
    }

    /// The objects that cannot be read as a whole, or only in part.
    pub(super) fn doubtful(&self) -> Doubtful {
        let unreadable = self.doubtful.values().filter_map(|doubt| doubt.unreadable.clone());
        let unreadable: Vec<String> = unreadable.chain(self.nameless.iter().cloned()).collect();
        let with_problems = self.doubtful.len() + self.nameless.len() - unreadable.len();
        Doubtful { unreadable, with_problems }
    }

    /// Notes a doubtful object; whether this version of it has not been reported yet.
    fn is_new(&mut self, key: &ObjectKey, version: &str, unreadable: Option<String>) -> bool {
        let doubt = Doubt { version: version.to_owned(), unreadable, list: self.list };
        let before = self.doubtful.insert(key.clone(), doubt);
        before.is_none_or(|before| before.version != version)
    }
}

/// Logs the fields of an object that are ignored.
pub(super) fn warn_of_problems(key: &ObjectKey, problems: &[Problem]) {
    for Problem { field, value, expected } in problems {
        tracing::warn!(kind = %key.kind, object = %key.name, field, value, expected, "{key}: {field} is ignored: {value:?} is not {expected}");
    }
}

/// The revision of an object.
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

    fn counts(reader: &Reader) -> (usize, usize) {
        let doubtful = reader.doubtful();
        (doubtful.unreadable.len(), doubtful.with_problems)
    }

    #[test]
    fn an_unreadable_object_is_counted_until_it_is_readable_deleted_or_gone_from_a_list() {
        let bad = || service("5", json!({"ports": "none"}));
        let mut reader = Reader::new(Kind::Service);
        assert!(matches!(reader.applied(bad()), Event::Kept(_)));
        assert_eq!(counts(&reader), (1, 0));
        assert!(matches!(reader.applied(service("6", json!({}))), Event::Applied(_)));
        assert_eq!(counts(&reader), (0, 0));
        reader.applied(bad());
        assert!(matches!(reader.deleted(&bad()), Some(Event::Deleted(_))));
        assert_eq!(counts(&reader), (0, 0));
        reader.applied(bad());
        reader.list_started();
        reader.listed();
        assert_eq!(counts(&reader), (0, 0));
    }

    #[test]
    fn a_version_is_new_once() {
        let mut reader = Reader::new(Kind::Service);
        let key = key_of(Kind::Service, &service("1", json!({}))).expect("it has a name");
        assert!(reader.is_new(&key, "1", None));
        assert!(!reader.is_new(&key, "1", None));
        assert!(reader.is_new(&key, "2", None));
    }
}
