//! Unexpected input is parsed or rejected, without a panic.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use portcullis_cluster::desired::Desired;
use portcullis_cluster::json_object::decode_object;
use portcullis_cluster::object::parse_text;
use portcullis_cluster::{Event, Index, Kind, Name, Object, manifest};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Names of fields in use, and typical values.
const WORDS: &[&str] = &[
    "metadata",
    "name",
    "namespace",
    "labels",
    "annotations",
    "deletionTimestamp",
    "spec",
    "status",
    "type",
    "clusterIP",
    "clusterIPs",
    "ports",
    "port",
    "protocol",
    "nodePort",
    "externalIPs",
    "loadBalancer",
    "ingress",
    "ip",
    "ipMode",
    "loadBalancerSourceRanges",
    "sessionAffinity",
    "sessionAffinityConfig",
    "clientIP",
    "timeoutSeconds",
    "internalTrafficPolicy",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "addressType",
    "endpoints",
    "addresses",
    "conditions",
    "ready",
    "serving",
    "terminating",
    "nodeName",
    "hints",
    "forZones",
    "forNodes",
    "kubernetes.io/service-name",
    "service.kubernetes.io/headless",
    "topology.kubernetes.io/zone",
    "endpoints.kubernetes.io/last-change-trigger-time",
    "podCIDR",
    "podCIDRs",
    "taints",
    "key",
    "address",
    "cidrs",
    "podSelector",
    "matchLabels",
    "matchExpressions",
    "operator",
    "values",
    "policyTypes",
    "from",
    "to",
    "ipBlock",
    "cidr",
    "except",
    "endPort",
    "namespaceSelector",
    "tier",
    "Admin",
    "priority",
    "subject",
    "namespaces",
    "pods",
    "action",
    "Deny",
    "nodes",
    "networks",
    "domainNames",
    "protocols",
    "tcp",
    "destinationPort",
    "number",
    "range",
    "destinationNamedPort",
    "creationTimestamp",
    "podIPs",
    "podIP",
    "phase",
    "hostNetwork",
    "containers",
    "",
    "web",
    "TCP",
    "UDP",
    "SCTP",
    "None",
    "ClientIP",
    "Local",
    "IPv4",
    "IPv6",
    "In",
    "Exists",
    "Ingress",
    "Egress",
    "InternalIP",
    "10.96.0.1",
    "10.0.0.0/8",
    "10.0.0.0/33",
    "fd00::1",
    "::ffff:1.2.3.4",
    "::/0",
    "2026-01-01T00:00:00Z",
    "99999999-99-99T99:99:99Z",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![8 => prop::sample::select(WORDS).prop_map(str::to_owned), 1 => any::<String>()]
}

