//! Defaults of the API server: an object in a manifest is parsed like the object that the API server stores.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use portcullis_cluster::object::ParsedObject;
use portcullis_cluster::{Kind, Object, manifest};

/// Description, the object as written, and the object as the API server stores it. Sources: the defaulting and
/// conversion functions of `k8s.io/kubernetes/pkg/apis/{core,discovery,networking}/v1` as of v1.36.
const ROWS: &[(&str, &str, &str)] = &[
    (
        "Namespace: kubernetes.io/metadata.name",
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {a: b}}}",
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {a: b, kubernetes.io/metadata.name: shop}}}",
    ),
    (
        "Namespace: the label of another name is overwritten",
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {kubernetes.io/metadata.name: other}}}",
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {kubernetes.io/metadata.name: shop}}}",
    ),
    (
        "Namespace: labels that are null",
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: }}",
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {kubernetes.io/metadata.name: shop}}}",
    ),
    (
        "Service: namespace, type, protocol, targetPort, session affinity, traffic policies",
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}}",
        "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: default}, spec: {type: ClusterIP, \
          clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, \
          ports: [{port: 80, targetPort: 80, protocol: TCP}], sessionAffinity: None, internalTrafficPolicy: Cluster}}",
    ),
    (
        "Service: empty strings and zeros are treated as omitted",
        "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: ''}, spec: {type: '', clusterIP: 10.0.0.1, \
          ports: [{name: '', port: 80, protocol: '', nodePort: 0}], sessionAffinity: '', loadBalancerIP: '', \
          externalTrafficPolicy: '', internalTrafficPolicy: '', healthCheckNodePort: 0}}",
        "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: default}, spec: {type: ClusterIP, \
          clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ports: [{port: 80, protocol: TCP}], sessionAffinity: None}}",
    ),
    (
        "Service: the timeout of session affinity",
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: 10.0.0.1, sessionAffinity: ClientIP}}",
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: 10.0.0.1, sessionAffinity: ClientIP, \
          sessionAffinityConfig: {clientIP: {timeoutSeconds: 10800}}}}",
    ),
    (
        "Service: external traffic policy, ipMode, node ports of a load balancer",
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {type: LoadBalancer, clusterIP: 10.0.0.1, \
          ports: [{port: 80, nodePort: 30080}]}, status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}}",
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {type: LoadBalancer, clusterIP: 10.0.0.1, \
          externalTrafficPolicy: Cluster, allocateLoadBalancerNodePorts: true, \
          ports: [{port: 80, nodePort: 30080, protocol: TCP}]}, \
          status: {loadBalancer: {ingress: [{ip: 192.0.2.1, ipMode: VIP}]}}}",
    ),
    (
        "EndpointSlice: name and protocol of ports, conditions",
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
          metadata: {name: a-1, labels: {kubernetes.io/service-name: a}}, ports: [{port: 80}], \
          endpoints: [{addresses: [10.1.0.1]}]}",
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
          metadata: {name: a-1, namespace: default, labels: {kubernetes.io/service-name: a}}, \
          ports: [{name: '', port: 80, protocol: TCP}], \
          endpoints: [{addresses: [10.1.0.1], conditions: {ready: true, serving: true, terminating: false}}]}",
    ),
    (
        "NetworkPolicy: policyTypes of ingress rules, protocol of ports",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, \
          spec: {ingress: [{ports: [{port: 80}]}]}}",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: default}, \
          spec: {podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: 80, protocol: TCP}]}]}}",
    ),
    (
        "NetworkPolicy: policyTypes with an egress rule",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, \
          spec: {podSelector: , policyTypes: , egress: [{}]}}",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: default}, \
          spec: {podSelector: {}, policyTypes: [Ingress, Egress], egress: [{}]}}",
    ),
    (
        "NetworkPolicy: a label that is null in a selector is the empty string",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, \
          spec: {podSelector: {matchLabels: {web: }}}}",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, \
          spec: {podSelector: {matchLabels: {web: ''}}, policyTypes: [Ingress]}}",
    ),
    (
        "Pod: labels that are null, protocol and name of ports, host network",
        "{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {web: }}, spec: {containers: [{ports: \
          [{name: http, containerPort: 80}, {name: dns, containerPort: 53, protocol: ''}, {name: '', containerPort: 9}]}]}, \
          status: {podIP: 10.1.0.1}}",
        "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: default, labels: {web: ''}}, \
          spec: {hostNetwork: false, containers: [{ports: [{name: http, containerPort: 80, protocol: TCP}, \
          {name: dns, containerPort: 53, protocol: TCP}, {containerPort: 9, protocol: TCP}]}]}, \
          status: {phase: Pending, podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}]}}",
    ),
    (
        "Node: podCIDRs of podCIDR",
        "{apiVersion: v1, kind: Node, metadata: {name: node-1, labels: {node-role.kubernetes.io/control-plane: }}, \
          spec: {podCIDR: 10.1.0.0/24}}",
        "{apiVersion: v1, kind: Node, metadata: {name: node-1, labels: {node-role.kubernetes.io/control-plane: ''}}, \
          spec: {podCIDR: 10.1.0.0/24, podCIDRs: [10.1.0.0/24]}}",
    ),
    (
        "ClusterNetworkPolicy: a label that is null in a selector",
        "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: c}, \
          spec: {tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {a: }}}, \
          ingress: [{action: Deny, from: [{namespaces: {}}]}]}}",
        "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: c}, \
          spec: {tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {a: ''}}}, \
          ingress: [{action: Deny, from: [{namespaces: {}}]}]}}",
    ),
];

fn read(about: &str, text: &str) -> ParsedObject {
    let document = manifest::parse("row.yaml", text).next().unwrap();
    let document = document.unwrap_or_else(|error| panic!("{about}: {error}"));
    let kind: Kind = document.kind.unwrap();
    Object::parse(kind, document.value).unwrap_or_else(|error| panic!("{about}: {error}"))
}

#[test]
fn object_of_a_manifest_is_parsed_like_the_stored_object() {
    for (about, written, stored) in ROWS {
        let (written, stored) = (read(about, written), read(about, stored));
        assert_eq!(stored.problems, [], "{about}: as stored");
        assert_eq!(written, stored, "{about}");
    }
}

#[test]
fn slice_without_a_known_address_type_is_reported() {
    let slice = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: a-1}}";
    let problems = read("no addressType", slice).problems;
    assert_eq!(problems.iter().map(|problem| &*problem.field).collect::<Vec<_>>(), ["addressType"]);
}
