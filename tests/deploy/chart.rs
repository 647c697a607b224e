//! Tests of the Helm chart.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::helm::render;
use crate::kustomize;
use crate::manifests::{
    assert_arguments_accepted, assert_restarts_without_api_server, containers, parse, readable, root,
    unknown_fields,
};

fn chart() -> PathBuf {
    root().join("deploy/helm/portcullis")
}

/// Returns the objects rendered with these values, by kind.
fn objects(values: &Value) -> Result<BTreeMap<String, Value>, String> {
    let files = render(&chart(), ["portcullis", "kube-system"], values)?;
    let manifests = files.iter().filter(|(file, text)| file.ends_with(".yaml") && !text.trim().is_empty());
    let documents = manifests.flat_map(|(file, text)| parse(text, file.as_ref()));
    Ok(documents.map(|document| (document["kind"].as_str().unwrap().to_owned(), document)).collect())
}

/// The required values.
fn required_values() -> Value {
    json!({"apiServer": {"host": "192.0.2.1"}, "config": {"clusterCIDR": "10.244.0.0/16"}})
}

/// Values that set every option.
fn all_values() -> Value {
    json!({
        "image": {"repository": "registry.example:5000/portcullis", "tag": "1.2.3", "pullPolicy": "Always", "pullSecrets": [{"name": "registry"}]},
        "apiServer": {"host": "fd00::1", "port": 6443},
        "config": {
            "mode": "ipvs", "clusterCIDR": "10.244.0.0/16,fd00:10:244::/56", "detectLocalMode": "ClusterCIDR",
            "metricsBindAddress": "0.0.0.0:10250", "ipvs": {"scheduler": "lc"}, "nodePortAddresses": ["primary"],
        },
        "networkPolicy": {"enabled": false},
        "extraArgs": ["--v=2", "--bind-address-hard-fail"],
        "serviceAccount": {"name": "proxy", "annotations": {"example.com/role": "proxy"}},
        "podMonitor": {
            "enabled": true, "labels": {"release": "prometheus"}, "interval": "1m",
            "services": {"enabled": true, "interval": "10m"},
        },
        "priorityClassName": "system-cluster-critical",
        "tolerations": [{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Equal", "value": "c"}],
        "nodeSelector": {"proxy": "portcullis"},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "portcullis", "operator": "Exists"}]},
        ]}}},
        "updateStrategy": {"type": "OnDelete", "rollingUpdate": null},
        "resources": {"limits": {"memory": "64Mi"}},
        "nonRoot": true,
        "podLabels": {"team": "network"},
        "podAnnotations": {"example.com/reason": "yes: with a colon"},
    })
}

#[test]
fn the_api_and_the_program_accept_the_rendered_objects() {
    let folder = tempfile::tempdir().unwrap();
    for (name, values) in [("required", required_values()), ("all", all_values())] {
        let objects = objects(&values).unwrap();
        for (kind, object) in &objects {
            match unknown_fields(object) {
                Some(unknown) => assert_eq!(unknown, [""; 0], "{name}: {kind}"),
                None => assert_eq!(kind, "PodMonitor"),
            }
        }
        let config = folder.path().join(name);
        fs::write(&config, objects["ConfigMap"]["data"]["config.yaml"].as_str().unwrap()).unwrap();
        let containers = containers(objects.values());
        assert_eq!(containers.len(), 2);
        containers.iter().for_each(|container| assert_arguments_accepted(container, &config, name));
    }
}

#[test]
fn pods_restart_while_the_api_server_is_away() {
    let objects = objects(&required_values()).unwrap();
    for container in containers(objects.values()) {
        assert_restarts_without_api_server(&container, "chart");
        let host =
            container["env"].as_array().unwrap().iter().find(|v| v["name"] == "KUBERNETES_SERVICE_HOST");
        assert_eq!(host.unwrap()["value"], "192.0.2.1");
    }
}