fn anything() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        Just(json!(0)),
        Just(json!(80)),
        Just(json!(65_536)),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((word(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Returns an object with all fields in use.
fn whole(kind: Kind) -> Value {
    let metadata = json!({
        "name": "web", "namespace": "default",
        "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"kubernetes.io/service-name": "web", "topology.kubernetes.io/zone": "z"},
        "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"},
    });
    let selector = json!({
        "matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}],
    });
    let mut value = match kind {
        Kind::Service => json!({
            "spec": {
                "type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
                "ports": [{"name": "a", "port": 80, "protocol": "TCP", "nodePort": 30080}],
                "externalIPs": ["192.0.2.1"], "loadBalancerSourceRanges": ["192.0.2.0/24"],
                "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}},
                "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000,
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1", "ipMode": "VIP"}]}},
        }),
        Kind::EndpointSlice => json!({
            "addressType": "IPv4", "ports": [{"name": "a", "port": 80, "protocol": "TCP"}],
            "endpoints": [{
                "addresses": ["10.244.1.10"], "nodeName": "node-a",
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "hints": {"forZones": [{"name": "z"}], "forNodes": [{"name": "node-a"}]},
            }],
        }),
        Kind::Node => json!({
            "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"], "taints": [{"key": "k"}]},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.168.10.11"}]},
        }),
        Kind::ServiceCidr => json!({"spec": {"cidrs": ["10.96.0.0/12"]}}),
        Kind::Namespace => json!({}),
        Kind::Pod => json!({
            "spec": {"nodeName": "node-a", "hostNetwork": false, "containers": [{"ports": [{"name": "a", "containerPort": 80}]}]},
            "status": {"phase": "Running", "podIP": "10.244.1.10", "podIPs": [{"ip": "10.244.1.10"}]},
        }),
        Kind::NetworkPolicy => json!({
            "spec": {
                "podSelector": selector, "policyTypes": ["Ingress", "Egress"],
                "ingress": [{
                    "from": [{"podSelector": selector, "namespaceSelector": selector}],
                    "ports": [{"port": 80, "endPort": 90, "protocol": "TCP"}, {"port": "http"}],
                }],
                "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}],
            },
        }),
        Kind::ClusterNetworkPolicy => json!({
            "spec": {
                "tier": "Admin", "priority": 10,
                "subject": {"pods": {"namespaceSelector": selector, "podSelector": selector}},
                "ingress": [{
                    "name": "web", "action": "Accept", "from": [{"namespaces": selector}],
                    "protocols": [
                        {"tcp": {"destinationPort": {"number": 80}}},
                        {"udp": {"destinationPort": {"range": {"start": 53, "end": 54}}}},
                        {"destinationNamedPort": "web"},
                    ],
                }],
                "egress": [{
                    "action": "Deny", "to": [{"nodes": selector}, {"networks": ["10.0.0.0/8", "fd00::/8"]}],
                }],
            },
        }),
    };
    value["metadata"] = metadata;
    value
}

/// Returns the number of values inside a value.
fn places(value: &mut Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter_mut().map(places).sum(),
        Value::Object(fields) => fields.values_mut().map(places).sum(),
        _ => 0,
    }
}

fn replace(value: &mut Value, at: &mut usize, by: &Value) {
    if *at == 0 {
        *value = by.clone();
    }
    *at = at.wrapping_sub(1);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, at, by)),
        Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, at, by)),
        _ => {}
    }
}

