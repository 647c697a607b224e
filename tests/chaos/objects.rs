//! Random objects of the cluster, as the API server would serve them.

use serde_json::{Value, json};

use super::pools::{
    ALL_PODS, NAMESPACES, NODE, OTHER_NODE, PODS, PodSlot, SCTP_PORT, SHARED_EXTERNAL_IPS, ServiceSlot,
    TCP_PORTS, UDP_PORT, node_addresses,
};
use super::random::Random;

const APPS: [&str; 2] = ["web", "db"];

pub(crate) fn node(name: &str, zone: Option<&str>) -> Value {
    let number = if name == NODE { 1 } else { 2 };
    let mut labels = json!({"kubernetes.io/hostname": name});
    zone.into_iter().for_each(|zone| labels["topology.kubernetes.io/zone"] = zone.into());
    let addresses = node_addresses(name).map(|ip| json!({"type": "InternalIP", "address": ip}));
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name, "labels": labels},
        "spec": {
            "podCIDR": format!("10.244.{number}.0/24"),
            "podCIDRs": [format!("10.244.{number}.0/24"), format!("fd00:10:244:{number}::/64")],
        },
        "status": {"addresses": addresses, "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

pub(crate) fn namespace(name: &str, tier: Option<&str>) -> Value {
    let mut labels = json!({"kubernetes.io/metadata.name": name});
    tier.into_iter().for_each(|tier| labels["tier"] = tier.into());
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

pub(crate) fn pod(slot: PodSlot, app: &str) -> Value {
    let ips = slot.addresses().map(|ip| json!({"ip": ip}));
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": slot.name, "namespace": slot.namespace, "labels": {"app": app},
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": slot.node, "containers": [{"name": "c", "ports": [
            {"name": "http", "containerPort": TCP_PORTS[0], "protocol": "TCP"},
            {"name": "dns", "containerPort": UDP_PORT, "protocol": "UDP"},
            {"name": "signal", "containerPort": SCTP_PORT, "protocol": "SCTP"},
        ]}]},
        "status": {"phase": "Running", "podIP": slot.addresses()[0], "podIPs": ips},
    })
}

/// Returns a node with a random zone.
pub(crate) fn random_node(random: &mut Random) -> Value {
    let name = random.pick(&[NODE, OTHER_NODE]);
    node(name, random.pick(&[None, Some("z1"), Some("z2"), Some("z3")]))
}

pub(crate) fn random_namespace(random: &mut Random) -> Value {
    namespace(random.pick(&NAMESPACES), random.pick(&[None, Some("x"), Some("y")]))
}

/// Returns one of the changing pods with random labels and state.
pub(crate) fn random_pod(random: &mut Random) -> Value {
    let mut object = pod(random.pick(&ALL_PODS[..PODS]), random.pick(&APPS));
    if random.chance(25) {
        object["metadata"]["labels"]["tier"] = random.pick(&["x", "y"]).into();
    }
    if random.chance(15) {
        object["spec"]["containers"][0]["ports"][0]["containerPort"] = TCP_PORTS[1].into();
    }
    if random.chance(10) {
        object["metadata"]["deletionTimestamp"] = "2026-01-03T00:00:00Z".into();
    }
    if random.chance(8) {
        object["status"]["phase"] = random.pick(&["Succeeded", "Failed", "Pending"]).into();
    }
    object
}

