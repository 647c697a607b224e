//! Label and field selectors.

use serde_json::Value;

/// The selectors of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    pub(super) namespace: Option<String>,
    pub(super) labels: String,
    pub(super) fields: String,
}

impl Selector {
    /// Returns true if it restricts the objects.
    pub(super) fn is_some(&self) -> bool {
        !(self.labels.is_empty() && self.fields.is_empty())
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        self.namespace.as_deref().is_none_or(|namespace| metadata["namespace"] == namespace)
            && terms(&self.labels).all(|term| label(term, &metadata["labels"]))
            && terms(&self.fields).all(|term| field(term, object))
    }
}

fn terms(selector: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let comma = move |c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    };
    selector.split(comma).map(str::trim).filter(|term| !term.is_empty())
}

fn label(term: &str, labels: &Value) -> bool {
    let get = |key: &str| labels[key.trim()].as_str();
    let listed = |set: &str, value: &str| {
        set.trim().trim_matches(['(', ')']).split(',').any(|one| one.trim() == value)
    };
    if let Some(key) = term.strip_prefix('!') {
        get(key).is_none()
    } else if let Some((key, set)) = term.split_once(" notin ") {
        get(key).is_none_or(|value| !listed(set, value))
    } else if let Some((key, set)) = term.split_once(" in ") {
        get(key).is_some_and(|value| listed(set, value))
    } else if let Some((key, value)) = term.split_once("!=") {
        get(key) != Some(value.trim())
    } else if let Some((key, value)) = term.split_once('=') {
        get(key) == Some(value.trim_start_matches('=').trim())
    } else {
        get(term).is_some()
    }
}

fn field(term: &str, object: &Value) -> bool {
    let (path, value, wanted) = match (term.split_once("!="), term.split_once('=')) {
        (Some((path, value)), _) => (path, value, false),
        (None, Some((path, value))) => (path, value.trim_start_matches('='), true),
        (None, None) => panic!("{term:?}: invalid field selector"),
    };
    let found = path.split('.').fold(object, |value, part| &value[part]).as_str().unwrap_or_default();
    (found == value) == wanted
}

#[test]
fn selectors() {
    let object =
        serde_json::json!({"metadata": {"name": "a", "labels": {"x": "1"}}, "spec": {"clusterIP": "None"}});
    let rows = [
        ("", "", true),
        ("x", "", true),
        ("!x", "", false),
        ("x=1,!y", "", true),
        ("x==2", "", false),
        ("x!=2", "", true),
        ("x in (0, 1)", "", true),
        ("x in (0,2),!y", "", false),
        ("x notin (1)", "", false),
        ("", "metadata.name=a", true),
        ("", "metadata.name!=a", false),
        ("", "spec.clusterIP!=None", false),
        ("", "spec.type!=None", true),
    ];
    for (labels, fields, expected) in rows {
        let selector = Selector { namespace: None, labels: labels.into(), fields: fields.into() };
        assert_eq!(selector.matches(&object), expected, "{labels:?} {fields:?}");
    }
}
