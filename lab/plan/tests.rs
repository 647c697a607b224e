//! Tables of manifests and the resulting plans.

use std::fmt::Write;

use super::*;

fn plan(manifests: &str) -> ClusterPlan {
    ClusterObjects::parse(manifests).unwrap().plan().unwrap()
}

/// Returns the manifest of a Service `a` that selects `app: a`, with this `spec`.
fn service(spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{selector: {{app: a}}, {spec}}}\n---\n"
    )
}

fn pod(name: &str, rest: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: a}}}}\n{rest}\n---\n")
}

/// Formats a slice as `IPv4 http:8080/TCP web-1@node-1 web-2@node-2!`, with `!` for not ready, `x` for not serving, `t`
/// for terminating.
fn describe(slice: &EndpointSlice) -> String {
    let mut text = slice.address_type.clone();
    for port in slice.ports.iter().flatten() {
        let name = port.name.as_deref().unwrap_or_default();
        write!(text, " {name}:{}/{}", port.port.unwrap(), port.protocol.as_deref().unwrap()).unwrap();
    }
    for endpoint in slice.endpoints.iter().flatten() {
        let conditions = endpoint.conditions.as_ref().unwrap();
        let target = endpoint.target_ref.as_ref().unwrap().name.as_deref().unwrap();
        write!(text, " {target}@{}", endpoint.node_name.as_deref().unwrap()).unwrap();
        let marks = [
            (conditions.ready == Some(false), "!"),
            (conditions.serving == Some(false), "x"),
            (conditions.terminating == Some(true), "t"),
        ];
        marks.iter().filter(|(on, _)| *on).for_each(|(_, mark)| text.push_str(mark));
    }
    text
}

#[test]
fn an_empty_cluster_has_two_nodes_with_clients() {
    let plan = plan("");
    let nodes: Vec<String> =
        plan.nodes.iter().map(|n| format!("{} {:?} {:?}", n.name, n.addresses, n.pod_cidrs)).collect();
    assert_eq!(
        nodes,
        [
            "node-1 [192.168.77.11, fd00:77::b] [10.244.1.0/24, fd00:10:244:1::/64]",
            "node-2 [192.168.77.12, fd00:77::c] [10.244.2.0/24, fd00:10:244:2::/64]",
        ]
    );
    let pods: Vec<String> = plan.pods.iter().map(|p| format!("{} {:?}", p.name, p.addresses)).collect();
    assert_eq!(
        pods,
        [
            "portcullis-lab/client-node-1 [10.244.1.2, fd00:10:244:1::2]",
            "portcullis-lab/client-node-2 [10.244.2.2, fd00:10:244:2::2]",
        ]
    );
}

#[test]
fn services_get_the_defaults_of_the_api_server() {
    // `spec` · JSON pointers into the planned Service, and the expected values
    let rows: &[(&str, &[(&str, &str)])] = &[
        (
            "ports: [{port: 80}]",
            &[
                ("/spec/type", "\"ClusterIP\""),
                ("/spec/clusterIP", "\"10.96.0.10\""),
                ("/spec/clusterIPs", "[\"10.96.0.10\"]"),
                ("/spec/ipFamilies", "[\"IPv4\"]"),
                ("/spec/ipFamilyPolicy", "\"SingleStack\""),
                ("/spec/ports/0/protocol", "\"TCP\""),
                ("/spec/ports/0/targetPort", "80"),
                ("/spec/sessionAffinity", "\"None\""),
                ("/spec/internalTrafficPolicy", "\"Cluster\""),
                ("/spec/externalTrafficPolicy", "null"),
                ("/spec/ports/0/nodePort", "null"),
            ],
        ),
        (
            "ipFamilyPolicy: PreferDualStack, ports: [{port: 80}]",
            &[
                ("/spec/clusterIPs", "[\"10.96.0.10\",\"fd00:10:96::a\"]"),
                ("/spec/ipFamilies", "[\"IPv4\",\"IPv6\"]"),
            ],
        ),
        (
            "ipFamilies: [IPv6], ports: [{port: 80}]",
            &[("/spec/clusterIPs", "[\"fd00:10:96::a\"]"), ("/spec/ipFamilyPolicy", "\"SingleStack\"")],
        ),
        (
            "ipFamilies: [IPv6], ipFamilyPolicy: RequireDualStack, ports: [{port: 80}]",
            &[("/spec/clusterIPs", "[\"fd00:10:96::a\",\"10.96.0.10\"]")],
        ),
        (
            "clusterIP: 10.96.7.7, ports: [{port: 80}]",
            &[("/spec/clusterIPs", "[\"10.96.7.7\"]"), ("/spec/clusterIP", "\"10.96.7.7\"")],
        ),
        ("clusterIP: None, ports: [{port: 80}]", &[("/spec/clusterIPs", "[\"None\"]")]),
        (
            "sessionAffinity: ClientIP, ports: [{port: 80}]",
            &[("/spec/sessionAffinityConfig/clientIP/timeoutSeconds", "10800")],
        ),
        (
            "type: NodePort, ports: [{port: 80}, {name: b, port: 81, nodePort: 30000}]",
            &[
                ("/spec/ports/0/nodePort", "30001"),
                ("/spec/ports/1/nodePort", "30000"),
                ("/spec/externalTrafficPolicy", "\"Cluster\""),
                ("/spec/healthCheckNodePort", "null"),
            ],
        ),
        (
            "type: LoadBalancer, externalTrafficPolicy: Local, ports: [{port: 80}]",
            &[
                ("/spec/ports/0/nodePort", "30000"),
                ("/spec/healthCheckNodePort", "30001"),
                ("/spec/allocateLoadBalancerNodePorts", "true"),
                ("/status/loadBalancer/ingress", "[{\"ip\":\"203.0.113.10\",\"ipMode\":\"VIP\"}]"),
            ],
        ),
        (
            "type: LoadBalancer, allocateLoadBalancerNodePorts: false, loadBalancerIP: 203.0.113.99, ports: [{port: 80}]",
            &[("/spec/ports/0/nodePort", "null"), ("/status/loadBalancer/ingress/0/ip", "\"203.0.113.99\"")],
        ),
        (
            "externalIPs: [198.51.100.7], ports: [{port: 80}]",
            &[("/spec/externalTrafficPolicy", "\"Cluster\"")],
        ),
        (
            "type: ExternalName, externalName: example.com",
            &[("/spec/clusterIP", "null"), ("/spec/ipFamilies", "null")],
        ),
    ];
    for (spec, expected) in rows {
        let planned = serde_json::to_value(&plan(&service(spec)).services[0]).unwrap();
        for (pointer, value) in *expected {
            let found = planned.pointer(pointer).unwrap_or(&Value::Null).to_string();
            assert_eq!(&found, value, "{pointer} of {{{spec}}}");
        }
    }
}

