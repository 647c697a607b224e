//! The overlays for kustomize.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use portcullis::source::Selection;
use serde_json::Value;

use crate::manifests::{
    assert_restarts_alone, assert_taken, containers, documents, readable, root, texts, unknown_fields,
};

fn kustomize() -> PathBuf {
    root().join("deploy/kustomize")
}

/// The documents in a folder.
pub(crate) fn of(folder: &str) -> Vec<Value> {
    documents(&kustomize().join(folder)).into_iter().map(|(_, document)| document).collect()
}

/// kubeadm's ConfigMap `kube-proxy`.
const KUBEADM: &str = include_str!("../../fixtures/command-lines/kubeadm.conf");

#[test]
fn arguments_and_configurations_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let kubeadm = folder.path().join("config.conf");
    fs::write(&kubeadm, KUBEADM).unwrap();
    let rows = [
        ("base", kustomize().join("standalone/config.yaml")),
        ("network-policy", kustomize().join("standalone/config.yaml")),
        ("network-policy", kustomize().join("k3s/config.yaml")),
        ("kubeadm", kubeadm),
    ];
    for (name, file) in rows {
        let containers = containers(&of(name));
        assert!(!containers.is_empty(), "{name}");
        containers.iter().for_each(|container| assert_taken(container, &file, name));
    }
}

/// Of all pods, and of the overlays in place of kube-proxy also that they know the API server's address.
#[test]
fn pods_restart_while_the_api_server_is_away() {
    let folders = fs::read_dir(kustomize()).unwrap().map(|entry| entry.unwrap().file_name());
    let folders: Vec<String> = folders.map(|name| name.to_str().unwrap().to_owned()).collect();
    assert!(folders.len() > 3, "{folders:?}");
    for folder in &folders {
        let objects = of(folder);
        containers(&objects).iter().for_each(|container| assert_restarts_alone(container, folder));
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
fn the_api_knows_all_fields() {
    let mut judged = 0;
    for (path, value) in documents(&kustomize()) {
        match unknown_fields(&value) {
            Some(unknown) => {
                judged += 1;
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
    assert!(judged > 7, "{judged}");
}

/// API group and resource, of kinds that are listed and watched.
fn read(selections: impl IntoIterator<Item = Selection>) -> BTreeSet<(String, String)> {
    let of = |selection: Selection| {
        let group = selection.kind.api_version().split_once('/').map_or("", |(group, _)| group).to_owned();
        (group, selection.kind.plural().to_owned())
    };
    selections.into_iter().map(of).collect()
}

#[test]
fn rights_are_those_to_read_what_is_read() {
    let mut services = Selection::service_proxying("node-a");
    services.push(Selection::service_cidrs());
    let services = read(services);
    assert_eq!(readable(&of("base")), services);
    let policies = read(Selection::network_policy());
    assert_eq!(readable(&of("network-policy")), &policies - &services, "beside those of the base");
}

#[test]
fn paths_that_files_name_are_there() {
    for (path, value) in documents(&kustomize()) {
        let folder = path.parent().unwrap();
        let lists = ["resources", "components"].map(|field| texts(&value[field])).concat();
        let patches =
            value["patches"].as_array().into_iter().flatten().filter_map(|patch| patch["path"].as_str());
        for name in lists.iter().map(String::as_str).chain(patches) {
            assert!(folder.join(name).exists(), "{}: {name}", path.display());
        }
    }
    let dockerfile = fs::read_to_string(root().join("deploy/image/Dockerfile")).unwrap();
    assert!(dockerfile.contains("--bin portcullis") && dockerfile.contains("/usr/local/bin/kube-proxy"));
}
