//! Parsing of manifests, and checks common to all of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Returns the documents of a YAML file.
pub(crate) fn parse(text: &str, file: &Path) -> Vec<Value> {
    let documents = text.split("\n---\n").map(|document| {
        let value = serde_saphyr::from_str(document);
        value.unwrap_or_else(|error| panic!("{}: {error}\n{document}", file.display()))
    });
    documents.collect()
}

/// Returns the documents of all YAML files below a folder, with their paths.
pub(crate) fn documents(folder: &Path) -> Vec<(PathBuf, Value)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(documents(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = fs::read_to_string(&path).unwrap();
            found.extend(parse(&text, &path).into_iter().map(|document| (path.clone(), document)));
        }
    }
    found
}

pub(crate) fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Returns the containers of DaemonSets, including init containers.
pub(crate) fn containers<'a>(documents: impl IntoIterator<Item = &'a Value>) -> Vec<Value> {
    let sets = documents.into_iter().filter(|value| value["kind"] == "DaemonSet");
    let pods = sets.map(|value| value["spec"]["template"]["spec"].clone());
    let lists = pods.flat_map(|pod| ["initContainers", "containers"].map(|field| pod[field].clone()));
    lists.filter_map(|list| list.as_array().cloned()).flatten().collect()
}

/// Asserts that the program accepts a container's arguments, with `file` instead of the mounted configuration file.
pub(crate) fn assert_arguments_accepted(container: &Value, file: &Path, of: &str) {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        [texts(&container["command"]).get(1..).unwrap_or_default(), &texts(&container["args"])].concat();
    assert!(!arguments.is_empty(), "{of}");
    let arguments = arguments.into_iter().map(|argument| match argument.split_once('=') {
        Some(("--config", _)) => format!("--config={}", file.display()),
        _ => argument.replace("$(NODE_NAME)", "node-a"),
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(arguments).arg("--write-config-to").arg(folder.path().join("written.yaml"));
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{of}, {}: {stderr}", container["name"]);
    assert!(!stderr.contains("ERROR"), "{of}: {stderr}");
}

/// Asserts that the kubelet can restart a container while the API server is unreachable: references to a ConfigMap or a
/// Secret in its environment are read from the API server at each restart, which fails (`CreateContainerConfigError`).
pub(crate) fn assert_restarts_without_api_server(container: &Value, of: &str) {
    let name = container["name"].as_str().unwrap();
    assert!(container["envFrom"].is_null(), "{of}, {name}: {}", container["envFrom"]);
    for variable in container["env"].as_array().into_iter().flatten() {
        let sources = variable["valueFrom"].as_object().into_iter().flat_map(|sources| sources.keys());
        let sources: Vec<&String> = sources.collect();
        assert!(
            sources.iter().all(|source| matches!(source.as_str(), "fieldRef" | "resourceFieldRef")),
            "{of}, {name}: {variable}"
        );
    }
    let pull = container["imagePullPolicy"].as_str();
    assert!(pull.is_none_or(|policy| policy == "IfNotPresent"), "{of}, {name}: {pull:?}");
}

/// Returns the paths of fields that the API does not have; `None` for kinds that are not built in.
pub(crate) fn unknown_fields(value: &Value) -> Option<Vec<String>> {
    match value["kind"].as_str() {
        Some("DaemonSet") => Some(unknown::<DaemonSet>(value)),
        Some("ClusterRole") => Some(unknown::<ClusterRole>(value)),
        Some("ClusterRoleBinding") => Some(unknown::<ClusterRoleBinding>(value)),
        Some("ServiceAccount") => Some(unknown::<ServiceAccount>(value)),
        Some("ConfigMap") => Some(unknown::<ConfigMap>(value)),
        _ => None,
    }
}

/// Finds unknown fields: they are missing after a round trip through the API type.
fn unknown<T: DeserializeOwned + Serialize>(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    match serde_json::from_value::<T>(value.clone()) {
        Ok(typed) => missing(value, &serde_json::to_value(typed).unwrap(), "", &mut found),
        Err(error) => found.push(error.to_string()),
    }
    found
}

/// Collects the paths that are in `part` and not in `whole`.
fn missing(part: &Value, whole: &Value, path: &str, found: &mut Vec<String>) {
    match (part, whole) {
        (Value::Object(fields), Value::Object(others)) => fields.iter().for_each(|(name, value)| {
            missing(value, others.get(name).unwrap_or(&Value::Null), &format!("{path}.{name}"), found);
        }),
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
            for (n, (item, other)) in items.iter().zip(others).enumerate() {
                missing(item, other, &format!("{path}[{n}]"), found);
            }
        }
        _ if part == whole => {}
        _ => found.push(path.to_owned()),
    }
}

/// Returns the API groups and resources that the roles allow to list and watch.
pub(crate) fn readable<'a>(documents: impl IntoIterator<Item = &'a Value>) -> BTreeSet<(String, String)> {
    let roles = documents.into_iter().filter(|value| value["kind"] == "ClusterRole");
    let rules = roles.flat_map(|role| role["rules"].as_array().cloned().unwrap_or_default());
    let reading = rules.filter(|rule| texts(&rule["verbs"]) == ["list", "watch"]);
    reading
        .flat_map(|rule| {
            let groups = texts(&rule["apiGroups"]);
            assert_eq!(groups.len(), 1, "{rule}");
            texts(&rule["resources"]).into_iter().map(move |resource| (groups[0].clone(), resource))
        })
        .collect()
}

#[test]
fn unknown_fields_are_found() {
    let misspelt =
        serde_json::json!({"kind": "DaemonSet", "spec": {"template": {"spec": {"hostNetwrok": true}}}});
    assert_eq!(unknown_fields(&misspelt).unwrap(), [".spec.template.spec.hostNetwrok"]);
}
