//! The value `config` in the schema of the Helm chart, generated from the table of settings; `make bless` regenerates it. The
//! program reads a `KubeProxyConfiguration` strictly, so Helm rejects what the program would.

use std::fs;

use serde_json::{Value, json};

use crate::config::ProxyMode;
use crate::generated_docs::assert_current;

use super::super::field_ref::FieldRef;
use super::super::setting_table::settings;
use super::super::settings::Settings;
use super::reference::meaning;

const SCHEMA: &str = "deploy/helm/portcullis/values.schema.json";

/// A duration as written in Go.
const DURATION: &str = r"^[+-]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$";

/// The values of fields that have only a few. Empty means the default.
fn choices(path: &str) -> Option<Vec<&'static str>> {
    match path {
        "mode" => Some([""].into_iter().chain(ProxyMode::ALL.map(ProxyMode::name)).collect()),
        "detectLocalMode" => {
            Some(vec!["", "ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"])
        }
        _ => None,
    }
}

/// Returns the schema of a field. As in kube-proxy, null means that the field is not set: kubeadm writes such fields.
fn field(path: &str, field_ref: &FieldRef<'_>) -> Value {
    if let Some(choices) = choices(path) {
        let choices: Vec<Value> = choices.into_iter().map(Value::from).chain([Value::Null]).collect();
        return json!({"enum": choices});
    }
    match field_ref {
        FieldRef::Bool(_) => json!({"type": ["boolean", "null"]}),
        FieldRef::Integer(_) => {
            json!({"type": ["integer", "null"], "minimum": i32::MIN, "maximum": i32::MAX})
        }
        FieldRef::Float(_) => json!({"type": ["number", "null"]}),
        FieldRef::Duration(_) => json!({"type": ["string", "null"], "pattern": DURATION}),
        FieldRef::Text(_) | FieldRef::Joined(_) => json!({"type": ["string", "null"]}),
        FieldRef::DurationOrNanoseconds(_) | FieldRef::Quantity(_) => {
            json!({"type": ["string", "integer", "null"]})
        }
        FieldRef::List(_) => json!({"type": ["array", "null"], "items": {"type": "string"}}),
        FieldRef::Gates(_) => {
            json!({"type": ["object", "null"], "additionalProperties": {"type": "boolean"}})
        }
        FieldRef::VModules(_) => json!({"type": ["array", "null"], "items": {
            "type": "object",
            "additionalProperties": false,
            "properties": {"filePattern": {"type": "string"}, "verbosity": {"type": "integer", "minimum": 0}},
        }}),
    }
}

/// Returns the schema of a `KubeProxyConfiguration` without `apiVersion` and `kind`, which the chart adds.
fn configuration() -> Value {
    let object = |properties: Value| json!({"type": "object", "additionalProperties": false, "properties": properties});
    let mut root = object(json!({}));
    root["description"] = "A KubeProxyConfiguration: docs/settings.md".into();
    for setting in settings() {
        let Some(path) = setting.yaml else { continue };
        let mut defaults = Settings::default();
        let mut schema = field(path, &(setting.field_ref)(&mut defaults));
        schema["description"] = meaning(setting).into();
        let (parents, name) = path.rsplit_once('.').unwrap_or(("", path));
        let mut parent = &mut root;
        for segment in parents.split('.').filter(|segment| !segment.is_empty()) {
            let fields = parent["properties"].as_object_mut().expect("an object has properties");
            parent = fields.entry(segment).or_insert_with(|| object(json!({})));
        }
        parent["properties"][name] = schema;
    }
    root
}

#[test]
fn the_schema_of_the_chart_is_written_from_the_table() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(SCHEMA);
    let mut schema: Value =
        serde_json::from_str(&fs::read_to_string(path).expect("the chart is there")).expect("JSON");
    schema["properties"]["config"] = configuration();
    let text = serde_json::to_string_pretty(&schema).expect("JSON");
    assert_current(SCHEMA, &(text + "\n"));
}
