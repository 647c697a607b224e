//! Tests of the Helm chart.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::helm::{self, RELEASE, chart, render};
use crate::kustomize;
use crate::manifests::{
    assert_arguments_accepted, assert_restarts_without_api_server, containers, parse, readable, root,
    unknown_fields,
};

/// The ConfigMap with the dashboard, beside that with the configuration.
const DASHBOARD: &str = "ConfigMap of the dashboard";

/// Returns the objects rendered with these values, by kind.
pub(crate) fn objects(values: &Value) -> Result<BTreeMap<String, Value>, String> {
    let key = |object: &Value| match object["kind"].as_str().unwrap() {
        "ConfigMap" if object["metadata"]["name"].as_str().unwrap().ends_with("-dashboard") => {
            DASHBOARD.to_owned()
        }
        kind => kind.to_owned(),
    };
    let rendered = render(values)?;
    let number = rendered.len();
    let objects: BTreeMap<String, Value> =
        rendered.into_iter().map(|object| (key(&object), object)).collect();
    assert_eq!(objects.len(), number, "one object of each kind: {:?}", objects.keys());
    Ok(objects)
}

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The required values.
pub(crate) fn required_values() -> Value {
    json!({"apiServer": {"host": "192.0.2.1"}, "config": {"clusterCIDR": "10.244.0.0/16"}})
}

