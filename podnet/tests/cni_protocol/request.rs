//! Requests of tests: an environment and a configuration.

use std::collections::HashMap;
use std::ffi::OsString;

use portcullis_podnet::cni::{Call, CniError, CniVersion, ErrorCode};
use serde_json::{Value, json};

pub(crate) type Parsed = Result<(Call, CniVersion), (CniError, CniVersion)>;

pub(crate) fn parse(environment: &[(&str, &str)], stdin: &str) -> Parsed {
    let environment: HashMap<_, _> = environment.iter().copied().collect();
    Call::parse(|name| environment.get(name).map(OsString::from), stdin.as_bytes())
}

/// The environment of an operation about a container.
pub(crate) fn about(verb: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/c1"),
        ("CNI_IFNAME", "eth0"),
    ]
}

/// The configuration with other or (by null) without values.
pub(crate) fn configuration(changes: Value) -> String {
    let mut document = json!({
        "cniVersion": "1.1.0", "name": "portcullis", "type": "portcullis",
        "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"], "stateDir": "/state",
    });
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(document.as_object_mut().unwrap().remove(key)),
            value => document[key] = value.clone(),
        }
    }
    document.to_string()
}

/// Asserts the code of an error and that its message contains these parts.
pub(crate) fn assert_error(case: &str, parsed: Parsed, code: ErrorCode, parts: &[&str]) {
    let (error, _) = parsed.expect_err(case);
    assert_eq!(error.code, code, "{case}: {error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{case}: {error} lacks {part:?}");
    }
}
