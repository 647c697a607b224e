//! Events of the Kubernetes API (`events.k8s.io/v1`).

use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;
use portcullis_cluster::object::ObjectKey;
use portcullis_cluster::{Kind, Name, NamespacedName};
use serde_json::{Value, json};

/// The API's limit for `note`, in bytes.
const MAX_NOTE: usize = 1024;

/// How many characters of the object's name are used in the Event's, which may have 253.
const MAX_NAME_PREFIX: usize = 180;

/// An Event about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source) struct ApiEvent {
    pub(super) regarding: ObjectKey,
    pub(super) version: ObjectVersion,
    pub(super) event_type: EventType,
    pub(super) reason: String,
    pub(super) action: &'static str,
    pub(super) note: String,
    pub(super) source: EventSource,
}

/// The `type` of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// Information.
    Normal,
    /// A problem that needs an operator.
    Warning,
}

/// The reporter of an Event, which determines its name and `reportingController`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventSource {
    /// This node, under the names that kube-proxy uses, so that filters for its Events match.
    KubeProxy,
    /// Any node: all nodes report the same under the same Event name, so that one Event is created.
    AnyNode,
}

/// UID and version of the regarding object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::source) struct ObjectVersion {
    pub(super) uid: String,
    revision: String,
    /// `metadata.generation`, which counts changes of the spec; `None` for kinds without it.
    generation: Option<i64>,
}

impl ObjectVersion {
    /// Reads them from an object.
    pub(in crate::source) fn of(object: &Value) -> Self {
        let field = |name: &str| object.get("metadata").and_then(|metadata| metadata.get(name));
        let text = |name: &str| field(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        ObjectVersion {
            uid: text("uid"),
            revision: text("resourceVersion"),
            generation: field("generation").and_then(Value::as_i64),
        }
    }
}

impl ApiEvent {
    /// An Event of this node about an object of which only the name is known.
    pub(super) fn of_node(
        kind: Kind,
        name: NamespacedName,
        event_type: EventType,
        [reason, action]: [&'static str; 2],
        note: &str,
    ) -> Self {
        ApiEvent {
            regarding: ObjectKey { kind, name },
            version: ObjectVersion::default(),
            event_type,
            reason: reason.to_owned(),
            action,
            note: truncated(note, MAX_NOTE),
            source: EventSource::KubeProxy,
        }
    }

    /// An Event of any node about an object of which only the name is known. Nodes with the same note create one Event.
    pub(super) fn of_cluster(
        kind: Kind,
        name: NamespacedName,
        event_type: EventType,
        [reason, action]: [&'static str; 2],
        note: String,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        note.hash(&mut hasher);
        // Takes the place of the object's generation: another note is another Event.
        let version =
            ObjectVersion { generation: Some(i64::from(hasher.finish() as u32)), ..ObjectVersion::default() };
        let source = EventSource::AnyNode;
        ApiEvent {
            regarding: ObjectKey { kind, name },
            version,
            event_type,
            reason: reason.to_owned(),
            action,
            note,
            source,
        }
    }

    /// Returns a key that equal Events share.
    pub(super) fn dedup_key(&self) -> String {
        match self.source {
            EventSource::AnyNode => self.name(Timestamp::UNIX_EPOCH),
            EventSource::KubeProxy => format!("{}: {}: {}", self.regarding, self.reason, self.note),
        }
    }

    /// Returns the Event's name. For [`EventSource::AnyNode`] it is a function of the object's version, so that the first
    /// node creates the Event and the API server answers all others with 409.
    fn name(&self, now: Timestamp) -> String {
        let ObjectVersion { uid, revision, generation } = &self.version;
        let object: String = self.regarding.name.name.chars().take(MAX_NAME_PREFIX).collect();
        let object = object.trim_end_matches(['-', '.']);
        match self.source {
            EventSource::KubeProxy => format!("{object}.{:x}", now.as_nanosecond()),
            EventSource::AnyNode => {
                let version =
                    generation.map_or_else(|| revision.clone(), |generation| generation.to_string());
                let parts = [object, uid, &version];
                parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
            }
        }
    }

    /// Returns the namespace of the Event: that of the object, or `default` for cluster-scoped objects.
    pub(super) fn namespace(&self) -> &str {
        if self.regarding.kind.namespaced() { self.regarding.name.namespace.as_str() } else { "default" }
    }

    /// Returns the Event as JSON.
    pub(super) fn to_json(&self, node: &Name, now: Timestamp) -> Value {
        let ObjectVersion { uid, revision, .. } = &self.version;
        let ObjectKey { kind, name } = &self.regarding;
        let mut regarding =
            json!({"apiVersion": kind.api_version(), "kind": kind.as_str(), "name": &*name.name});
        let more = [("namespace", name.namespace.as_str()), ("uid", uid), ("resourceVersion", revision)];
        for (field, text) in more.into_iter().filter(|(_, text)| !text.is_empty()) {
            regarding[field] = text.into();
        }
        let (controller, instance) = match self.source {
            EventSource::KubeProxy => ("kube-proxy", format!("kube-proxy-{node}")),
            EventSource::AnyNode => ("portcullis", node.to_string()),
        };
        let event_type = match self.event_type {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        };
        json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": self.name(now), "namespace": self.namespace()},
            // MicroTime: exactly six digits of the second.
            "eventTime": format!("{now:.6}"),
            "type": event_type,
            "reason": self.reason,
            "action": self.action,
            "note": self.note,
            "regarding": regarding,
            "reportingController": controller,
            "reportingInstance": instance,
        })
    }
}

/// Joins as many sentences as fit into a note, and the number of the rest.
pub(crate) fn join_note(sentences: Vec<String>) -> String {
    let mut note = String::new();
    for (used, sentence) in sentences.iter().enumerate() {
        let rest = format!("; and {} more", sentences.len() - used);
        let between = if used == 0 { "" } else { "; " };
        let last = used + 1 == sentences.len();
        let room = MAX_NOTE - note.len() - if last { 0 } else { rest.len() };
        if between.len() + sentence.len() <= room {
            note.push_str(between);
            note.push_str(sentence);
        } else if used == 0 {
            note.push_str(&truncated(sentence, room));
        } else {
            note.push_str(&rest);
            break;
        }
    }
    note
}

/// Returns a text, truncated to this number of bytes.
fn truncated(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bytes.saturating_sub('…'.len_utf8()));
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_truncated() {
        let sentences = |number: usize, length: usize| join_note(vec!["x".repeat(length); number]);
        assert_eq!(sentences(2, 3), "xxx; xxx");
        assert_eq!(sentences(1, MAX_NOTE), "x".repeat(MAX_NOTE));
        assert!(sentences(1, MAX_NOTE + 1).ends_with("x…"));
        assert!(sentences(30, 100).ends_with("x; and 21 more"), "{}", sentences(30, 100));
        for (number, length) in [(1, 2000), (2, 600), (3, 2000), (2, MAX_NOTE / 2), (400, 1)] {
            assert!(sentences(number, length).len() <= MAX_NOTE, "{number} of {length}");
        }
    }

