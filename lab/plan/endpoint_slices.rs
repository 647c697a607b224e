//! EndpointSlices of a Service and its pods, as the EndpointSlice controller creates them.
//!
//! Rules: KEP-752 (EndpointSlices), KEP-1672 (terminating endpoints), KEP-4444 and KEP-3015 (`trafficDistribution`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerPort, Node, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::addresses::Family;
use super::service_defaults::{has_type, is_headless};
use crate::cluster_objects::namespace_of;

/// Label with the name of the slice's Service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The controller's default for `--max-endpoints-per-slice`.
const MAX_ENDPOINTS: usize = 100;

/// Ports of a slice, as a map key: pods that resolve the Service's named ports differently are in different slices.
type PortKey = Vec<(String, String, i32, Option<String>)>;

/// Returns the slices of a Service with defaults set; none for a Service without a selector.
pub(crate) fn slices_of(service: &Service, pods: &[&Pod], nodes: &[&Node]) -> Vec<EndpointSlice> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let Some(selector) = spec.selector.as_ref().filter(|selector| !selector.is_empty()) else {
        return Vec::new();
    };
    if has_type(spec, "ExternalName") {
        return Vec::new();
    }
    let selected: Vec<&Pod> = pods.iter().copied().filter(|pod| selects(service, selector, pod)).collect();
    let families = spec.ip_families.iter().flatten().filter_map(|name| Family::parse(name));
    families.flat_map(|family| slices_of_family(service, family, &selected, nodes)).collect()
}

fn slices_of_family(service: &Service, family: Family, pods: &[&Pod], nodes: &[&Node]) -> Vec<EndpointSlice> {
    let mut by_ports: BTreeMap<PortKey, Vec<Endpoint>> = BTreeMap::new();
    for pod in pods {
        if let Some(endpoint) = endpoint(service, pod, family, nodes) {
            by_ports.entry(ports_for(service, pod)).or_default().push(endpoint);
        }
    }
    if by_ports.is_empty() {
        // The controller creates an empty slice for a Service without endpoints.
        return vec![slice(service, family, 0, Vec::new(), Vec::new())];
    }
    let pieces = by_ports.into_iter().flat_map(|(ports, endpoints)| {
        endpoints.chunks(MAX_ENDPOINTS).map(|chunk| (ports.clone(), chunk.to_vec())).collect::<Vec<_>>()
    });
    pieces
        .enumerate()
        .map(|(index, (ports, endpoints))| slice(service, family, index, ports, endpoints))
        .collect()
}

fn selects(service: &Service, selector: &BTreeMap<String, String>, pod: &Pod) -> bool {
    let ended = matches!(phase(pod), Some("Succeeded" | "Failed"));
    let labels = pod.metadata.labels.as_ref();
    let matches =
        selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value));
    matches && !ended && namespace_of(&pod.metadata) == namespace_of(&service.metadata)
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

fn endpoint(service: &Service, pod: &Pod, family: Family, nodes: &[&Node]) -> Option<Endpoint> {
    let status = pod.status.as_ref()?;
    let ips = status.pod_ips.iter().flatten().map(|ip| ip.ip.clone());
    let addresses: Vec<String> =
        ips.filter(|ip| ip.parse().is_ok_and(|ip| Family::from_ip(ip) == family)).take(1).collect();
    if addresses.is_empty() {
        return None;
    }
    let publish = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let serving = is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let ready = publish || (serving && !terminating);
    let node_name = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let zone = node_name.as_deref().and_then(|name| zone_of(name, nodes));
    Some(Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hints: ready.then(|| hints(service, node_name.as_deref(), zone.as_deref())).flatten(),
        hostname: hostname(service, pod),
        node_name,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: Some(namespace_of(&pod.metadata).to_owned()),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..Default::default()
        }),
        zone,
        ..Default::default()
    })
}

/// Returns true if the pod's condition `Ready` is true.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn zone_of(name: &str, nodes: &[&Node]) -> Option<String> {
    let node = nodes.iter().find(|node| node.metadata.name.as_deref() == Some(name))?;
    node.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone").cloned()
}

fn hints(service: &Service, node: Option<&str>, zone: Option<&str>) -> Option<EndpointHints> {
    let distribution = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let for_zones = zone.map(|zone| vec![ForZone { name: zone.to_owned() }]);
    let for_nodes = node.map(|node| vec![ForNode { name: node.to_owned() }]);
    match distribution {
        "PreferClose" | "PreferSameZone" if for_zones.is_some() => {
            Some(EndpointHints { for_zones, for_nodes: None })
        }
        "PreferSameNode" => Some(EndpointHints { for_zones, for_nodes }),
        _ => None,
    }
}

/// Returns the pod's `hostname` if the Service is its `subdomain`.
fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    (spec.subdomain.is_some() && spec.subdomain == service.metadata.name).then(|| spec.hostname.clone())?
}

fn ports_for(service: &Service, pod: &Pod) -> PortKey {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let resolved = ports.filter_map(|port| {
        let number = target_port(port, pod)?;
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        Some((port.name.clone().unwrap_or_default(), protocol, number, port.app_protocol.clone()))
    });
    resolved.collect()
}

/// Returns the target port of a Service port in a pod; `None` if the pod has no port of that name.
fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match port.target_port.as_ref() {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let named = container_ports(pod).find(|candidate| {
                candidate.name.as_ref() == Some(name)
                    && candidate.protocol.as_deref().unwrap_or("TCP") == protocol
            })?;
            Some(named.container_port)
        }
    }
}

/// Returns the ports of the pod's containers and of its sidecar containers.
pub(crate) fn container_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| {
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten())
    })
}

fn slice(
    service: &Service,
    family: Family,
    index: usize,
    ports: PortKey,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let name = service.metadata.name.clone().unwrap_or_default();
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), name.clone());
    labels.insert("endpointslice.kubernetes.io/managed-by".into(), "endpointslice-controller.k8s.io".into());
    if service.spec.as_ref().is_some_and(is_headless) {
        labels.insert("service.kubernetes.io/headless".into(), String::new());
    }
    let ports = ports.into_iter().map(|(name, protocol, port, app_protocol)| EndpointPort {
        app_protocol,
        name: Some(name),
        port: Some(port),
        protocol: Some(protocol),
    });
    EndpointSlice {
        address_type: family.name().to_owned(),
        endpoints: Some(endpoints),
        metadata: ObjectMeta {
            name: Some(format!("{name}-{}-{index}", family.name().to_lowercase())),
            namespace: Some(namespace_of(&service.metadata).to_owned()),
            labels: Some(labels),
            ..Default::default()
        },
        ports: Some(ports.collect()),
    }
}