#[test]
fn it_installs_the_same_objects_as_the_standalone_overlay() {
    let objects = objects(&required_values()).unwrap();
    let read = readable(objects.values());
    let (base, policies) =
        (kustomize::folder_documents("base"), kustomize::folder_documents("network-policy"));
    assert_eq!(read, &readable(&base) | &readable(&policies));

    let pod = |set: &Value| set["spec"]["template"]["spec"].clone();
    let (ours, theirs) =
        (pod(&objects["DaemonSet"]), pod(base.iter().find(|o| o["kind"] == "DaemonSet").unwrap()));
    let same = |field: &str| assert_eq!(ours[field], theirs[field], "{field}");
    ["hostNetwork", "priorityClassName", "tolerations", "nodeSelector", "terminationGracePeriodSeconds"]
        .iter()
        .for_each(|field| same(field));
    let arguments = containers(&policies);
    let (ours, theirs) = (containers(objects.values()), containers(&base));
    for (n, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        for field in [
            "name",
            "command",
            "securityContext",
            "resources",
            "volumeMounts",
            "livenessProbe",
            "readinessProbe",
        ] {
            assert_eq!(ours[field], theirs[field], "{field}");
        }
        // Flags may be in any order.
        let sorted = |container: &Value| {
            let mut args = crate::manifests::texts(&container["args"]);
            args.sort();
            args
        };
        assert_eq!(sorted(ours), sorted(&arguments[n]));
    }
    let overlay = kustomize::folder_documents("standalone");
    let config = overlay.iter().find(|document| document["kind"] == "KubeProxyConfiguration").unwrap();
    let ours = parse(objects["ConfigMap"]["data"]["config.yaml"].as_str().unwrap(), "config.yaml".as_ref());
    assert_eq!(&ours[0], config);
}

#[test]
fn every_value_is_rendered() {
    let objects = objects(&all_values()).unwrap();
    let set = &objects["DaemonSet"];
    let pod = &set["spec"]["template"]["spec"];
    let values = all_values();
    for field in ["tolerations", "affinity", "priorityClassName"] {
        assert_eq!(pod[field], values[field], "{field}");
    }
    assert_eq!(pod["nodeSelector"], json!({"kubernetes.io/os": "linux", "proxy": "portcullis"}));
    assert_eq!(set["spec"]["updateStrategy"], json!({"type": "OnDelete"}));
    assert_eq!(pod["imagePullSecrets"], values["image"]["pullSecrets"]);
    assert_eq!(pod["serviceAccountName"], "proxy");
    let metadata = &set["spec"]["template"]["metadata"];
    assert_eq!(metadata["annotations"], values["podAnnotations"]);
    assert_eq!(metadata["labels"]["team"], "network");
    for container in ["initContainers", "containers"].map(|list| &pod[list][0]) {
        assert_eq!(container["image"], "registry.example:5000/portcullis:1.2.3");
        assert_eq!(container["imagePullPolicy"], "Always");
        assert_eq!(container["resources"]["limits"], values["resources"]["limits"]);
        let env: Vec<&Value> = container["env"].as_array().unwrap().iter().collect();
        assert_eq!(env[1], &json!({"name": "KUBERNETES_SERVICE_HOST", "value": "fd00::1"}));
        assert_eq!(env[2], &json!({"name": "KUBERNETES_SERVICE_PORT", "value": "6443"}));
        let args = container["args"].to_string();
        assert!(args.contains("--bind-address-hard-fail") && !args.contains("network-policy"), "{args}");
    }
    assert_eq!(pod["containers"][0]["ports"][1]["containerPort"], 10250);
    assert_eq!(
        readable(objects.values()),
        readable(&kustomize::folder_documents("base")),
        "policies are not read"
    );
    assert_eq!(objects["ClusterRoleBinding"]["subjects"][0]["name"], "proxy");
    assert_eq!(objects["PodMonitor"]["metadata"]["labels"]["release"], "prometheus");
    let scraped = &objects["PodMonitor"]["spec"]["podMetricsEndpoints"];
    assert_eq!(scraped[0]["interval"], "1m");
    assert_eq!([&scraped[1]["path"], &scraped[1]["interval"]], ["/metrics/services", "10m"]);
    assert_eq!(scraped[0]["relabelings"], scraped[1]["relabelings"]);
    assert_eq!(objects["ServiceAccount"]["metadata"]["annotations"], values["serviceAccount"]["annotations"]);
}

