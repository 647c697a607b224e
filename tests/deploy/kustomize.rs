//! Tests of the kustomize overlays.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use portcullis::source::Selection;
use serde_json::Value;

use crate::manifests::{
    assert_arguments_accepted, assert_restarts_without_api_server, containers, documents, readable, root,
    texts, unknown_fields,
};

fn kustomize() -> PathBuf {
    root().join("deploy/kustomize")
}

/// Returns the documents in a folder of `deploy/kustomize`.
pub(crate) fn folder_documents(folder: &str) -> Vec<Value> {
    documents(&kustomize().join(folder)).into_iter().map(|(_, document)| document).collect()
}

/// kubeadm's ConfigMap `kube-proxy`.
const KUBEADM: &str = include_str!("../../fixtures/command-lines/kubeadm.conf");

#[test]
fn the_program_accepts_arguments_and_configurations() {
    let folder = tempfile::tempdir().unwrap();
    let kubeadm = folder.path().join("config.conf");
    fs::write(&kubeadm, KUBEADM).unwrap();
    let rows = [
        ("base", kustomize().join("standalone/config.yaml")),
        ("network-policy", kustomize().join("standalone/config.yaml")),
        ("network-policy", kustomize().join("k3s/config.yaml")),
        ("cluster", kustomize().join("cluster/config.yaml")),
        ("kubeadm", kubeadm),
    ];
    for (name, file) in rows {
        let mut containers = containers(&folder_documents(name));
        // A patch of the environment has neither.
        containers.retain(|container| !container["args"].is_null() || !container["command"].is_null());
        assert!(!containers.is_empty(), "{name}");
        containers.iter().for_each(|container| assert_arguments_accepted(container, &file, name));
    }
}

/// Also, overlays for clusters without kube-proxy set the address of the API server.
#[test]
fn pods_restart_while_the_api_server_is_away() {
    let folders = fs::read_dir(kustomize()).unwrap().map(|entry| entry.unwrap().file_name());
    let folders: Vec<String> = folders.map(|name| name.to_str().unwrap().to_owned()).collect();
    assert!(folders.len() > 3, "{folders:?}");
    for folder in &folders {
        let objects = folder_documents(folder);
        containers(&objects)
            .iter()
            .for_each(|container| assert_restarts_without_api_server(container, folder));
        let overlay = objects.iter().any(|object| object["resources"].to_string().contains("../base"));
        let addresses: Vec<Value> = containers(&objects)
            .iter()
            .flat_map(|container| container["env"].as_array().cloned().unwrap_or_default())
            .filter(|variable| variable["name"].as_str().unwrap().starts_with("KUBERNETES_SERVICE_"))
            .collect();
        assert_eq!(addresses.len(), if overlay { 4 } else { 0 }, "{folder}: {addresses:?}");
    }
}

#[test]
fn all_fields_exist_in_the_api() {
    let mut checked = 0;
    for (path, value) in documents(&kustomize()) {
        match unknown_fields(&value) {
            Some(unknown) => {
                checked += 1;
                assert_eq!(unknown, [""; 0], "{}", path.display());
            }
            None => {
                let own = ["Kustomization", "Component", "KubeProxyConfiguration"];
                assert!(
                    own.contains(&value["kind"].as_str().unwrap()),
                    "{}: {}",
                    path.display(),
                    value["kind"]
                );
            }
        }
    }
    assert!(checked > 7, "{checked}");
}

/// Returns the API groups and resources of the selections.
fn resources(selections: impl IntoIterator<Item = Selection>) -> BTreeSet<(String, String)> {
    let group_and_resource = |selection: Selection| {
        let group = selection.kind.api_version().split_once('/').map_or("", |(group, _)| group).to_owned();
        (group, selection.kind.plural().to_owned())
    };
    selections.into_iter().map(group_and_resource).collect()
}

#[test]
fn permissions_are_exactly_those_needed() {
    let mut services = Selection::service_proxying("node-a");
    services.push(Selection::service_cidrs());
    let services = resources(services);
    assert_eq!(readable(&folder_documents("base")), services);
    let policies = resources(Selection::network_policy());
    assert_eq!(
        readable(&folder_documents("network-policy")),
        &policies - &services,
        "in addition to those of the base"
    );
    assert!(readable(&folder_documents("cluster")).is_empty(), "the pod network needs Nodes only");
}

/// Returns the patch of the DaemonSet for the pod network.
pub(crate) fn pod_network_patch() -> Value {
    let sets = folder_documents("cluster").into_iter().filter(|document| document["kind"] == "DaemonSet");
    let mut patches = sets.filter(|set| !set["spec"]["template"]["spec"]["volumes"].is_null());
    patches.next().expect("a patch with volumes")
}

/// The daemon of the pod network may write the CNI configuration, and the plugin only in the privileged init container.
#[test]
fn the_cluster_overlay_mounts_what_the_pod_network_needs() {
    let set = pod_network_patch();
    let containers = containers([&set]);
    let writable = |name: &str| -> Vec<String> {
        let container = containers.iter().find(|container| container["name"] == name).unwrap();
        let mounts = container["volumeMounts"].as_array().unwrap().iter();
        let writable = mounts.filter(|mount| mount["readOnly"] != true);
        writable.map(|mount| mount["mountPath"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(writable("node-setup"), ["/opt/cni/bin"]);
    assert_eq!(writable("portcullis"), ["/etc/cni/net.d"]);
    for container in &containers {
        assert!(container["securityContext"].is_null(), "the privileges are those of the base");
        let args = texts(&container["args"]);
        assert!(args.contains(&"--pod-network=vxlan".to_owned()), "{args:?}");
    }
    let volumes = set["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    let paths: Vec<&str> =
        volumes.iter().map(|volume| volume["hostPath"]["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/run/portcullis", "/opt/cni/bin", "/etc/cni/net.d", "/run/netns"]);
}

#[test]
fn referenced_files_exist() {
    for (path, value) in documents(&kustomize()) {
        let folder = path.parent().unwrap();
        let lists = ["resources", "components"].map(|field| texts(&value[field])).concat();
        let patches =
            value["patches"].as_array().into_iter().flatten().filter_map(|patch| patch["path"].as_str());
        for name in lists.iter().map(String::as_str).chain(patches) {
            assert!(folder.join(name).exists(), "{}: {name}", path.display());
        }
    }
}