#[test]
fn slices_are_those_of_the_endpoint_slice_controller() {
    let port = |name: &str, number: u16| {
        format!("spec: {{containers: [{{name: c, ports: [{{name: {name}, containerPort: {number}}}]}}]}}")
    };
    let not_ready = "status: {conditions: [{type: Ready, status: 'False'}]}";
    let rows: &[(&str, String, &[&str])] = &[
        (
            "two pods, spread",
            service("ports: [{name: http, port: 80, targetPort: 8080}]") + &pod("p1", "") + &pod("p2", ""),
            &["IPv4 http:8080/TCP p1@node-1 p2@node-2"],
        ),
        (
            "a slice a family",
            service("ipFamilyPolicy: PreferDualStack, ports: [{port: 80}]") + &pod("p1", ""),
            &["IPv4 :80/TCP p1@node-1", "IPv6 :80/TCP p1@node-1"],
        ),
        (
            "named ports that differ between pods",
            service("ports: [{port: 80, targetPort: web}]")
                + &pod("p1", &port("web", 8080))
                + &pod("p2", &port("web", 9090)),
            &["IPv4 :8080/TCP p1@node-1", "IPv4 :9090/TCP p2@node-2"],
        ),
        (
            "a pod without the named port has no port",
            service("ports: [{port: 80, targetPort: web}]") + &pod("p1", &port("other", 8080)),
            &["IPv4 p1@node-1"],
        ),
        (
            "not ready",
            service("ports: [{port: 80}]") + &pod("p1", not_ready) + &pod("p2", ""),
            &["IPv4 :80/TCP p1@node-1!x p2@node-2"],
        ),
        (
            "publishNotReadyAddresses",
            service("publishNotReadyAddresses: true, ports: [{port: 80}]") + &pod("p1", not_ready),
            &["IPv4 :80/TCP p1@node-1x"],
        ),
        (
            "terminating",
            service("ports: [{port: 80}]")
                + "apiVersion: v1\nkind: Pod\nmetadata: {name: p1, labels: {app: a}, deletionTimestamp: '2026-01-01T00:00:00Z'}\n---\n",
            &["IPv4 :80/TCP p1@node-1!t"],
        ),
        (
            "terminated pods and pods of other namespaces and labels are not selected",
            service("ports: [{port: 80}]")
                + &pod("p1", "status: {phase: Succeeded}")
                + "apiVersion: v1\nkind: Pod\nmetadata: {name: p2, namespace: other, labels: {app: a}}\n---\n"
                + "apiVersion: v1\nkind: Pod\nmetadata: {name: p3, labels: {app: b}}\n---\n",
            &["IPv4"],
        ),
        (
            "a user's slice replaces those of the controller",
            service("ports: [{port: 80}]")
                + &pod("p1", "")
                + "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: mine, labels: {kubernetes.io/service-name: a}}\naddressType: IPv6\n",
            &["IPv6"],
        ),
        ("ExternalName", service("type: ExternalName, externalName: x.example"), &[]),
        (
            "a Service without a selector",
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}".to_owned(),
            &[],
        ),
    ];
    for (what, manifests, expected) in rows {
        let slices: Vec<String> = plan(manifests).slices.iter().map(describe).collect();
        assert_eq!(&slices, expected, "{what}");
    }
}

