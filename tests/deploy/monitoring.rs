//! Tests of the alert rules and the dashboard in `deploy/monitoring`.

use std::collections::BTreeMap;
use std::fs;

use portcullis_machines::tools;
use serde_json::Value;

use crate::manifests::{parse, root};

const ALERTS: &str = "deploy/monitoring/alerts.yaml";
const TESTS: &str = "tests/deploy/alerts_test.yaml";

/// Start of the annotation `runbook_url`, before the heading.
const RUNBOOK: &str = "https://github.com/portcullis-net/portcullis/blob/main/docs/operating.md#";

fn document(file: &str) -> Value {
    let path = root().join(file);
    parse(&fs::read_to_string(&path).unwrap(), &path).remove(0)
}

/// Returns the alerts, by name.
fn alerts() -> BTreeMap<String, Value> {
    let document = document(ALERTS);
    let groups = document["groups"].as_array().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    rules.map(|rule| (rule["alert"].as_str().unwrap().to_owned(), rule.clone())).collect()
}

fn promtool(arguments: &[&str]) {
    let output = tools::command("promtool").args(arguments).current_dir(root()).output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "promtool {arguments:?}: {text}");
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    promtool(&["check", "rules", "--lint=all", "--lint-fatal", ALERTS]);
    promtool(&["test", "rules", TESTS]);
}

/// Each alert has a test in which it fires, and one in which it does not.
#[test]
fn every_alert_has_tests() {
    let tests = document(TESTS);
    let groups = tests["tests"].as_array().unwrap().iter();
    let all: Vec<&Value> = groups.flat_map(|group| group["alert_rule_test"].as_array().unwrap()).collect();
    for alert in alerts().keys() {
        let of_alert = all.iter().filter(|test| test["alertname"] == alert.as_str());
        let (fires, silent): (Vec<&&Value>, Vec<_>) =
            of_alert.partition(|test| test["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty()));
        assert!(!fires.is_empty() && !silent.is_empty(), "{alert}");
    }
}

#[test]
fn every_alert_has_a_severity_and_leads_to_its_runbook() {
    let page = fs::read_to_string(root().join("docs/operating.md")).unwrap();
    for (name, rule) in alerts() {
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("warning" | "critical")), "{name}");
        let annotations = &rule["annotations"];
        for field in ["summary", "description"] {
            assert!(annotations[field].as_str().is_some_and(|text| text.len() > 20), "{name}: {field}");
        }
        // The anchor of a heading of one word is the word in lower case.
        let url = format!("{RUNBOOK}{}", name.to_lowercase());
        assert_eq!(annotations["runbook_url"], url, "{name}");
        let heading = format!("\n### {name}\n\n");
        let section = page.split_once(&heading).unwrap_or_else(|| panic!("no section about {name}")).1;
        assert!(!section.starts_with('#'), "{name} has no text");
    }
}

/// Expressions of the dashboard, without Grafana's variables, are accepted by promtool.
#[test]
fn expressions_of_the_dashboard_are_valid() {
    let dashboard = document("deploy/monitoring/dashboard.json");
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let expressions: Vec<String> = targets
        .map(|target| {
            target["expr"].as_str().unwrap().replace("$__rate_interval", "5m").replace("$__range", "1h")
        })
        .collect();
    assert!(expressions.len() > 25, "{}", expressions.len());
    let rules: Vec<Value> = expressions
        .iter()
        .enumerate()
        .map(|(number, expression)| serde_json::json!({"record": format!("panel:{number}"), "expr": expression}))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    let groups = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    fs::write(&file, groups.to_string()).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()]);
}
