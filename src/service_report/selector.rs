//! Diagnosis of Services whose selector gives them no endpoints.

use std::collections::BTreeSet;

use portcullis_cluster::pod::Pod;
use portcullis_cluster::service::Service;
use portcullis_cluster::{Index, Name};

use super::no_endpoints::{Diagnosis, DiagnosisInput, no_endpoints_reason};
use super::reason::Reason;
use crate::config::{closest, nearest};
use crate::truncated_list::listed;

/// The Service has a selector, so a controller writes slices for the pods that it matches.
pub(super) fn diagnose(input: DiagnosisInput<'_>, service: &Service, without_slices: bool) -> Diagnosis {
    let key = &service.key;
    let selector = &service.selector;
    let slices =
        if without_slices { "there is no EndpointSlice for it" } else { "its EndpointSlices are empty" };
    if !input.has_pods {
        return Diagnosis {
            reason: no_endpoints_reason(without_slices),
            message: format!("{key} has no endpoints: {slices}"),
            hint: format!(
                "check that pods of namespace {} have the labels {selector} of its selector",
                key.namespace
            ),
        };
    }
    let here: Vec<&Pod> =
        input.index.pods().filter(|pod| pod.key.namespace == key.namespace && !pod.is_finished).collect();
    let matching: Vec<&&Pod> = here.iter().filter(|pod| missing_labels(service, pod).is_empty()).collect();
    if matching.is_empty() {
        return Diagnosis {
            reason: Reason::SelectorMatchesNoPods,
            message: format!(
                "the selector {selector} of {key} matches no pod of namespace {}",
                key.namespace
            ),
            hint: similar_label(input.index, service, &here),
        };
    }
    let names: BTreeSet<String> = matching.iter().map(|pod| pod.key.to_string()).collect();
    let names = listed(names.iter().map(String::as_str));
    if matching.iter().all(|pod| pod.ips.is_empty()) {
        return Diagnosis {
            reason: no_endpoints_reason(without_slices),
            message: format!(
                "{key} has no endpoints: no pod that its selector {selector} matches has an address"
            ),
            hint: format!("check why {names} does not run"),
        };
    }
    Diagnosis {
        reason: no_endpoints_reason(without_slices),
        message: format!("{key} has no endpoints: its selector {selector} matches {names}, but {slices}"),
        hint: "in a cluster, the EndpointSlice controller writes them; manifests must contain them"
            .to_owned(),
    }
}

/// Returns the labels of a Service's selector that a pod lacks.
fn missing_labels<'a>(service: &'a Service, pod: &Pod) -> Vec<(&'a str, &'a str)> {
    service.selector.iter().filter(|(key, value)| pod.labels.get(key) != Some(*value)).collect()
}

/// Returns a hint for a selector that matches no pod: the most similar label.
fn similar_label(index: &Index, service: &Service, here: &[&Pod]) -> String {
    let namespace = &service.key.namespace;
    let elsewhere: BTreeSet<&Name> = index
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