#[test]
fn traffic_distribution_becomes_hints() {
    let node =
        "apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/zone: z1}}\n---\n";
    let on_n1 = pod("p1", "spec: {nodeName: n1}");
    let rows = [
        ("PreferClose", r#"{"forZones":[{"name":"z1"}]}"#),
        ("PreferSameZone", r#"{"forZones":[{"name":"z1"}]}"#),
        ("PreferSameNode", r#"{"forNodes":[{"name":"n1"}],"forZones":[{"name":"z1"}]}"#),
    ];
    for (distribution, expected) in rows {
        let spec = format!("trafficDistribution: {distribution}, ports: [{{port: 80}}]");
        let plan = plan(&(node.to_owned() + &on_n1 + &service(&spec)));
        let endpoint = &plan.slices[0].endpoints.as_ref().unwrap()[0];
        assert_eq!(endpoint.zone.as_deref(), Some("z1"));
        assert_eq!(serde_json::to_value(&endpoint.hints).unwrap().to_string(), expected, "{distribution}");
    }
}

#[test]
fn slices_have_at_most_100_endpoints() {
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: big}\nspec: {replicas: 150, \
                      selector: {}, template: {metadata: {labels: {app: a}}}}\n---\n";
    let plan = plan(&(deployment.to_owned() + &service("ports: [{port: 80}]")));
    let sizes: Vec<usize> = plan.slices.iter().map(|s| s.endpoints.as_ref().unwrap().len()).collect();
    assert_eq!(sizes, [100, 50]);
}

#[test]
fn workloads_create_pods() {
    let workload = |kind: &str, replicas: &str| {
        format!(
            "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: w}}\nspec: {{{replicas}selector: {{}}, template: \
             {{metadata: {{labels: {{app: w}}}}, spec: {{containers: [{{name: c, ports: [{{containerPort: 53, protocol: UDP}}]}}]}}}}}}\n"
        )
    };
    let rows: &[(&str, &str, &[&str])] = &[
        ("Deployment", "replicas: 3, ", &["default/w-1@node-1", "default/w-2@node-2", "default/w-3@node-1"]),
        ("Deployment", "", &["default/w-1@node-1"]),
        ("ReplicaSet", "replicas: 1, ", &["default/w-1@node-1"]),
        ("StatefulSet", "replicas: 2, ", &["default/w-0@node-1", "default/w-1@node-2"]),
        ("DaemonSet", "", &["default/w-node-1@node-1", "default/w-node-2@node-2"]),
        ("Deployment", "replicas: 0, ", &[]),
    ];
    for (kind, replicas, expected) in rows {
        let plan = plan(&workload(kind, replicas));
        let pods = plan.pods.iter().filter(|pod| pod.name.starts_with("default/"));
        let found: Vec<String> = pods.clone().map(|pod| format!("{}@{}", pod.name, pod.node)).collect();
        assert_eq!(&found, expected, "{kind} {replicas}");
        let udp = EchoPort::udp(53);
        assert!(pods.clone().all(|pod| pod.ports.contains(&udp)));
    }
}

#[test]
fn allocations_are_kept_by_the_next_plan() {
    let all = service("type: LoadBalancer, externalTrafficPolicy: Local, ports: [{port: 80}]")
        + &pod("p1", "")
        + &pod("p2", "")
        + &pod("p3", "");
    let mut cluster = ClusterObjects::parse(&all).unwrap();
    let before = cluster.plan().unwrap();
    cluster.delete(&crate::ObjectRef::new("Pod", "default", "p1"));
    cluster.extend(
        ClusterObjects::parse(&service("x: y").replace("name: a}", "name: '0'}")).unwrap().objects().cloned(),
    );
    let after = cluster.plan_after(&before, &PlanOptions::default()).unwrap();
    for name in ["p2", "p3"] {
        assert_eq!(before.pod(name), after.pod(name));
    }
    assert_eq!(before.service("a"), after.service("a"));
    assert_ne!(
        after.service("0").unwrap().spec.as_ref().unwrap().cluster_ip,
        after.service("a").unwrap().spec.as_ref().unwrap().cluster_ip
    );
}

#[test]
fn a_pod_of_the_user_replaces_a_replica() {
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: w}\nspec: {replicas: 2, selector: {}, \
                      template: {metadata: {labels: {app: a}}}}\n---\n";
    let plan = plan(&(deployment.to_owned() + &pod("w-1", "status: {podIP: 10.9.9.9}")));
    let own: Vec<(&str, String)> =
        plan.pods.iter().take(2).map(|pod| (pod.name.as_str(), pod.addresses[0].to_string())).collect();
    assert_eq!(own, [("default/w-1", "10.9.9.9".to_owned()), ("default/w-2", "10.244.2.2".to_owned())]);
    assert_eq!(plan.pods.len(), 4);
}

#[test]
fn endpoints_without_pods_get_placeholder_pods() {
    let plan = plan(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, labels: {kubernetes.io/service-name: a}}\n\
         addressType: IPv4\nports: [{port: 90, protocol: UDP}]\nendpoints:\n- {addresses: [10.244.2.2]}\n\
         - {addresses: [10.1.1.1], nodeName: node-9, targetRef: {kind: Pod, name: web}}\n- {addresses: [192.0.2.1]}\n",
    );
    let placeholder_pods: Vec<String> = plan
        .pods
        .iter()
        .filter(|pod| pod.name.starts_with("default/"))
        .map(|pod| {
            format!("{}@{} {:?} {:?}", pod.name, pod.node, pod.addresses, pod.ports.first().map(|p| p.port))
        })
        .collect();
    // The only node named in the manifests is the first of the plan. Its pod CIDR is the second.
    assert_eq!(plan.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["node-9", "node-1"]);
    assert_eq!(
        placeholder_pods,
        ["default/at-10-244-2-2@node-9 [10.244.2.2] Some(90)", "default/web@node-9 [10.1.1.1] Some(90)"]
    );
}