/// The value `nonRoot` is the component `non-root` of the overlays.
#[test]
fn non_root_has_the_security_context_of_the_component() {
    let mut values = required_values();
    values["nonRoot"] = true.into();
    let named = |set: &[Value], name: &str| {
        let found = containers(set).into_iter().find(|container| container["name"] == name);
        found.unwrap_or_else(|| panic!("no container {name}"))["securityContext"].clone()
    };
    let ours: Vec<Value> = objects(&values).unwrap().into_values().collect();
    let base = kustomize::folder_documents("base");
    let mut expected = named(&base, "portcullis");
    let patch = named(&kustomize::folder_documents("non-root"), "portcullis");
    for (field, value) in patch.as_object().unwrap() {
        expected[field] = value.clone();
    }
    assert_eq!(named(&ours, "portcullis"), expected);
    assert_eq!(expected["runAsNonRoot"], true);
    assert_eq!(expected["capabilities"], json!({"drop": ["ALL"], "add": ["NET_ADMIN"]}));
    assert_eq!(named(&ours, "node-setup"), named(&base, "node-setup"), "the step that runs as root");
}

#[test]
fn a_missing_required_value_is_named() {
    for (values, expected) in [
        (
            json!({"config": {"clusterCIDR": "10.0.0.0/8"}}),
            "apiServer.host: expected the address of the API server itself",
        ),
        (json!({"apiServer": {"host": "a"}}), "config.clusterCIDR: expected the CIDRs of the cluster's pods"),
    ] {
        let error = objects(&values).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let other = json!({"apiServer": {"host": "a"}, "config": {"detectLocalMode": "NodeCIDR"}});
    assert!(objects(&other).is_ok());
}

/// The schema has exactly the values of the chart.
#[test]
fn version_notes_and_schema_are_correct() {
    let yaml = |file: &str| parse(&fs::read_to_string(chart().join(file)).unwrap(), file.as_ref()).remove(0);
    let about = yaml("Chart.yaml");
    assert_eq!([&about["version"], &about["appVersion"]], [env!("CARGO_PKG_VERSION"); 2]);
    let notes =
        render(&chart(), ["web", "kube-system"], &required_values()).unwrap().remove("NOTES.txt").unwrap();
    assert!(notes.contains("in nftables mode, and enforces NetworkPolicy."), "{notes}");
    assert!(notes.contains("kubectl -n kube-system rollout status daemonset/web"), "{notes}");

    let schema = fs::read_to_string(chart().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut wrong = Vec::new();
    differing(&yaml("values.yaml"), &schema, "", &mut wrong);
    differing(&all_values(), &schema, "", &mut wrong);
    assert_eq!(wrong, [""; 0]);
}

/// Collects the paths of values that are not in the schema or have another type.
fn differing(value: &Value, schema: &Value, path: &str, wrong: &mut Vec<String>) {
    let kind = match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "boolean",
        _ => "integer",
    };
    let allowed = |options: &Value| options.as_array().is_some_and(|options| options.contains(value));
    if schema["type"] != kind && !allowed(&schema["enum"]) {
        wrong.push(path.to_owned());
    }
    let Value::Object(fields) = value else { return };
    for (name, field) in fields {
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => wrong.push(format!("{path}.{name}")),
            (Value::Null, _) => {}
            (known, _) => differing(field, known, &format!("{path}.{name}"), wrong),
        }
    }
}
