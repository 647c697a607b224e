//! Why a Service's port has no endpoint at all, and what to change.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use portcullis_cluster::desired::ServicePort;
use portcullis_cluster::endpoint_slice::EndpointSlice;
use portcullis_cluster::manifest::{self, Document};
use portcullis_cluster::pod::Pod;
use portcullis_cluster::service::Service;
use portcullis_cluster::{Family, Name, NamespacedName};

use crate::commands::world::{World, listed};
use crate::config::{Source, closest, nearest};

/// The cause, and what to change.
pub(super) struct Cause {
    pub(super) why: String,
    pub(super) way_out: String,
}

/// Finds out why no slice lists an endpoint for a Service's port.
pub(super) fn cause(world: &World<'_>, port: &ServicePort) -> Cause {
    let key = &port.name.service;
    let slices = world.index.slices_of(key);
    let of_family = |slice: &&EndpointSlice| {
        slice.endpoints.iter().any(|endpoint| Family::from_address(endpoint.address) == port.family)
    };
    let filled: Vec<&EndpointSlice> = slices.iter().filter(of_family).collect();
    if !filled.is_empty() {
        return other_ports(port, &filled);
    }
    if slices.iter().any(|slice| !slice.endpoints.is_empty()) {
        return Cause {
            why: format!("{key} has no {} endpoints, only those of the other family", port.family.as_str()),
            way_out: format!("do its pods have {} addresses?", port.family.as_str()),
        };
    }
    match world.index.service(key).filter(|service| !service.selector.is_empty()) {
        None => without_selector(world, port, !slices.is_empty()),
        Some(service) => selected(world, service, slices.is_empty()),
    }
}

/// The slices have endpoints, but not for this port.
fn other_ports(port: &ServicePort, slices: &[&EndpointSlice]) -> Cause {
    let key = &port.name.service;
    let names: Vec<String> = slices.iter().map(|slice| slice.key.to_string()).collect();
    let names = listed(names.iter().map(String::as_str));
    let all: Vec<_> = slices.iter().flat_map(|slice| slice.ports.iter()).collect();
    let asked = match port.name.port.as_str() {
        "" => format!("without a name, {}", port.name.protocol),
        name => format!("named {name}, {}", port.name.protocol),
    };
    if all.is_empty() {
        return Cause {
            why: format!("{key} has EndpointSlices without ports ({names})"),
            way_out: format!(
                "they need a port {asked}; where a controller writes them, no container has a port of the name in \
                 targetPort"
            ),
        };
    }
    let word = |name: &str, number: u16, protocol| match name {
        "" => format!("{number}/{protocol} without a name"),
        name => format!("{name} {number}/{protocol}"),
    };
    let ports: BTreeSet<String> =
        all.iter().map(|other| word(other.name.as_str(), other.port.get(), other.protocol)).collect();
    let ports = listed(ports.iter().map(String::as_str));
    Cause {
        why: format!("no EndpointSlice of {key} has its port ({asked}); {names} has {ports}"),
        way_out:
            "a port of a slice belongs to the Service's port of the same name and protocol: give it that name"
                .to_owned(),
    }
}

/// No controller makes slices for the Service.
fn without_selector(world: &World<'_>, port: &ServicePort, has_slices: bool) -> Cause {
    let key = &port.name.service;
    let slices = if has_slices { "its EndpointSlices are empty" } else { "no EndpointSlice is for it" };
    let endpoints = match has_endpoints_v1(world, key) {
        true => format!("the Endpoints object {key} of the manifests is not read, as proxies read EndpointSlices only"),
        false => "Endpoints (v1) count only once the cluster's mirroring controller has made slices of them, which does \
                  not happen to manifests"
            .to_owned(),
    };
    Cause {
        why: format!("{key} has no selector, and {slices}"),
        way_out: format!(
            "write an EndpointSlice with the label kubernetes.io/service-name: {}; {endpoints}",
            key.name
        ),
    }
}

