//! Writes the states of a case to the API server.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use portcullis_cluster::manifest;
use serde_json::Value;

use crate::api_server::ApiServer;

/// The objects of the API server, by resource and name.
pub(crate) type Stored = BTreeMap<(String, String), Value>;

/// Writes a state to the API server: deletions first, then additions and changes.
pub(crate) fn bring(server: &ApiServer, stored: &mut Stored, state: &Path) {
    let text = fs::read_to_string(state).expect("the state is readable");
    let documents = manifest::parse("state", &text).map(|document| document.expect("a whole document").value);
    let desired: Stored = documents.map(|object| (key(&object), object)).collect();
    for (kind, name) in stored.keys().filter(|key| !desired.contains_key(*key)) {
        server.delete(kind, name);
    }
    for (key, object) in &desired {
        if stored.get(key) != Some(object) {
            server.apply(object.clone());
        }
    }
    *stored = desired;
}

/// Returns the resource and the name of an object, as in API paths.
fn key(object: &Value) -> (String, String) {
    let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
    let plural = format!("{}s", text(&object["kind"]).to_lowercase());
    let name = text(&object["metadata"]["name"]);
    match text(&object["metadata"]["namespace"]).as_str() {
        "" => (plural, name),
        namespace => (plural, format!("{namespace}/{name}")),
    }
}
