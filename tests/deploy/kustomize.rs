//! What is in `deploy/`: manifests that can be read, whose arguments the program takes and whose rights are what it needs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use portcullis::source::Selection;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// The documents of all YAML files below a folder, each with its path.
fn documents(folder: &Path) -> Vec<(PathBuf, Value)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(documents(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = fs::read_to_string(&path).unwrap();
            for document in text.split("\n---\n") {
                let value = serde_saphyr::from_str(document);
                let value: Value = value.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                found.push((path.clone(), value));
            }
        }
    }
    found
}

/// The containers of the DaemonSets in a folder, init containers too.
fn containers(folder: &str) -> Vec<Value> {
    let all = documents(&deploy().join("kustomize").join(folder));
    let sets = all.into_iter().filter(|(_, value)| value["kind"] == "DaemonSet");
    let pods = sets.map(|(_, value)| value["spec"]["template"]["spec"].clone());
    let lists = pods.flat_map(|pod| ["initContainers", "containers"].map(|field| pod[field].clone()));
    lists.filter_map(|list| list.as_array().cloned()).flatten().collect()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// kubeadm's ConfigMap `kube-proxy`, as it is documented.
const KUBEADM: &str = "\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: \"\"
  burst: 0
  contentType: \"\"
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack: {maxPerCore: null, min: null, tcpBeLiberal: false, tcpCloseWaitTimeout: null, tcpEstablishedTimeout: null, udpStreamTimeout: 0s, udpTimeout: 0s}
detectLocal: {bridgeInterface: \"\", interfaceNamePrefix: \"\"}
detectLocalMode: \"\"
enableProfiling: false
healthzBindAddress: \"\"
hostnameOverride: \"\"
iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: \"\", strictARP: false, syncPeriod: 0s, tcpFinTimeout: 0s, tcpTimeout: 0s, udpTimeout: 0s}
kind: KubeProxyConfiguration
logging: {flushFrequency: 0, options: {json: {infoBufferSize: \"0\"}, text: {infoBufferSize: \"0\"}}, verbosity: 0}
metricsBindAddress: \"\"
mode: \"\"
nftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
nodePortAddresses: null
oomScoreAdj: null
portRange: \"\"
showHiddenMetricsForVersion: \"\"
winkernel: {enableDSR: false, forwardHealthCheckVip: false, networkName: \"\", rootHnsEndpointName: \"\", sourceVip: \"\"}
";

#[test]
fn arguments_and_configurations_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let kubeadm = folder.path().join("config.conf");
    fs::write(&kubeadm, KUBEADM).unwrap();
    let kustomize = deploy().join("kustomize");
    let rows = [
        ("base", kustomize.join("standalone/config.yaml")),
        ("network-policy", kustomize.join("standalone/config.yaml")),
        ("network-policy", kustomize.join("k3s/config.yaml")),
        ("kubeadm", kubeadm),
    ];
    for (of, file) in rows {
        let containers = containers(of);
        assert!(!containers.is_empty(), "{of}");
        for container in containers {
            let arguments =
                [texts(&container["command"]).get(1..).unwrap_or_default(), &texts(&container["args"])]
                    .concat();
            let arguments = arguments.into_iter().map(|argument| match argument.split_once('=') {
                Some(("--config", _)) => format!("--config={}", file.display()),
                _ => argument.replace("$(NODE_NAME)", "node-a"),
            });
            let written = folder.path().join("written.yaml");
            let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
            command.args(arguments).arg("--write-config-to").arg(&written);
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{of}, {}: {said}", container["name"]);
            assert!(!said.contains("ERROR"), "{of}: {said}");
        }
    }
}

/// What is in `part` and not in `whole`, as paths.
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

/// What an API type does not know is not in it when it is written again.
fn unknown_fields<T: DeserializeOwned + Serialize>(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    match serde_json::from_value::<T>(value.clone()) {
        Ok(typed) => missing(value, &serde_json::to_value(typed).unwrap(), "", &mut found),
        Err(error) => found.push(error.to_string()),
    }
    found
}

#[test]
fn the_api_knows_all_fields() {
    let mut judged = 0;
    for (path, value) in documents(&deploy().join("kustomize")) {
        let unknown = match value["kind"].as_str() {
            Some("DaemonSet") => unknown_fields::<DaemonSet>(&value),
            Some("ClusterRole") => unknown_fields::<ClusterRole>(&value),
            Some("ClusterRoleBinding") => unknown_fields::<ClusterRoleBinding>(&value),
            Some("ServiceAccount") => unknown_fields::<ServiceAccount>(&value),
            Some("Kustomization" | "Component" | "KubeProxyConfiguration") => continue,
            other => panic!("{}: {other:?}", path.display()),
        };
        judged += 1;
        assert_eq!(unknown, [""; 0], "{}", path.display());
    }
    assert!(judged > 7, "{judged}");
    let misspelt = serde_json::json!({"spec": {"template": {"spec": {"hostNetwrok": true}}}});
    assert_eq!(unknown_fields::<DaemonSet>(&misspelt), [".spec.template.spec.hostNetwrok"]);
}

/// API group and resource, of kinds that are listed and watched.
fn read(selections: impl IntoIterator<Item = Selection>) -> BTreeSet<(String, String)> {
    let of = |selection: Selection| {
        let group = selection.kind.api_version().split_once('/').map_or("", |(group, _)| group).to_owned();
        (group, selection.kind.plural().to_owned())
    };
    selections.into_iter().map(of).collect()
}

/// What the roles in a folder let read.
fn allowed(folder: &str) -> BTreeSet<(String, String)> {
    let roles = documents(&deploy().join("kustomize").join(folder));
    let rules = roles.iter().flat_map(|(_, role)| role["rules"].as_array().cloned().unwrap_or_default());
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
fn rights_are_those_to_read_what_is_read() {
    let mut services = Selection::service_proxying("node-a");
    services.push(Selection::service_cidrs());
    let services = read(services);
    assert_eq!(allowed("base"), services);
    let policies = read(Selection::network_policy());
    assert_eq!(allowed("network-policy"), &policies - &services, "beside those of the base");
}

#[test]
fn paths_that_files_name_are_there() {
    for (path, value) in documents(&deploy().join("kustomize")) {
        let folder = path.parent().unwrap();
        let lists = ["resources", "components"].map(|field| texts(&value[field])).concat();
        let patches =
            value["patches"].as_array().into_iter().flatten().filter_map(|patch| patch["path"].as_str());
        for name in lists.iter().map(String::as_str).chain(patches) {
            assert!(folder.join(name).exists(), "{}: {name}", path.display());
        }
    }
    let dockerfile = fs::read_to_string(deploy().join("image/Dockerfile")).unwrap();
    assert!(dockerfile.contains("--bin portcullis") && dockerfile.contains("/usr/local/bin/kube-proxy"));
}