#[test]
fn a_deleted_pod_is_replaced_by_a_placeholder_only_if_enabled() {
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, labels: {kubernetes.io/service-name: a}}\n\
                 addressType: IPv4\nendpoints: [{addresses: [10.244.2.9], targetRef: {kind: Pod, name: p}}]\n";
    for placeholder_pods in [true, false] {
        let options = PlanOptions { placeholder_pods, ..Default::default() };
        let plan =
            ClusterObjects::parse(slice).unwrap().plan_after(&ClusterPlan::default(), &options).unwrap();
        assert_eq!(plan.pod("p").is_some(), placeholder_pods);
    }
}

#[test]
fn errors_name_the_object_and_the_expected_value() {
    let rows = [
        (
            service("ipFamilies: [IPv5], ports: [{port: 80}]"),
            "Service default/a: `ipFamilies`: expected IPv4 or IPv6, found \"IPv5\"",
        ),
        (
            service("clusterIP: web, ports: [{port: 80}]"),
            "Service default/a: cluster IP: expected an IP address, found \"web\"",
        ),
        (pod("p1", "spec: {nodeSelector: {disk: ssd}}"), "Pod default/p1: no node matches"),
        (pod("p1", "status: {podIP: x}"), "Pod default/p1: expected an IP address, found \"x\""),
        ("apiVersion: v1\nkind: Node\nmetadata: {name: outside}\n".to_owned(), "Node outside"),
    ];
    for (manifests, expected) in rows {
        let error = ClusterObjects::parse(&manifests).unwrap().plan().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn families_that_the_cluster_lacks_are_rejected() {
    let options = PlanOptions { families: Families::V4, ..Default::default() };
    for (spec, expected) in [
        ("ipFamilies: [IPv6], ports: [{port: 80}]", "requires IPv6"),
        ("ipFamilyPolicy: RequireDualStack, ports: [{port: 80}]", "requires a dual-stack cluster"),
    ] {
        let cluster = ClusterObjects::parse(&service(spec)).unwrap();
        let error = cluster.plan_after(&ClusterPlan::default(), &options).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn pod_cidrs_and_addresses_are_allocated_by_node_name() {
    let on = |name: &str, node: &str| pod(name, &format!("spec: {{nodeName: {node}}}"));
    let pods = [("a", "node-10"), ("b", "node-2"), ("c", "node-1")];
    let plan = plan(&pods.map(|(name, node)| on(name, node)).concat());
    let rows = [
        ("node-1", "192.168.77.11", "10.244.1.0/24"),
        ("node-2", "192.168.77.12", "10.244.2.0/24"),
        ("node-10", "192.168.77.13", "10.244.3.0/24"),
    ];
    for (name, address, pod_cidr) in rows {
        let node = plan.node(name).unwrap();
        assert_eq!(
            (node.addresses[0].to_string(), node.pod_cidrs[0].to_string()),
            (address.to_owned(), pod_cidr.to_owned()),
            "{name}"
        );
    }
}
