//! Tests of the schema of the Helm chart's values.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::chart::{objects, required_values};
use crate::manifests::parse;

/// Returns the required values with a change.
fn with(change: &Value) -> Value {
    let mut values = required_values();
    merge(&mut values, change);
    values
}

fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            over.iter().for_each(|(key, value)| merge(base.entry(key).or_insert(Value::Null), value));
        }
        (base, over) => *base = over.clone(),
    }
}

/// Each row: values that are rejected, and a part of the error, which names the value.
#[test]
fn wrong_values_are_rejected_by_name() {
    let digest = "sha256:0123";
    for (values, expected) in [
        (json!({"imge": {}}), "'imge' not allowed"),
        (json!({"image": {"pullSecrets": []}}), "'pullSecrets' not allowed"),
        (json!({"image": {"digest": digest}}), "/image/digest"),
        (json!({"image": {"repository": "a@sha256:1"}}), "/image/repository"),
        (json!({"fullnameOverride": "Not_A_Name"}), "/fullnameOverride"),
        (json!({"extraEnv": [{"name": "NODE_NAME", "value": "x"}]}), "/extraEnv/0/name"),
        (json!({"extraArgs": ["v=2"]}), "/extraArgs/0"),
        (json!({"config": {"modus": "ipvs"}}), "/config': additional properties 'modus' not allowed"),
        (json!({"config": {"kind": "KubeProxyConfiguration"}}), "'kind' not allowed"),
        (json!({"config": {"mode": "userspace"}}), "/config/mode"),
        (
            json!({"config": {"ipvs": {"schedular": "rr"}}}),
            "/config/ipvs': additional properties 'schedular' not allowed",
        ),
        (json!({"config": {"ipvs": {"syncPeriod": "30"}}}), "/config/ipvs/syncPeriod"),
        (json!({"config": {"iptables": {"masqueradeAll": "yes"}}}), "/config/iptables/masqueradeAll"),
        (json!({"config": {"nodePortAddresses": "10.0.0.0/8"}}), "/config/nodePortAddresses"),
        (json!({"config": {"oomScoreAdj": 1.5}}), "/config/oomScoreAdj"),
        (json!({"config": {"healthzBindAddress": "0.0.0.0"}}), "/config/healthzBindAddress"),
        (json!({"networkPolicy": {"enabled": false, "audit": true}}), "/networkPolicy/enabled"),
        (json!({"podNetwork": {"mode": "calico"}}), "/podNetwork/mode"),
        (json!({"podNetwork": {"mtu": 576}}), "/podNetwork/mtu"),
        (json!({"podNetwork": {"cniBinDir": "opt"}}), "/podNetwork/cniBinDir"),
        (
            json!({"podNetwork": {"masqueradeExcludeCIDRs": ["192.0.2.1"]}}),
            "/podNetwork/masqueradeExcludeCIDRs/0",
        ),
        (json!({"podNetwork": {"mode": "vxlan"}, "nonRoot": true}), "/nonRoot"),
        (json!({"podMonitor": {"enabled": true}}), "/config/metricsBindAddress"),
        (
            json!({"podMonitor": {"enabled": true}, "config": {"metricsBindAddress": "[::1]:10249"}}),
            "/config/metricsBindAddress",
        ),
        (
            json!({"podMonitor": {"enabled": true}, "config": {"metricsBindAddress": "localhost:1"}}),
            "/config/metricsBindAddress",
        ),
    ] {
        let error = objects(&with(&values)).expect_err(&values.to_string());
        assert!(error.contains(expected), "{values}: {error}");
    }
}

#[test]
fn a_pod_monitor_with_a_reachable_metrics_address_is_accepted() {
    for address in ["0.0.0.0:10249", "[::]:10249", "192.0.2.7:10249"] {
        let values =
            with(&json!({"podMonitor": {"enabled": true}, "config": {"metricsBindAddress": address}}));
        assert!(objects(&values).unwrap().contains_key("PodMonitor"), "{address}");
    }
}

/// The program writes every field of its defaults, with null for lists that are not set; the schema has all of them.
#[test]
fn a_complete_configuration_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let mut program = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    program
        .args(["--cluster-cidr=10.244.0.0/16", "--feature-gates=AllAlpha=false", "--write-config-to"])
        .arg(&file);
    assert!(program.status().unwrap().success());
    let mut written = parse(&fs::read_to_string(&file).unwrap(), &file).remove(0);
    let fields = written.as_object_mut().unwrap();
    fields.remove("apiVersion");
    fields.remove("kind");
    assert!(fields.len() > 15, "{fields:?}");
    let objects = objects(&with(&json!({"config": written}))).unwrap();
    let text = objects["ConfigMap"]["data"]["config.yaml"].as_str().unwrap();
    let rendered = parse(text, "config.yaml".as_ref()).remove(0);
    assert_eq!(rendered["featureGates"], json!({"AllAlpha": false}));
}
