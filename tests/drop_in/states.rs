//! The states of a case, as the API server comes to hold them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use portcullis_cluster::manifest;
use serde_json::Value;

use crate::api_server::ApiServer;

/// What the API server was brought to hold, by resource and name.
pub(crate) type Stored = BTreeMap<(String, String), Value>;

/// Brings the API server to a state: deletions first, then what is new or changed.
pub(crate) fn bring(server: &ApiServer, stored: &mut Stored, state: &Path) {
    let text = fs::read_to_string(state).expect("the state is readable");
    let documents = manifest::parse("state", &text).map(|document| document.expect("a whole document").value);
    let wanted: Stored = documents.map(|object| (key(&object), object)).collect();
    for (kind, name) in stored.keys().filter(|key| !wanted.contains_key(*key)) {
        server.delete(kind, name);
    }
    for (key, object) in &wanted {
        if stored.get(key) != Some(object) {
            server.apply(object.clone());
        }
    }
    *stored = wanted;
}

/// The resource and the name of an object, as the API's paths have them.
fn key(object: &Value) -> (String, String) {
    let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
    let plural = format!("{}s", text(&object["kind"]).to_lowercase());
    let name = text(&object["metadata"]["name"]);
    match text(&object["metadata"]["namespace"]).as_str() {
        "" => (plural, name),
        namespace => (plural, format!("{namespace}/{name}")),
    }
}
