//! Routes of connections to frontends: by Service, endpoints, source and capabilities of the proxy mode.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::IpAddr;

use portcullis_cluster::desired::{
    Desired, Frontend, FrontendKind, MasqueradeReason, ModeCapabilities, Rejection, Route, RoutingContext,
    SourceClass,
};
use portcullis_cluster::{Event, Index, Kind, Name, Object};
use serde_json::{Value, json};

/// A mode with rules that see the source of a packet, as iptables and nftables.
const BY_SOURCE: ModeCapabilities = ModeCapabilities {
    routes_by_source: true,
    falls_back_to_policy_cluster: false,
    masquerades_own_connections: false,
    masquerades_remote_hairpins: false,
    filters_sources_without_endpoints: false,
    rejects_own_connections: true,
    rejects_unused_cluster_ip_ports: false,
    rejects_unused_external_ports: false,
    drops_unallocated_cluster_ips: false,
    has_schedulers: false,
};

/// A mode with virtual servers that do not see the source of a packet, as IPVS.
const BY_DESTINATION: ModeCapabilities = ModeCapabilities {
    routes_by_source: false,
    falls_back_to_policy_cluster: true,
    masquerades_own_connections: true,
    filters_sources_without_endpoints: true,
    ..BY_SOURCE
};

const CONTEXT: RoutingContext = RoutingContext {
    node_ip: Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 0, 1))),
    masquerade_all: false,
    detects_pods: true,
    capabilities: BY_SOURCE,
};

/// The nodes of the endpoints of the Service.
#[derive(Clone, Copy, Debug)]
enum Endpoints {
    Nowhere,
    Elsewhere,
    Here,
}

/// A Service with a frontend of each kind and these traffic policies.
fn desired(internal: &str, external: &str, endpoints: Endpoints, ranges: Value) -> Desired {
    let node = match endpoints {
        Endpoints::Nowhere => None,
        Endpoints::Elsewhere => Some("node-b"),
        Endpoints::Here => Some("node-a"),
    };
    let endpoints: Vec<Value> =
        node.into_iter().map(|node| json!({"addresses": ["10.244.0.7"], "nodeName": node})).collect();
    let service = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.1",
            "externalIPs": ["198.51.100.1"],
            "ports": [{"port": 80, "nodePort": 30080}],
            "internalTrafficPolicy": internal,
            "externalTrafficPolicy": external,
            "loadBalancerSourceRanges": ranges,
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}},
    });
    let labels = json!({"kubernetes.io/service-name": "web"});
    let slice = json!({
        "metadata": {"name": "web-1", "namespace": "default", "labels": labels},
        "addressType": "IPv4",
        "ports": [{"port": 8080}],
        "endpoints": endpoints,
    });
    let mut index = Index::new();
    for (kind, object) in [(Kind::Service, service), (Kind::EndpointSlice, slice)] {
        index.handle(Event::Applied(Object::parse(kind, object).unwrap().object));
    }
    Desired::from_index(&index, Name::new("node-a"))
}

fn frontends(desired: &Desired) -> Vec<Frontend<'_>> {
    desired.ports().flat_map(|port| port.frontends()).collect()
}

fn frontend(desired: &Desired, kind: FrontendKind) -> Frontend<'_> {
    frontends(desired).into_iter().find(|frontend| frontend.kind == kind).unwrap()
}

/// `Local fallback, masqueraded: FromNode` and the like.
fn describe(route: Route) -> String {
    let fallback = if route.is_fallback { " fallback" } else { "" };
    let response = match route.rejection {
        None => route.policy.to_string(),
        Some(Rejection::Reject) => "reject".to_owned(),
        Some(Rejection::Drop) => "drop".to_owned(),
    };
    let masquerade = match route.masquerade {
        None => "",
        Some(MasqueradeReason::MasqueradeAll) => ", masqueraded: all",
        Some(MasqueradeReason::NotFromPod) => ", masqueraded: not a pod",
        Some(MasqueradeReason::FromNode) => ", masqueraded: node",
        Some(MasqueradeReason::ExternalPolicyCluster) => ", masqueraded: policy",
    };
    format!("{response}{fallback}{masquerade}")
}

const EXTERNAL: [FrontendKind; 3] =
    [FrontendKind::NodePort, FrontendKind::LoadBalancer, FrontendKind::ExternalIp];

/// Traffic policy of the frontend, endpoints, and the routes from pods, the node and all other sources.
type Row = (&'static str, Endpoints, [&'static str; 3]);

fn check(kinds: &[FrontendKind], context: &RoutingContext, rows: &[Row]) {
    for (policy, endpoints, expected) in rows {
        for kind in kinds {
            // The policy of the other frontends must not matter.
            for other in ["Cluster", "Local"] {
                let (internal, external) = match kind {
                    FrontendKind::ClusterIp => (*policy, other),
                    _ => (other, *policy),
                };
                let desired = desired(internal, external, *endpoints, Value::Null);
                let found = [SourceClass::Pod, SourceClass::Node, SourceClass::External]
                    .map(|source| describe(frontend(&desired, *kind).route(source, context)));
                assert_eq!(found, *expected, "{kind}, {policy}, {endpoints:?}, other policy {other}");
            }
        }
    }
}