    #[test]
    fn nodes_with_the_same_note_create_one_event() {
        let name = |note: &str| {
            let service = NamespacedName::new("shop", "web");
            let names = ["FrontendNotServed", "Resolving"];
            let mut event =
                ApiEvent::of_cluster(Kind::Service, service, EventType::Warning, names, note.to_owned());
            event.version.uid = "5f0c".to_owned();
            let event = |node, seconds| {
                let now = Timestamp::from_second(seconds).expect("a time");
                event.to_json(&Name::new(node), now)["metadata"]["name"].as_str().map(str::to_owned)
            };
            let (one, two) = (event("node-1", 1_800_000_000), event("node-2", 1_800_000_007));
            assert_eq!(one, two);
            one.expect("a name")
        };
        assert!(name("taken by a").starts_with("web.5f0c."));
        assert_ne!(name("taken by a"), name("taken by b"));
    }

    #[test]
    fn events_of_kube_proxy_keep_its_names() {
        let service = NamespacedName::new("shop", "web");
        let mut event = ApiEvent::of_node(
            Kind::Service,
            service,
            EventType::Warning,
            ["FailedToStartServiceHealthcheck", "Listen"],
            "the port is taken",
        );
        event.version.uid = "5f0c".to_owned();
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let expected = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": "web.18fae27693b40000", "namespace": "shop"},
            "eventTime": "2027-01-15T08:00:00.000000Z",
            "type": "Warning", "reason": "FailedToStartServiceHealthcheck", "action": "Listen",
            "note": "the port is taken",
            "regarding": {"apiVersion": "v1", "kind": "Service", "namespace": "shop", "name": "web", "uid": "5f0c"},
            "reportingController": "kube-proxy", "reportingInstance": "kube-proxy-node-1",
        });
        assert_eq!(event.to_json(&Name::new("node-1"), now), expected);
    }
}