/// Whether the manifests have an Endpoints object (v1) of a Service. Files that cannot be read count as files without one:
/// reading the manifests has reported them.
fn has_endpoints_v1(world: &World<'_>, service: &NamespacedName) -> bool {
    let Source::Manifests(path) = &world.config.source else { return false };
    let files: Vec<PathBuf> = match fs::read_dir(path) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(_) => vec![path.clone()],
    };
    let is_it = |document: &Document| {
        let text = |at: &str| document.value.pointer(at).and_then(|value| value.as_str());
        text("/kind") == Some("Endpoints")
            && text("/metadata/name") == Some(&*service.name)
            && text("/metadata/namespace").unwrap_or("default") == service.namespace.as_str()
    };
    files.iter().any(|file| {
        let text = fs::read_to_string(file).unwrap_or_default();
        manifest::parse(&file.to_string_lossy(), &text).flatten().any(|document| is_it(&document))
    })
}

/// A controller makes slices of the pods that the selector matches.
fn selected(world: &World<'_>, service: &Service, without_slices: bool) -> Cause {
    let key = &service.key;
    let selector = words(&service.selector);
    let here: Vec<&Pod> =
        world.index.pods().filter(|pod| pod.key.namespace == key.namespace && !pod.is_finished).collect();
    let matching: Vec<&&Pod> = here.iter().filter(|pod| misses(service, pod).is_empty()).collect();
    if matching.is_empty() {
        return Cause {
            why: format!("the selector {selector} of {key} matches no pod of namespace {}", key.namespace),
            way_out: nearest_label(world, service, &here),
        };
    }
    let names: BTreeSet<String> = matching.iter().map(|pod| pod.key.to_string()).collect();
    let names = listed(names.iter().map(String::as_str));
    if matching.iter().all(|pod| pod.ips.is_empty()) {
        return Cause {
            why: format!(
                "{key} has no endpoints: no pod that its selector {selector} matches has an address yet"
            ),
            way_out: format!("why does {names} not run?"),
        };
    }
    let slices = if without_slices { "no EndpointSlice is for it" } else { "its EndpointSlices are empty" };
    Cause {
        why: format!("{key} has no endpoints: its selector {selector} matches {names}, but {slices}"),
        way_out:
            "a cluster's EndpointSlice controller writes them; among manifests they must be written by hand"
                .to_owned(),
    }
}

/// `app=web, tier=front`.
fn words(selector: &[(Box<str>, Box<str>)]) -> String {
    let words: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    words.join(",")
}

/// The parts of a Service's selector that a pod does not have.
fn misses<'a>(service: &'a Service, pod: &Pod) -> Vec<&'a (Box<str>, Box<str>)> {
    service.selector.iter().filter(|(key, value)| pod.labels.get(key) != Some(value)).collect()
}

/// Which label of a pod is nearest to a selector that matches none of these pods.
fn nearest_label(world: &World<'_>, service: &Service, here: &[&Pod]) -> String {
    let namespace = service.key.namespace;
    let elsewhere: BTreeSet<Name> = world
        .index
        .pods()
        .filter(|pod| !pod.is_finished && misses(service, pod).is_empty())
        .map(|pod| pod.key.namespace)
        .collect();
    if !elsewhere.is_empty() {
        let names = listed(elsewhere.iter().map(|name| name.as_str()));
        return format!("it matches pods in {names}, but a Service selects pods of its own namespace only");
    }
    // The pods that lack the least of it come first, then by name.
    let mut ranked: Vec<(usize, &Pod)> = here.iter().map(|pod| (misses(service, pod).len(), *pod)).collect();
    ranked.sort_by_key(|(missing, pod)| (*missing, pod.key.clone()));
    let Some(least) = ranked.first().map(|(missing, _)| *missing) else {
        return format!("namespace {namespace} has no pods");
    };
    let candidates: Vec<&Pod> =
        ranked.iter().take_while(|(missing, _)| *missing == least).map(|(_, pod)| *pod).collect();
    for (key, value) in misses(service, candidates[0]) {
        if let Some((pod, found)) = near(&candidates, key, value).or_else(|| near(here, key, value)) {
            return format!(
                "the nearest label is {found} of pod {}; the selector asks for {key}={value}",
                pod.key
            );
        }
    }
    let (key, _) = misses(service, candidates[0])[0];
    format!("no pod of namespace {namespace} has a label {key}, or one like it")
}

/// The label nearest to `key=value`: the same key with a similar value, another key with that value, the same key with
/// any value, a similar key.
fn near<'a>(pods: &[&'a Pod], key: &str, value: &str) -> Option<(&'a Pod, String)> {
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
