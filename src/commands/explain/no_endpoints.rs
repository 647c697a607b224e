//! Diagnosis of Service ports without endpoints.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use portcullis_cluster::desired::ServicePort;
use portcullis_cluster::endpoint_slice::EndpointSlice;
use portcullis_cluster::manifest::{self, Document};
use portcullis_cluster::pod::Pod;
use portcullis_cluster::service::Service;
use portcullis_cluster::{Family, Name, NamespacedName};

use crate::commands::cluster_lookup::{ClusterLookup, listed};
use crate::config::{Source, closest, nearest};
use crate::source::read_manifest_file;

/// The reason why a Service port has no endpoints, and a hint.
pub(super) struct Diagnosis {
    pub(super) reason: String,
    pub(super) hint: String,
}

/// Finds the reason why no EndpointSlice has an endpoint for a Service port.
pub(super) fn diagnose(cluster: &ClusterLookup<'_>, port: &ServicePort) -> Diagnosis {
    let key = &port.name.service;
    let slices = cluster.index.slices_of(key);
    let of_family = |slice: &&EndpointSlice| {
        slice.endpoints.iter().any(|endpoint| Family::from_address(endpoint.address) == port.family)
    };
    let with_endpoints: Vec<&EndpointSlice> = slices.iter().filter(of_family).collect();
    if !with_endpoints.is_empty() {
        return other_ports(port, &with_endpoints);
    }
    if slices.iter().any(|slice| !slice.endpoints.is_empty()) {
        return Diagnosis {
            reason: format!(
                "{key} has no {} endpoints, only those of the other family",
                port.family.as_str()
            ),
            hint: format!("check that its pods have {} addresses", port.family.as_str()),
        };
    }
    match cluster.index.service(key).filter(|service| !service.selector.is_empty()) {
        None => without_selector(cluster, port, !slices.is_empty()),
        Some(service) => diagnose_selector(cluster, service, slices.is_empty()),
    }
}

/// The slices have endpoints, but for other ports.
fn other_ports(port: &ServicePort, slices: &[&EndpointSlice]) -> Diagnosis {
    let key = &port.name.service;
    let names: Vec<String> = slices.iter().map(|slice| slice.key.to_string()).collect();
    let names = listed(names.iter().map(String::as_str));
    let all: Vec<_> = slices.iter().flat_map(|slice| slice.ports.iter()).collect();
    let wanted = match port.name.port.as_str() {
        "" => format!("without a name, {}", port.name.protocol),
        name => format!("named {name}, {}", port.name.protocol),
    };
    if all.is_empty() {
        return Diagnosis {
            reason: format!("{key} has EndpointSlices without ports ({names})"),
            hint: format!(
                "they need a port {wanted}; if a controller writes them, no container port has the name in targetPort"
            ),
        };
    }
    let describe = |name: &str, number: u16, protocol| match name {
        "" => format!("{number}/{protocol} without a name"),
        name => format!("{name} {number}/{protocol}"),
    };
    let ports: BTreeSet<String> =
        all.iter().map(|other| describe(other.name.as_str(), other.port.get(), other.protocol)).collect();
    let ports = listed(ports.iter().map(String::as_str));
    Diagnosis {
        reason: format!("no EndpointSlice of {key} has its port ({wanted}); {names} has {ports}"),
        hint: "the port of a slice must have the name and protocol of the Service port".to_owned(),
    }
}

/// The Service has no selector, so no controller writes slices for it.
fn without_selector(cluster: &ClusterLookup<'_>, port: &ServicePort, has_slices: bool) -> Diagnosis {
    let key = &port.name.service;
    let slices = if has_slices { "its EndpointSlices are empty" } else { "there is no EndpointSlice for it" };
    let endpoints = match has_endpoints_v1(cluster, key) {
        true => format!("the Endpoints object {key} in the manifests is ignored, as proxies use EndpointSlices only"),
        false => "Endpoints (v1) are used only after the cluster's mirroring controller has copied them to slices, which does \
                  not happen with manifests"
            .to_owned(),
    };
    Diagnosis {
        reason: format!("{key} has no selector, and {slices}"),
        hint: format!(
            "write an EndpointSlice with the label kubernetes.io/service-name: {}; {endpoints}",
            key.name
        ),
    }
}

/// Returns true if the manifests contain an Endpoints object (v1) for a Service. Unreadable files are skipped: they were
/// reported when the manifests were read.
fn has_endpoints_v1(cluster: &ClusterLookup<'_>, service: &NamespacedName) -> bool {
    let Source::Manifests(path) = &cluster.config.source else { return false };
    let files: Vec<PathBuf> = match fs::read_dir(path) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(_) => vec![path.clone()],
    };
    let matches = |document: &Document| {
        let text = |at: &str| document.value.pointer(at).and_then(|value| value.as_str());
        text("/kind") == Some("Endpoints")
            && text("/metadata/name") == Some(&*service.name)
            && text("/metadata/namespace").unwrap_or("default") == service.namespace.as_str()
    };
    files.iter().any(|file| {
        let text = read_manifest_file(file).unwrap_or_default();
        manifest::parse(&file.to_string_lossy(), &text).flatten().any(|document| matches(&document))
    })
}