/// Parses a value as a kind, as a value and as text, and resolves the result.
fn read(kind: Kind, value: Value) {
    let mut index = Index::new();
    let from_text = parse_text(kind, value.to_string().as_bytes());
    let parsed = Object::parse(kind, value);
    assert!(from_text.is_none() || from_text == parsed.clone().ok(), "{kind}: {from_text:?} {parsed:?}");
    match parsed {
        Ok(parsed) => {
            parsed.problems.iter().for_each(|problem| assert!(!problem.to_string().is_empty()));
            index.handle(Event::Applied(parsed.object));
            Desired::from_index(&index, Name::new("node-a"));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

#[test]
fn complete_objects_are_parsed_without_problems() {
    for kind in Kind::ALL {
        let parsed = Object::parse(kind, whole(kind)).unwrap();
        assert_eq!(parsed.problems, [], "{kind}");
        assert_eq!(parse_text(kind, whole(kind).to_string().as_bytes()), Some(parsed), "{kind}");
    }
}

#[test]
fn fields_that_are_not_in_use_are_not_decoded() {
    let deep = "[".repeat(200) + &"]".repeat(200);
    // Metadata, other fields, and whether the text is parsed.
    let rows = [
        (format!(r#","managedFields":{deep}"#), r#","spec":{}"#.to_owned(), true),
        (String::new(), format!(r#","spec":{{"unknown":{deep}}},"other":1e999"#), true),
        (String::new(), format!(r#","spec":{deep}"#), false),
        (String::new(), r#","spec":[]"#.to_owned(), false),
        (r#","labels":[]"#.to_owned(), String::new(), false),
        (r#","name":"b""#.to_owned(), String::new(), false),
        (r#","namespace":"two\nlines""#.to_owned(), String::new(), false),
        (String::new(), "} {".to_owned(), false),
        (String::new(), ",".to_owned(), false),
    ];
    for (metadata, fields, is_parsed) in rows {
        let text = format!(r#"{{"metadata":{{"name":"a"{metadata}}}{fields}}}"#);
        let parsed = parse_text(Kind::Pod, text.as_bytes());
        assert_eq!(parsed.is_some(), is_parsed, "{text}");
        if let (Some(parsed), Ok(value)) = (parsed, decode_object(&text)) {
            assert_eq!(Object::parse(Kind::Pod, value), Ok(parsed), "{text}");
        }
    }
    assert_eq!(parse_text(Kind::Pod, br#"{"metadata":{"name":""}}"#), None);
    // Not UTF-8: in a field that is in use, and in another one.
    assert_eq!(parse_text(Kind::Pod, b"{\"metadata\":{\"name\":\"\xff\"}}"), None);
    assert!(parse_text(Kind::Pod, b"{\"metadata\":{\"name\":\"a\"},\"other\":\"\xff\"}").is_some());
}

#[test]
fn load_balancer_addresses_of_another_family_are_not_a_problem() {
    let service = json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}, {"ip": "2001:db8::1"}, {"ip": "x"}]}},
    });
    let parsed = Object::parse(Kind::Service, service).unwrap();
    let fields: Vec<&str> = parsed.problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["status.loadBalancer.ingress[2]"]);
    let Object::Service(service) = parsed.object else { panic!("it is a Service") };
    assert_eq!(*service.load_balancer_vips, ["203.0.113.1".parse::<std::net::IpAddr>().unwrap()]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4 * ProptestConfig::default().cases))]

    #[test]
    fn any_json_is_parsed_or_rejected(value in anything(), named in any::<bool>()) {
        for kind in Kind::ALL {
            let mut value = value.clone();
            if let (true, Some(fields)) = (named, value.as_object_mut()) {
                fields.insert("metadata".into(), json!({"name": "web"}));
            }
            read(kind, value);
        }
    }

    #[test]
    fn objects_with_replaced_values_are_parsed_or_rejected(
        kind in prop::sample::select(Kind::ALL.to_vec()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), anything()), 1..4),
    ) {
        let mut value = whole(kind);
        for (at, by) in changes {
            let mut at = at.index(places(&mut value));
            replace(&mut value, &mut at, &by);
        }
        read(kind, value);
    }

    #[test]
    fn any_text_is_parsed_or_rejected_as_a_manifest(
        text in prop_oneof![any::<String>(), "[-a: \\[\\]{}\"'#&*!|>%@\n\t0.,]{0,80}"],
        file in prop_oneof![Just("a.yaml"), Just("a.json")],
    ) {
        for document in manifest::parse(file, &text) {
            if let Err(error) = document {
                prop_assert!(error.line >= 1);
            }
        }
    }

    #[test]
    fn truncated_manifests_are_parsed_or_rejected(
        kind in prop::sample::select(Kind::ALL.to_vec()),
        cut in any::<(prop::sample::Index, prop::sample::Index)>(),
        by in "[-a: \\[\\]{}\"'\n0]{0,4}",
    ) {
        let mut value = whole(kind);
        value["kind"] = kind.as_str().into();
        value["apiVersion"] = kind.api_version().into();
        let text = serde_json::to_string_pretty(&value).unwrap();
        let (a, b) = (cut.0.index(text.len()), cut.1.index(text.len()));
        let text = format!("{}{by}{}", &text[..a.min(b)], &text[a.max(b)..]);
        for file in ["a.yaml", "a.json"] {
            for document in manifest::parse(file, &text).flatten() {
                if let Some(kind) = document.kind {
                    read(kind, document.value);
                }
            }
        }
    }
}
