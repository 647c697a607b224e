//! Tests of the documents that commands print for programs (`-o json`, `-o yaml`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

#[path = "../netlink/tests/namespace/mod.rs"]
mod namespace;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Runs a command. Returns its exit status and its standard output.
fn run(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    let Output { status, stdout, stderr } = command.args(arguments).output().expect("the binary runs");
    let code = status.code().expect("no signal");
    assert_ne!(code, 2, "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
    (code, String::from_utf8(stdout).expect("it prints UTF-8"))
}

/// Returns the paths of all keys that are not camelCase.
fn malformed_keys(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let is_camel_case = key.starts_with(|c: char| c.is_ascii_lowercase())
                    && key.chars().all(|c| c.is_ascii_alphanumeric());
                if !is_camel_case {
                    found.insert(format!("{path}.{key}"));
                }
                malformed_keys(value, &format!("{path}.{key}"), found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| malformed_keys(value, path, found)),
        _ => {}
    }
}

/// Every command with `-o`, its kind, and keys that are always there.
const COMMANDS: [(&[&str], &str, &[&str]); 10] = [
    (&["render", "--mode=iptables"], "Rules", &["mode", "complete", "parts"]),
    (&["render", "--mode=ipvs"], "Rules", &["mode", "complete", "parts"]),
    (&["render", "--mode=nftables", "--network-policy"], "Rules", &["mode", "complete", "parts"]),
    (&["diff", "--mode=nftables"], "RulesDiff", &["mode", "complete", "differs", "differences"]),
    (&["diff", "--mode=iptables"], "RulesDiff", &["mode", "complete", "differs", "differences"]),
    (
        &["explain", "--from", "198.51.100.7", "--to", "10.96.0.10:53/udp"],
        "Explanation",
        &["verdict", "client", "connections", "notes"],
    ),
    (&["policy", "matrix", "--port", "80"], "PolicyMatrix", &["columns", "tables"]),
    (
        &["migrate", "--to", "nftables"],
        "Migration",
        &["to", "serving", "running", "written", "removed", "connections", "drainSeconds"],
    ),
    (&["cleanup", "--dry-run"], "Cleanup", &["dryRun", "complete", "removed", "kept", "left"]),
    (&["cleanup"], "Cleanup", &["dryRun", "complete", "removed", "kept", "left"]),
];

#[test]
fn documents_have_one_style_in_both_formats() {
    let state = fixture("explain/shop.yaml");
    let source = ["--hostname-override=node-1", "--manifests", state.to_str().expect("UTF-8")];
    namespace::inside(|| {
        for (command, kind, keys) in COMMANDS {
            let arguments = [command, &source].concat();
            let (text_code, _) = run(&arguments);
            let (json_code, json) = run(&[&arguments[..], &["-o", "json"]].concat());
            let (yaml_code, yaml) = run(&[&arguments[..], &["-o", "yaml"]].concat());
            assert_eq!([json_code, yaml_code], [text_code; 2], "{command:?}: the format changes no status");
            let head = format!("{{\n  \"apiVersion\": \"portcullis.io/v1\",\n  \"kind\": \"{kind}\",\n");
            assert!(json.starts_with(&head), "{command:?}: {json}");
            let head = format!("apiVersion: portcullis.io/v1\nkind: {kind}\n");
            assert!(yaml.starts_with(&head), "{command:?}: {yaml}");
            let of_json: Value = serde_json::from_str(&json).expect("JSON");
            let of_yaml: Value = serde_saphyr::from_str(&yaml).expect("YAML");
            assert_eq!(of_yaml, of_json, "{command:?}");
            for key in keys {
                assert!(of_json.get(key).is_some(), "{key} of {command:?}: {json}");
            }
            let mut malformed = BTreeSet::new();
            malformed_keys(&of_json, kind, &mut malformed);
            assert!(malformed.is_empty(), "{command:?}: {malformed:?}");
        }
    });
}

/// The parts of rendered rules are the text output.
#[test]
fn parts_of_rendered_rules_have_the_text_that_tools_restore() {
    let state = fixture("explain/shop.yaml");
    let source = ["--hostname-override=node-1", "--manifests", state.to_str().expect("UTF-8")];
    for family in ["ipv4", "ipv6"] {
        for mode in ["iptables", "nftables"] {
            let mode = format!("--mode={mode}");
            let arguments = [&["render", &mode, "--family", family][..], &source].concat();
            let (_, text) = run(&arguments);
            let (_, json) = run(&[&arguments[..], &["-o", "json"]].concat());
            let document: Value = serde_json::from_str(&json).expect("JSON");
            assert_eq!(document["parts"].as_array().map(Vec::len), Some(1), "{json}");
            assert_eq!(document["parts"][0]["text"].as_str(), Some(text.as_str()), "{mode} {family}");
        }
    }
}

#[test]
fn differences_name_the_lines_in_the_kernel_and_the_wanted_ones() {
    let state = fixture("explain/shop.yaml");
    let source = ["--mode=nftables", "--hostname-override=node-1", "--manifests"];
    let source = [&source[..], &[state.to_str().expect("UTF-8")]].concat();
    let diff = || {
        let (code, json) = run(&[&["diff", "-o", "json"], &source[..]].concat());
        (code, serde_json::from_str::<Value>(&json).expect("JSON"))
    };
    namespace::inside(|| {
        let (code, document) = diff();
        assert_eq!((code, &document["differs"]), (1, &Value::Bool(true)), "{document}");
        let first = &document["differences"][0]["objects"][0];
        assert_eq!(first["kernel"], serde_json::json!([]), "{document}");
        assert!(first["wanted"].as_array().is_some_and(|lines| !lines.is_empty()), "{document}");
        assert_eq!(run(&[&["--once"], &source[..]].concat()).0, 0);
        let (code, document) = diff();
        assert_eq!((code, &document["differs"]), (0, &Value::Bool(false)), "{document}");
        assert_eq!(document["differences"], serde_json::json!([]));
    });
}