#[test]
fn cluster_ips_use_the_internal_policy_and_masquerade_all_sources_but_pods() {
    let not_a_pod = ["Cluster", "Cluster, masqueraded: not a pod", "Cluster, masqueraded: not a pod"];
    let local = ["Local", "Local, masqueraded: not a pod", "Local, masqueraded: not a pod"];
    let drop = ["drop", "drop, masqueraded: not a pod", "drop, masqueraded: not a pod"];
    let reject = ["reject", "reject, masqueraded: not a pod", "reject, masqueraded: not a pod"];
    check(
        &[FrontendKind::ClusterIp],
        &CONTEXT,
        &[
            ("Cluster", Endpoints::Here, not_a_pod),
            ("Cluster", Endpoints::Elsewhere, not_a_pod),
            ("Cluster", Endpoints::Nowhere, reject),
            ("Local", Endpoints::Here, local),
            ("Local", Endpoints::Elsewhere, drop),
            ("Local", Endpoints::Nowhere, reject),
        ],
    );
    let all = RoutingContext { masquerade_all: true, ..CONTEXT };
    check(
        &[FrontendKind::ClusterIp],
        &all,
        &[("Cluster", Endpoints::Here, ["Cluster, masqueraded: all"; 3])],
    );
}

#[test]
fn without_detection_of_pods_connections_to_cluster_ips_are_not_masqueraded() {
    let context = RoutingContext { detects_pods: false, ..CONTEXT };
    check(&[FrontendKind::ClusterIp], &context, &[("Cluster", Endpoints::Here, ["Cluster"; 3])]);
    let context = RoutingContext { capabilities: BY_DESTINATION, ..context };
    let node = ["Cluster", "Cluster, masqueraded: node", "Cluster"];
    check(&[FrontendKind::ClusterIp], &context, &[("Cluster", Endpoints::Here, node)]);
}

#[test]
fn external_frontends_with_policy_local_use_all_endpoints_for_pods_and_the_node() {
    check(
        &EXTERNAL,
        &CONTEXT,
        &[
            ("Cluster", Endpoints::Here, ["Cluster, masqueraded: policy"; 3]),
            ("Cluster", Endpoints::Elsewhere, ["Cluster, masqueraded: policy"; 3]),
            ("Cluster", Endpoints::Nowhere, ["reject, masqueraded: policy"; 3]),
            ("Local", Endpoints::Here, ["Cluster", "Cluster, masqueraded: node", "Local"]),
            ("Local", Endpoints::Elsewhere, ["Cluster", "Cluster, masqueraded: node", "drop"]),
            ("Local", Endpoints::Nowhere, ["reject", "reject, masqueraded: node", "reject"]),
        ],
    );
}

#[test]
fn a_mode_that_does_not_see_sources_falls_back_to_endpoints_elsewhere() {
    let context = RoutingContext { capabilities: BY_DESTINATION, ..CONTEXT };
    check(
        &EXTERNAL,
        &context,
        &[
            ("Cluster", Endpoints::Elsewhere, ["Cluster, masqueraded: policy"; 3]),
            ("Local", Endpoints::Here, ["Local"; 3]),
            ("Local", Endpoints::Elsewhere, ["Local fallback"; 3]),
            ("Local", Endpoints::Nowhere, ["reject"; 3]),
        ],
    );
}

#[test]
fn source_ranges_apply_to_load_balancer_addresses() {
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    let by_destination = RoutingContext { capabilities: BY_DESTINATION, ..CONTEXT };
    let client = ip("192.0.2.7");
    // Ranges, endpoints, capabilities, and whether the client, the load balancer's own address and others are allowed;
    // `None`: all sources are.
    let rows = [
        (json!(["192.0.2.0/24"]), Endpoints::Here, CONTEXT, Some([true, false, false])),
        (json!(["192.0.2.0/24", "192.168.0.0/16"]), Endpoints::Here, CONTEXT, Some([true, true, false])),
        (json!(["192.0.2.0/24", "0.0.0.0/0"]), Endpoints::Here, CONTEXT, None),
        (json!(["not a block"]), Endpoints::Here, CONTEXT, Some([false; 3])),
        (json!(["fd00::/8"]), Endpoints::Here, CONTEXT, None),
        (Value::Null, Endpoints::Here, CONTEXT, None),
        (json!(["192.0.2.0/24"]), Endpoints::Nowhere, CONTEXT, None),
        (json!(["192.0.2.0/24"]), Endpoints::Nowhere, by_destination, Some([true, false, false])),
    ];
    for (ranges, endpoints, context, expected) in rows {
        let desired = desired("Cluster", "Cluster", endpoints, ranges.clone());
        let sources = [client, ip("203.0.113.1"), ip("198.51.100.9")];
        for frontend in frontends(&desired) {
            let allowed = frontend.allowed_sources(&context);
            let found = allowed.map(|allowed| sources.map(|source| allowed.contains(source)));
            let expected = expected.filter(|_| frontend.kind == FrontendKind::LoadBalancer);
            assert_eq!(found, expected, "{} {ranges} {endpoints:?}", frontend.kind);
        }
    }
}

#[test]
fn frontends_are_found_by_their_address() {
    let desired = desired("Cluster", "Cluster", Endpoints::Here, Value::Null);
    let shown: Vec<String> = frontends(&desired)
        .iter()
        .map(|frontend| format!("{} {}", frontend.kind, frontend.address))
        .collect();
    let expected = [
        "ClusterIP 10.96.0.1:80/tcp",
        "external IP 198.51.100.1:80/tcp",
        "load balancer address 203.0.113.1:80/tcp",
        "node port 30080/tcp",
    ];
    assert_eq!(shown, expected);
    let port = desired.ports().next().unwrap();
    for (ip, kind) in [
        ("10.96.0.1", Some(FrontendKind::ClusterIp)),
        ("198.51.100.1", Some(FrontendKind::ExternalIp)),
        ("203.0.113.1", Some(FrontendKind::LoadBalancer)),
        ("192.168.0.1", None),
    ] {
        assert_eq!(port.frontend_at(ip.parse().unwrap()).map(|frontend| frontend.kind), kind, "{ip}");
    }
}