/// The Service has a selector, so a controller writes slices for the pods that it matches.
fn diagnose_selector(cluster: &ClusterLookup<'_>, service: &Service, without_slices: bool) -> Diagnosis {
    let key = &service.key;
    let selector = describe_selector(&service.selector);
    let here: Vec<&Pod> =
        cluster.index.pods().filter(|pod| pod.key.namespace == key.namespace && !pod.is_finished).collect();
    let matching: Vec<&&Pod> = here.iter().filter(|pod| missing_labels(service, pod).is_empty()).collect();
    if matching.is_empty() {
        return Diagnosis {
            reason: format!("the selector {selector} of {key} matches no pod of namespace {}", key.namespace),
            hint: similar_label(cluster, service, &here),
        };
    }
    let names: BTreeSet<String> = matching.iter().map(|pod| pod.key.to_string()).collect();
    let names = listed(names.iter().map(String::as_str));
    if matching.iter().all(|pod| pod.ips.is_empty()) {
        return Diagnosis {
            reason: format!(
                "{key} has no endpoints: no pod that its selector {selector} matches has an address"
            ),
            hint: format!("check why {names} does not run"),
        };
    }
    let slices =
        if without_slices { "there is no EndpointSlice for it" } else { "its EndpointSlices are empty" };
    Diagnosis {
        reason: format!("{key} has no endpoints: its selector {selector} matches {names}, but {slices}"),
        hint: "in a cluster, the EndpointSlice controller writes them; manifests must contain them"
            .to_owned(),
    }
}

/// Returns `app=web,tier=front`.
fn describe_selector(selector: &[(Box<str>, Box<str>)]) -> String {
    let labels: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.join(",")
}

/// Returns the labels of a Service's selector that a pod lacks.
fn missing_labels<'a>(service: &'a Service, pod: &Pod) -> Vec<&'a (Box<str>, Box<str>)> {
    service.selector.iter().filter(|(key, value)| pod.labels.get(key) != Some(&**value)).collect()
}

/// Returns a hint for a selector that matches no pod: the most similar label.
fn similar_label(cluster: &ClusterLookup<'_>, service: &Service, here: &[&Pod]) -> String {
    let namespace = &service.key.namespace;
    let elsewhere: BTreeSet<&Name> = cluster
        .index
        .pods()
        .filter(|pod| !pod.is_finished && missing_labels(service, pod).is_empty())
        .map(|pod| &pod.key.namespace)
        .collect();
    if !elsewhere.is_empty() {
        let names = listed(elsewhere.iter().map(|name| name.as_str()));
        return format!("it matches pods in {names}, but a Service selects only pods of its own namespace");
    }
    // Pods that lack the fewest labels come first, then by name.
    let mut ranked: Vec<(usize, &Pod)> =
        here.iter().map(|pod| (missing_labels(service, pod).len(), *pod)).collect();
    ranked.sort_by_key(|(missing, pod)| (*missing, pod.key.clone()));
    let Some(least) = ranked.first().map(|(missing, _)| *missing) else {
        return format!("namespace {namespace} has no pods");
    };
    let candidates: Vec<&Pod> =
        ranked.iter().take_while(|(missing, _)| *missing == least).map(|(_, pod)| *pod).collect();
    for (key, value) in missing_labels(service, candidates[0]) {
        if let Some((pod, found)) =
            most_similar(&candidates, key, value).or_else(|| most_similar(here, key, value))
        {
            return format!(
                "the most similar label is {found} of pod {}; the selector requires {key}={value}",
                pod.key
            );
        }
    }
    let (key, _) = missing_labels(service, candidates[0])[0];
    format!("no pod of namespace {namespace} has a label {key} or a similar one")
}

/// Returns the label most similar to `key=value`: the same key with a similar value, another key with that value, the same
/// key with any value, or a similar key.
fn most_similar<'a>(pods: &[&'a Pod], key: &str, value: &str) -> Option<(&'a Pod, String)> {
    let labels = || pods.iter().flat_map(|pod| pod.labels.iter().map(move |(k, v)| (*pod, k, v)));
    let values = || labels().filter(|(_, k, _)| *k == key).map(|(_, _, v)| v);
    let with_value = |wanted: Option<&str>| labels().find(|(_, k, v)| *k == key && Some(*v) == wanted);
    let similar_key = || nearest(key, labels().map(|(_, k, _)| k).filter(|k| *k != key));
    let hit = with_value(nearest(value, values()))
        .or_else(|| labels().find(|(_, k, v)| *k != key && *v == value))
        .or_else(|| with_value(closest(value, values())))
        .or_else(|| similar_key().and_then(|similar| labels().find(|(_, k, _)| *k == similar)));
    hit.map(|(pod, k, v)| (pod, format!("{k}={v}")))
}
