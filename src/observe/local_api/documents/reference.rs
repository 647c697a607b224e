//! `docs/local-api.md` has a row for each field of each document, and no other.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use super::samples;
use crate::observe::traffic_events::{StreamLine, test_events};

/// Lists that are described elsewhere.
const DESCRIBED_ELSEWHERE: [&str; 2] = ["recentSyncs", "recentDrift"];

/// Returns the documents by path.
fn documents() -> Vec<(&'static str, Value)> {
    let event = StreamLine::TrafficEvent(Box::new(test_events::complete()));
    vec![
        ("/v1/status", value(&samples::status())),
        ("/v1/services", value(&samples::services())),
        ("/v1/timeline", value(&samples::timeline())),
        ("/v1/policies", value(&samples::policies())),
        ("/v1/observe", value(&event)),
    ]
}

fn value(document: &impl Serialize) -> Value {
    serde_json::to_value(document).expect("documents can be encoded")
}

/// Adds the paths of all fields.
fn add_fields(path: &str, value: &Value, fields: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                let field = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                fields.insert(field.clone());
                if !DESCRIBED_ELSEWHERE.contains(&field.as_str()) {
                    add_fields(&field, member, fields);
                }
            }
        }
        Value::Array(items) => {
            assert!(!items.is_empty(), "the sample has an item of {path}");
            items.iter().for_each(|item| add_fields(&format!("{path}[]"), item, fields));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_page_describes_each_field() {
    let page = include_str!("../../../../docs/local-api.md");
    for (path, document) in documents() {
        let heading = format!("\n## `{path}`\n");
        let (_, section) = page.split_once(&heading).unwrap_or_else(|| panic!("{path} has a section"));
        let section = section.split("\n## ").next().unwrap_or_default();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let described: BTreeSet<String> = rows.map(|(field, _)| field.to_owned()).collect();
        let mut fields = BTreeSet::new();
        add_fields("", &document, &mut fields);
        let missing: Vec<_> = fields.difference(&described).collect();
        let unknown: Vec<_> = described.difference(&fields).collect();
        assert!(missing.is_empty() && unknown.is_empty(), "{path}: missing {missing:?}, unknown {unknown:?}");
    }
}

#[test]
fn documents_can_be_read_again() {
    let text = serde_json::to_string(&samples::status()).expect("it can be encoded");
    assert_eq!(
        serde_json::from_str::<super::StatusDocument>(&text).expect("it can be read"),
        samples::status()
    );
    let event = StreamLine::TrafficEvent(Box::new(test_events::complete()));
    let text = serde_json::to_string(&event).expect("it can be encoded");
    assert_eq!(serde_json::from_str::<StreamLine>(&text).expect("it can be read"), event);
    let text = serde_json::to_string(&samples::timeline()).expect("it can be encoded");
    let read: super::TimelineDocument = serde_json::from_str(&text).expect("it can be read");
    assert_eq!(read, samples::timeline());
}
