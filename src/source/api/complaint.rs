//! What is wrong with a policy, as an Event of the API.

use jiff::Timestamp;
use portcullis_cluster::object::{ObjectError, ObjectKey};
use portcullis_cluster::{Kind, Name, Problem};
use serde_json::{Value, json};

/// The API's limit for a note, in bytes.
const NOTE: usize = 1024;

/// So much of an object's name is in that of an Event, which may have 253 characters.
const NAME: usize = 180;

/// Who reports, as `reportingController` has it.
const CONTROLLER: &str = "portcullis";

/// An object that somebody should be told about, and what to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source) struct Complaint {
    key: ObjectKey,
    version: Version,
    note: String,
}

/// Which version of which object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::source) struct Version {
    uid: String,
    revision: String,
    /// Counts changes of the spec alone, where the server counts them.
    generation: Option<i64>,
}

impl Version {
    /// That of an object.
    pub(in crate::source) fn of(object: &Value) -> Self {
        let field = |name: &str| object.get("metadata").and_then(|metadata| metadata.get(name));
        let text = |name: &str| field(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Version {
            uid: text("uid"),
            revision: text("resourceVersion"),
            generation: field("generation").and_then(Value::as_i64),
        }
    }
}

impl Complaint {
    /// Whether objects of a kind are complained of: policies are, as what is wrong with one isolates pods, or opens
    /// less than its author thinks.
    pub(in crate::source) fn concerns(kind: Kind) -> bool {
        matches!(kind, Kind::NetworkPolicy | Kind::ClusterNetworkPolicy)
    }

    /// Some of its fields are not understood.
    pub(in crate::source) fn of_problems(key: &ObjectKey, version: Version, problems: &[Problem]) -> Self {
        let words = problems.iter().map(|Problem { field, value, expected }| {
            format!("{field} is ignored: {value:?} is not {expected}")
        });
        Complaint { key: key.clone(), version, note: note(words.collect()) }
    }

    /// It cannot be read at all. `None` if it has no name.
    pub(in crate::source) fn of_error(error: &ObjectError, version: Version) -> Option<Self> {
        let ObjectError::Field { key, field, message } = error else { return None };
        let words = format!(
            "{field}: {message}; the whole object is skipped, and what was last understood of it still counts"
        );
        Some(Complaint { key: key.clone(), version, note: note(vec![words]) })
    }

    /// The Event's name. It follows from the version of the object, so that of all nodes the first one makes the Event,
    /// and the others are told that it is there.
    pub(super) fn name(&self) -> String {
        let Version { uid, revision, generation } = &self.version;
        let object: String = self.key.name.name.chars().take(NAME).collect();
        let version = generation.map_or_else(|| revision.clone(), |generation| generation.to_string());
        let parts = [object.trim_end_matches(['-', '.']), uid, &version];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
    }

    /// Where it is made: beside the object, or in `default` for one that is in no namespace.
    pub(super) fn namespace(&self) -> &str {
        if self.key.kind.namespaced() { self.key.name.namespace.as_str() } else { "default" }
    }

    /// The Event (`events.k8s.io/v1`), as a node reports it.
    pub(super) fn event(&self, node: Name, now: Timestamp) -> Value {
        let Version { uid, revision, .. } = &self.version;
        let kind = self.key.kind;
        let mut regarding =
            json!({"apiVersion": kind.api_version(), "kind": kind.as_str(), "name": &*self.key.name.name});
        let more = [
            ("namespace", self.key.name.namespace.as_str()),
            ("uid", uid.as_str()),
            ("resourceVersion", revision.as_str()),
        ];
        for (field, text) in more.into_iter().filter(|(_, text)| !text.is_empty()) {
            regarding[field] = text.into();
        }
        json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": self.name(), "namespace": self.namespace()},
            // The API wants exactly six digits of the second.
            "eventTime": format!("{now:.6}"),
            "type": "Warning",
            "reason": format!("Invalid{kind}"),
            "action": "Enforcing",
            "note": self.note,
            "regarding": regarding,
            "reportingController": CONTROLLER,
            "reportingInstance": node.as_str(),
        })
    }
}