/// Returns the Service of a slot with random type, policies and addresses.
pub(crate) fn random_service(random: &mut Random, slot: &ServiceSlot) -> Value {
    let dual = random.chance(35);
    let families = if dual { 2 } else { 1 };
    let kind =
        random.pick(&["ClusterIP", "NodePort", "NodePort", "LoadBalancer", "LoadBalancer", "ExternalName"]);
    let names = ["IPv4", "IPv6"];
    let mut ports = vec![json!({"name": "http", "port": random.pick(&[80, 80, 80, 81]), "protocol": "TCP",
        "targetPort": "http"})];
    if random.chance(60) {
        ports.push(json!({"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns"}));
    }
    if random.chance(35) {
        ports.push(json!({"name": "signal", "port": 3868, "protocol": "SCTP", "targetPort": "signal"}));
    }
    let has_node_ports = kind == "NodePort" || kind == "LoadBalancer" && random.chance(80);
    if has_node_ports {
        let numbers = slot.node_ports;
        let number_of = |protocol: &Value| {
            numbers.iter().find(|(_, of)| *protocol == of.to_string()).map(|(number, _)| *number)
        };
        ports.iter_mut().for_each(|port| port["nodePort"] = number_of(&port["protocol"]).into());
    }
    let mut spec = json!({
        "type": kind, "clusterIP": slot.cluster_ips[0], "clusterIPs": slot.cluster_ips[..families],
        "ipFamilies": names[..families], "ipFamilyPolicy": if dual { "PreferDualStack" } else { "SingleStack" },
        "internalTrafficPolicy": if random.chance(25) { "Local" } else { "Cluster" },
        "sessionAffinity": "None", "ports": ports,
    });
    let mut metadata = json!({
        "name": slot.name, "namespace": slot.namespace, "uid": format!("uid-{}", slot.number),
        "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", (slot.number * 7) % 5),
    });
    if random.chance(40) {
        spec["sessionAffinity"] = "ClientIP".into();
        spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 10800}});
    }
    if kind == "ExternalName" {
        spec = json!({"type": kind, "externalName": "example.com"});
    } else if random.chance(5) {
        spec["clusterIP"] = "None".into();
        spec["clusterIPs"] = json!(["None"]);
    }
    if kind != "ExternalName" && random.chance(30) {
        let own = slot.external_ips.iter().take(families).map(ToString::to_string);
        let shared = SHARED_EXTERNAL_IPS.iter().take(families).map(|ip| (*ip).to_owned());
        spec["externalIPs"] = if random.chance(30) { shared.collect() } else { own.collect::<Value>() };
    }
    let is_external = kind == "NodePort" || kind == "LoadBalancer";
    if is_external && random.chance(40) {
        spec["externalTrafficPolicy"] = "Local".into();
        if kind == "LoadBalancer" {
            spec["healthCheckNodePort"] = (31_000 + slot.number).into();
        }
    }
    let mut status = json!({"loadBalancer": {}});
    if kind == "LoadBalancer" {
        let mode = if random.chance(8) { "Proxy" } else { "VIP" };
        let ingress = slot.load_balancer_ips.iter().take(families);
        status["loadBalancer"]["ingress"] = ingress.map(|ip| json!({"ip": ip, "ipMode": mode})).collect();
        if random.chance(35) {
            spec["loadBalancerSourceRanges"] = random
                .pick(&[
                    &["198.51.100.0/24"][..],
                    &["10.244.1.0/24", "2001:db8:100::/48"],
                    &["192.168.77.0/24"],
                    &["203.0.113.77/32", "2001:db8:77::/64"],
                    &["2001:db8:77::/64"],
                ])
                .into();
        }
    }
    if random.chance(5) {
        metadata["labels"] = json!({"service.kubernetes.io/service-proxy-name": "another"});
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec, "status": status})
}

/// Returns a slice of a Service with endpoints in all states, some of them twice. A Service has up to two slices per
/// family.
pub(crate) fn random_slice(random: &mut Random, slot: &ServiceSlot) -> Value {
    let family = usize::from(random.chance(30));
    let part = usize::from(random.chance(25));
    let mut endpoints = Vec::new();
    // Topology hints apply only if all ready endpoints have them, and terminating endpoints only if none is ready.
    let hinted = random.pick(&[0, 0, 40, 100]);
    let is_terminating = random.chance(20);
    for _ in 0..random.below(6) {
        let pod = random.pick(&ALL_PODS[..PODS]);
        let other = if pod.node == NODE { OTHER_NODE } else { NODE };
        // An old endpoint of the pod that had the address before, on the other node.
        if random.chance(15) {
            let state = (Some(false), Some(false), Some(true));
            endpoints.push(endpoint(random, pod, family, other, state, hinted));
        }
        let states = [
            (Some(true), Some(true), Some(false)),
            (Some(true), Some(true), Some(false)),
            (Some(true), None, None),
            (None, None, None),
            (Some(false), Some(true), Some(true)),
            (Some(false), Some(false), Some(true)),
            (Some(false), Some(false), Some(false)),
        ];
        let state = random.pick(if is_terminating { &states[4..] } else { &states });
        endpoints.push(endpoint(random, pod, family, pod.node, state, hinted));
    }
    let mut ports = vec![json!({"name": if random.chance(8) { "web" } else { "http" },
        "port": random.pick(&TCP_PORTS), "protocol": "TCP"})];
    if random.chance(80) {
        ports.push(json!({"name": "dns", "port": UDP_PORT, "protocol": "UDP"}));
    }
    if random.chance(60) {
        ports.push(json!({"name": "signal", "port": SCTP_PORT, "protocol": "SCTP"}));
    }
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": (["IPv4", "IPv6"][family]),
        "metadata": {"name": format!("{}-{}-{part}", slot.name, ["v4", "v6"][family]), "namespace": slot.namespace,
            "labels": {"kubernetes.io/service-name": slot.name}},
        "endpoints": endpoints, "ports": ports,
    })
}

type Conditions = (Option<bool>, Option<bool>, Option<bool>);

fn endpoint(
    random: &mut Random,
    pod: PodSlot,
    family: usize,
    node: &str,
    state: Conditions,
    hinted: usize,
) -> Value {
    let (ready, serving, terminating) = state;
    let mut conditions = json!({});
    for (name, value) in [("ready", ready), ("serving", serving), ("terminating", terminating)] {
        value.into_iter().for_each(|value| conditions[name] = value.into());
    }
    let mut object =
        json!({"addresses": [pod.addresses()[family]], "nodeName": node, "conditions": conditions});
    if random.chance(hinted) {
        object["hints"] = json!({"forZones": [{"name": random.pick(&["z1", "z2"])}]});
    }
    object
}