/// Values that set every option.
pub(crate) fn all_values() -> Value {
    json!({
        "image": {"repository": "registry.example:5000/portcullis", "tag": "1.2.3", "digest": DIGEST, "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}],
        "nameOverride": "proxy-agent",
        "fullnameOverride": "node-proxy",
        "apiServer": {"host": "fd00::1", "port": 6443},
        "config": {
            "mode": "ipvs", "clusterCIDR": "10.244.0.0/16,fd00:10:244::/56", "detectLocalMode": "ClusterCIDR",
            "metricsBindAddress": "0.0.0.0:10250", "ipvs": {"scheduler": "lc"}, "nodePortAddresses": ["primary"],
        },
        "networkPolicy": {"enabled": true, "audit": true},
        "nftables": {"serviceCounters": true},
        "statusPage": {"bindAddress": "127.0.0.1:10262"},
        "extraArgs": ["--v=2", "--bind-address-hard-fail"],
        "extraEnv": [{"name": "RUST_LOG", "value": "debug"}, {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "serviceAccount": {"name": "proxy", "annotations": {"example.com/role": "proxy"}},
        "podMonitor": {
            "enabled": true, "labels": {"release": "prometheus"}, "interval": "1m",
            "services": {"enabled": true, "interval": "10m"},
        },
        "prometheusRule": {"enabled": true, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": true, "labels": {"grafana_dashboard": "yes"}, "annotations": {"grafana_folder": "Network"}},
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

/// Values that set every option of the pod network.
fn pod_network_values() -> Value {
    json!({
        "apiServer": {"host": "192.0.2.1"},
        "podNetwork": {
            "mode": "cross-subnet", "wiring": "bridge", "mtu": 1400, "vxlan": {"id": 7, "port": 8472}, "masquerade": false,
            "masqueradeExcludeCIDRs": ["192.168.0.0/16", "fd00::/8"], "cniBinDir": "/usr/lib/cni", "cniConfDir": "/etc/cni",
        },
    })
}

#[test]
fn the_api_and_the_program_accept_the_rendered_objects() {
    let folder = tempfile::tempdir().unwrap();
    let values =
        [("required", required_values()), ("all", all_values()), ("pod network", pod_network_values())];
    for (name, values) in values {
        let objects = objects(&values).unwrap();
        for (kind, object) in &objects {
            match unknown_fields(object) {
                Some(unknown) => assert_eq!(unknown, [""; 0], "{name}: {kind}"),
                None => assert!(["PodMonitor", "PrometheusRule"].contains(&kind.as_str()), "{kind}"),
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
    assert_eq!(pod["imagePullSecrets"], values["imagePullSecrets"]);
    assert_eq!(pod["serviceAccountName"], "proxy");
    let metadata = &set["spec"]["template"]["metadata"];
    assert_eq!(metadata["annotations"], values["podAnnotations"]);
    assert_eq!(metadata["labels"]["team"], "network");
    for container in ["initContainers", "containers"].map(|list| &pod[list][0]) {
        assert_eq!(container["image"], format!("registry.example:5000/portcullis:1.2.3@{DIGEST}"));
        assert_eq!(container["imagePullPolicy"], "Always");
        assert_eq!(container["resources"]["limits"], values["resources"]["limits"]);
        let env: Vec<&Value> = container["env"].as_array().unwrap().iter().collect();
        assert_eq!(env[1], &json!({"name": "KUBERNETES_SERVICE_HOST", "value": "fd00::1"}));
        assert_eq!(env[2], &json!({"name": "KUBERNETES_SERVICE_PORT", "value": "6443"}));
        assert_eq!([env[3], env[4]], [&values["extraEnv"][0], &values["extraEnv"][1]]);
        let args = container["args"].to_string();
        assert!(
            args.contains("--bind-address-hard-fail")
                && args.contains("--nftables-service-counters")
                && args.contains("\"--network-policy-audit\""),
            "{args}"
        );
    }
    assert_eq!(pod["containers"][0]["ports"][1]["containerPort"], 10250);
    for (kind, object) in &objects {
        let (metadata, labels) = (&object["metadata"], &object["metadata"]["labels"]);
        assert_eq!(labels["app.kubernetes.io/name"], "proxy-agent", "{kind}");
        let expected = match kind.as_str() {
            "ServiceAccount" => "proxy",
            DASHBOARD => "node-proxy-dashboard",
            _ => "node-proxy",
        };
        assert_eq!(metadata["name"], expected, "{kind}");
    }
    let selector = &set["spec"]["selector"]["matchLabels"];
    assert_eq!(
        selector,
        &json!({"app.kubernetes.io/name": "proxy-agent", "app.kubernetes.io/instance": RELEASE})
    );
    assert_eq!(&objects["PodMonitor"]["spec"]["selector"]["matchLabels"], selector);
    assert_eq!(pod["volumes"][0]["configMap"]["name"], "node-proxy");
    assert_eq!(objects["ClusterRoleBinding"]["roleRef"]["name"], "node-proxy");
    assert_eq!(objects["ClusterRoleBinding"]["subjects"][0]["name"], "proxy");
    assert_eq!(objects["PodMonitor"]["metadata"]["labels"]["release"], "prometheus");
    let scraped = &objects["PodMonitor"]["spec"]["podMetricsEndpoints"];
    assert_eq!(scraped[0]["interval"], "1m");
    assert_eq!([&scraped[1]["path"], &scraped[1]["interval"]], ["/metrics/services", "10m"]);
    assert_eq!(scraped[0]["relabelings"], scraped[1]["relabelings"]);
    let labels = scraped[0]["relabelings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["targetLabel"].as_str().unwrap());
    assert_eq!(labels.collect::<Vec<_>>(), ["job", "metrics_path", "node"]);
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

#[test]
fn version_and_notes_are_correct() {
    let yaml = |file: &str| parse(&fs::read_to_string(chart().join(file)).unwrap(), file.as_ref()).remove(0);
    let about = yaml("Chart.yaml");
    assert_eq!([&about["version"], &about["appVersion"]], [env!("CARGO_PKG_VERSION"); 2]);
    helm::lint(&required_values());
    helm::lint(&all_values());
    let notes = helm::notes("web", &required_values());
    assert!(notes.contains("in nftables mode, and enforces NetworkPolicy."), "{notes}");
    assert!(notes.contains("kubectl -n kube-system rollout status daemonset/web"), "{notes}");
}

#[test]
fn alerts_and_dashboard_are_those_of_the_files() {
    let objects = objects(&all_values()).unwrap();
    let file = |name: &str| fs::read_to_string(root().join("deploy/monitoring").join(name)).unwrap();
    let rule = &objects["PrometheusRule"];
    assert_eq!(rule["metadata"]["labels"]["release"], "prometheus");
    assert_eq!(rule["spec"], parse(&file("alerts.yaml"), "alerts.yaml".as_ref())[0]);
    let map = &objects[DASHBOARD];
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "yes");
    assert_eq!(map["metadata"]["annotations"], json!({"grafana_folder": "Network"}));
    let dashboard: Value = serde_json::from_str(map["data"]["portcullis.json"].as_str().unwrap()).unwrap();
    assert_eq!(dashboard, serde_json::from_str::<Value>(&file("dashboard.json")).unwrap());
}

/// Nothing that needs Prometheus Operator is installed by default.
#[test]
fn monitoring_is_off_by_default() {
    let objects = objects(&required_values()).unwrap();
    let kinds: Vec<&String> = objects.keys().collect();
    assert_eq!(kinds, ["ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet", "ServiceAccount"]);
}

/// Policies can be left to another program.
#[test]
fn without_policies_nothing_about_them_is_read() {
    let mut values = required_values();
    values["networkPolicy"] = json!({"enabled": false});
    let objects = objects(&values).unwrap();
    assert_eq!(readable(objects.values()), readable(&kustomize::folder_documents("base")));
    let containers = containers(objects.values());
    assert!(containers.iter().all(|container| !container["args"].to_string().contains("network-policy")));
}

/// `podNetwork.mode` is the overlay `cluster`.
#[test]
fn the_pod_network_is_that_of_the_cluster_overlay() {
    let values = json!({"apiServer": {"host": "192.0.2.1"}, "podNetwork": {"mode": "vxlan"}});
    let objects = objects(&values).unwrap();
    let overlay = kustomize::folder_documents("cluster");
    let (ours, theirs) = (objects["DaemonSet"].clone(), kustomize::pod_network_patch());
    let containers_of = |set: &Value| containers([set]);
    for (ours, theirs) in containers_of(&ours).iter().zip(containers_of(&theirs)) {
        assert_eq!(ours["name"], theirs["name"]);
        let mounts = ours["volumeMounts"].as_array().unwrap();
        for mount in theirs["volumeMounts"].as_array().unwrap() {
            assert!(mounts.contains(mount), "{mount}");
        }
        assert!(crate::manifests::texts(&ours["args"]).contains(&"--pod-network=vxlan".to_owned()));
    }
    let volumes = |set: &Value| set["spec"]["template"]["spec"]["volumes"].as_array().unwrap().clone();
    for volume in volumes(&theirs) {
        let paths: Vec<Value> = volumes(&ours).iter().map(|ours| ours["hostPath"].clone()).collect();
        assert!(paths.contains(&volume["hostPath"]), "{volume}");
    }
    let rule = |documents: &[Value]| {
        let roles = documents.iter().filter(|o| o["kind"] == "ClusterRole");
        let mut rules = roles.flat_map(|role| role["rules"].as_array().unwrap().clone());
        rules.find(|rule| rule["resources"] == json!(["nodes/status"]))
    };
    let rendered: Vec<Value> = objects.into_values().collect();
    assert!(rule(&rendered).is_some());
    assert_eq!(rule(&rendered), rule(&overlay));
    let paths = self::objects(&pod_network_values()).unwrap()["DaemonSet"].to_string();
    for path in ["/usr/lib/cni", "/etc/cni"] {
        assert!(paths.contains(&format!("{{\"hostPath\":{{\"path\":\"{path}\"")), "{path} is not in {paths}");
    }
    let without: Vec<Value> = self::objects(&required_values()).unwrap().into_values().collect();
    assert_eq!(rule(&without), None);
}

#[test]
fn images_are_named_by_tag_digest_or_both() {
    for (image, expected) in [
        (json!({}), format!("portcullis:{}", env!("CARGO_PKG_VERSION"))),
        (json!({"tag": "1.2.3"}), "portcullis:1.2.3".to_owned()),
        (json!({"digest": DIGEST}), format!("portcullis@{DIGEST}")),
        (json!({"tag": "1.2.3", "digest": DIGEST}), format!("portcullis:1.2.3@{DIGEST}")),
    ] {
        let mut values = required_values();
        values["image"] = image;
        let objects = objects(&values).unwrap();
        assert_eq!(objects["DaemonSet"]["spec"]["template"]["spec"]["containers"][0]["image"], expected);
    }
}