/// As many of the sentences as fit, and how many more there are.
fn note(sentences: Vec<String>) -> String {
    let mut note = String::new();
    for (told, sentence) in sentences.iter().enumerate() {
        let rest = format!("; and {} more", sentences.len() - told);
        let between = if told == 0 { "" } else { "; " };
        let last = told + 1 == sentences.len();
        let room = NOTE - note.len() - if last { 0 } else { rest.len() };
        if between.len() + sentence.len() <= room {
            note.push_str(between);
            note.push_str(sentence);
        } else if told == 0 {
            note.extend(shortened(sentence, room));
        } else {
            note.push_str(&rest);
            break;
        }
    }
    note
}

/// The beginning of a text that has so many bytes at most.
fn shortened(text: &str, bytes: usize) -> impl Iterator<Item = char> + '_ {
    let end = text.floor_char_boundary(bytes.saturating_sub('…'.len_utf8()));
    text[..end].chars().chain(['…'])
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::NamespacedName;

    use super::*;

    fn complaint(kind: Kind, namespace: &str, name: &str, metadata: Value) -> Complaint {
        let key = ObjectKey { kind, name: NamespacedName::new(namespace, name) };
        let version = Version::of(&json!({"metadata": metadata}));
        let problem = Problem {
            field: "spec.egress[0].ports[0].port".into(),
            value: "0".into(),
            expected: "a number from 1 to 65535, or a name",
        };
        Complaint::of_problems(&key, version, &[problem])
    }

    #[test]
    fn events_are_as_the_api_wants_them() {
        let metadata = json!({"uid": "5f0c", "resourceVersion": "77", "generation": 3});
        let event = complaint(Kind::NetworkPolicy, "shop", "web", metadata)
            .event(Name::new("node-1"), Timestamp::from_second(1_800_000_000).expect("a time"));
        let expected = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": "web.5f0c.3", "namespace": "shop"},
            "eventTime": "2027-01-15T08:00:00.000000Z",
            "type": "Warning", "reason": "InvalidNetworkPolicy", "action": "Enforcing",
            "note": "spec.egress[0].ports[0].port is ignored: \"0\" is not a number from 1 to 65535, or a name",
            "regarding": {
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "namespace": "shop", "name": "web",
                "uid": "5f0c", "resourceVersion": "77",
            },
            "reportingController": "portcullis", "reportingInstance": "node-1",
        });
        assert_eq!(event, expected);
    }

    #[test]
    fn names_tell_versions_apart_and_nodes_not() {
        let kind = Kind::ClusterNetworkPolicy;
        let name = |name: &str, metadata: Value| {
            let complaint = complaint(kind, "", name, metadata);
            format!("{}/{}", complaint.namespace(), complaint.name())
        };
        let versions = |revision: &str, generation: i64| json!({"uid": "a-b", "resourceVersion": revision, "generation": generation});
        assert_eq!(name("guard", versions("7", 1)), "default/guard.a-b.1");
        assert_eq!(name("guard", versions("8", 1)), "default/guard.a-b.1", "the spec is the same");
        assert_eq!(name("guard", versions("9", 2)), "default/guard.a-b.2");
        assert_eq!(name("guard", json!({"uid": "a-b", "resourceVersion": "9"})), "default/guard.a-b.9");
        let long = name(&format!("{}-{}", "a".repeat(179), "b".repeat(50)), versions("7", 1));
        assert_eq!(long, format!("default/{}.a-b.1", "a".repeat(179)));
    }

    #[test]
    fn notes_have_a_limit() {
        let sentences = |number: usize, length: usize| note(vec!["x".repeat(length); number]);
        assert_eq!(sentences(2, 3), "xxx; xxx");
        assert_eq!(sentences(1, NOTE), "x".repeat(NOTE));
        assert!(sentences(1, NOTE + 1).ends_with("x…"));
        assert!(sentences(30, 100).ends_with("x; and 21 more"), "{}", sentences(30, 100));
        for (number, length) in [(1, 2000), (2, 600), (3, 2000), (2, NOTE / 2), (400, 1)] {
            assert!(sentences(number, length).len() <= NOTE, "{number} of {length}");
        }
    }
}
