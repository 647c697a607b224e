//! Events about invalid NetworkPolicies and ClusterNetworkPolicies.

use portcullis_cluster::object::{ObjectError, ObjectKey};
use portcullis_cluster::{Kind, Problem};

use super::api_event::{ApiEvent, EventSource, EventType, ObjectVersion, join_note};

/// Returns true for the kinds whose invalid objects are reported as Events. An invalid policy isolates pods, or allows less
/// than its author thinks.
pub(in crate::source) fn is_policy(kind: Kind) -> bool {
    matches!(kind, Kind::NetworkPolicy | Kind::ClusterNetworkPolicy)
}

/// An Event about invalid fields, which are ignored.
pub(in crate::source) fn of_problems(
    key: &ObjectKey,
    version: ObjectVersion,
    problems: &[Problem],
) -> ApiEvent {
    invalid_policy_event(key, version, join_note(problems.iter().map(ToString::to_string).collect()))
}

/// An Event about an object that cannot be parsed. `None` if it has no name.
pub(in crate::source) fn of_error(error: &ObjectError, version: ObjectVersion) -> Option<ApiEvent> {
    let ObjectError::Field { key, field, message } = error else { return None };
    let text =
        format!("{field}: {message}; the whole object is skipped, and its last valid version stays in force");
    Some(invalid_policy_event(key, version, join_note(vec![text])))
}

fn invalid_policy_event(key: &ObjectKey, version: ObjectVersion, note: String) -> ApiEvent {
    ApiEvent {
        regarding: key.clone(),
        version,
        event_type: EventType::Warning,
        reason: format!("Invalid{}", key.kind),
        action: "Enforcing",
        note,
        source: EventSource::AnyNode,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use portcullis_cluster::{Name, NamespacedName};
    use serde_json::{Value, json};

    use super::*;

    fn invalid(kind: Kind, namespace: &str, name: &str, metadata: Value) -> ApiEvent {
        let key = ObjectKey { kind, name: NamespacedName::new(namespace, name) };
        let version = ObjectVersion::of(&json!({"metadata": metadata}));
        let problem = Problem {
            field: "spec.egress[0].ports[0].port".into(),
            value: "0".into(),
            expected: "a number from 1 to 65535, or a name".into(),
            consequence: Some("this rule allows nothing".into()),
        };
        of_problems(&key, version, &[problem])
    }

    #[test]
    fn events_have_the_fields_of_the_events_api() {
        let metadata = json!({"uid": "5f0c", "resourceVersion": "77", "generation": 3});
        let event = invalid(Kind::NetworkPolicy, "shop", "web", metadata)
            .to_json(&Name::new("node-1"), Timestamp::from_second(1_800_000_000).expect("a time"));
        let expected = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": "web.5f0c.3", "namespace": "shop"},
            "eventTime": "2027-01-15T08:00:00.000000Z",
            "type": "Warning", "reason": "InvalidNetworkPolicy", "action": "Enforcing",
            "note": "spec.egress[0].ports[0].port: \"0\" is not a number from 1 to 65535, or a name; this rule allows nothing",
            "regarding": {
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "namespace": "shop", "name": "web",
                "uid": "5f0c", "resourceVersion": "77",
            },
            "reportingController": "portcullis", "reportingInstance": "node-1",
        });
        assert_eq!(event, expected);
    }

    #[test]
    fn event_names_depend_on_the_version_and_not_on_the_node() {
        let kind = Kind::ClusterNetworkPolicy;
        let name = |name: &str, metadata: Value| {
            let invalid_policy_event = invalid(kind, "", name, metadata);
            format!("{}/{}", invalid_policy_event.namespace(), invalid_policy_event.dedup_key())
        };
        let versions = |revision: &str, generation: i64| json!({"uid": "a-b", "resourceVersion": revision, "generation": generation});
        assert_eq!(name("guard", versions("7", 1)), "default/guard.a-b.1");
        assert_eq!(name("guard", versions("8", 1)), "default/guard.a-b.1", "the spec is the same");
        assert_eq!(name("guard", versions("9", 2)), "default/guard.a-b.2");
        assert_eq!(name("guard", json!({"uid": "a-b", "resourceVersion": "9"})), "default/guard.a-b.9");
        let long = name(&format!("{}-{}", "a".repeat(179), "b".repeat(50)), versions("7", 1));
        assert_eq!(long, format!("default/{}.a-b.1", "a".repeat(179)));
    }
}
