//! Problems of policies with invalid fields.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use portcullis_cluster::cluster_network_policy::{ClusterNetworkPolicyAction, ClusterNetworkPolicyPeer};
use portcullis_cluster::{Kind, Object};
use serde_json::{Value, json};

/// Returns the problems of a policy with this spec, as `field: value`, or the error if it cannot be parsed at all.
fn problems(kind: Kind, spec: &Value) -> Vec<String> {
    let value = json!({"metadata": {"name": "p", "namespace": "x"}, "spec": spec});
    match Object::parse(kind, value) {
        Ok(parsed) => parsed.problems.iter().map(|p| format!("{}: {}", p.field, p.value)).collect(),
        Err(error) => vec![format!("error {error}")],
    }
}

#[test]
fn network_policies_name_the_field_and_its_value() {
    let from = |peer: Value| json!({"ingress": [{}, {"from": [{"podSelector": {}}, peer]}]});
    let port = |port: Value| json!({"egress": [{"ports": [port]}]});
    let rows: &[(Value, &[&str])] = &[
        (json!({}), &[]),
        (json!(null), &[]),
        (
            json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}),
            &["spec.podSelector.matchExpressions[0].operator: Near"],
        ),
        (json!({"policyTypes": ["Ingress", "Sideways"]}), &["spec.policyTypes[1]: Sideways"]),
        (from(json!({})), &["spec.ingress[1].from[1]: {}"]),
        (
            from(json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}})),
            &["spec.ingress[1].from[1]: ipBlock with a selector"],
        ),
        (
            from(json!({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}})),
            &["spec.ingress[1].from[1].namespaceSelector.matchExpressions[0].values: []"],
        ),
        (
            json!({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0"}}]}]}),
            &["spec.egress[0].to[0].ipBlock.cidr: 10.0.0.0"],
        ),
        (
            json!({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8", "x"]}}]}]}),
            &["spec.egress[0].to[0].ipBlock.except[1]: x"],
        ),
        (json!({"egress": [{"from": [{"podSelector": {}}]}]}), &["spec.egress[0].from: from"]),
        (port(json!({"protocol": "tcp"})), &["spec.egress[0].ports[0].protocol: tcp"]),
        (port(json!({"port": 0})), &["spec.egress[0].ports[0].port: 0"]),
        (port(json!({"port": 65536})), &["spec.egress[0].ports[0].port: 65536"]),
        (port(json!({"port": "80"})), &["spec.egress[0].ports[0].port: 80"]),
        (port(json!({"port": 80, "endPort": 79})), &["spec.egress[0].ports[0].endPort: 79"]),
        (port(json!({"port": "web", "endPort": 90})), &["spec.egress[0].ports[0].endPort: 90"]),
        (port(json!({"endPort": 90})), &["spec.egress[0].ports[0].endPort: 90"]),
        (port(json!({"port": 80, "endPort": 80})), &[]),
        // The field has another type than in the API: the error is reported, and the last readable version is kept.
        (
            json!({"podSelector": []}),
            &["error NetworkPolicy x/p: field spec.podSelector: expected an object, found a list"],
        ),
        (
            json!({"ingress": [[]]}),
            &["error NetworkPolicy x/p: field spec.ingress[0]: expected an object, found a list"],
        ),
        (
            json!({"ingress": [{"from": ["x"]}]}),
            &["error NetworkPolicy x/p: field spec.ingress[0].from[0]: expected an object, found \"x\""],
        ),
        (
            json!({"ingress": [{"ports": [{"port": true}]}]}),
            &["error NetworkPolicy x/p: field spec.ingress[0].ports[0].port: expected a number or a name"],
        ),
    ];
    for (spec, expected) in rows {
        assert_eq!(&problems(Kind::NetworkPolicy, spec), expected, "{spec}");
    }
}

/// Returns the consequences of all problems of a policy with this spec.
fn consequences(kind: Kind, spec: &Value) -> Vec<String> {
    let value = json!({"metadata": {"name": "p", "namespace": "x"}, "spec": spec});
    let parsed = Object::parse(kind, value).unwrap();
    parsed.problems.iter().map(|problem| problem.consequence().to_owned()).collect()
}

#[test]
fn problems_of_network_policies_state_their_consequence() {
    let block = |block: Value| json!({"egress": [{"to": [{"ipBlock": block}]}]});
    const ENTRY: &str = "this entry allows nothing; the rest of the rule applies";
    const RULE: &str = "this rule allows nothing";
    const EXCEPTION: &str = "this exception has no effect; the rest of the block is allowed";
    let rows: &[(Value, &[&str])] = &[
        (
            json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}),
            &["the policy isolates every pod of its namespace and allows nothing"],
        ),
        (json!({"policyTypes": ["egress"]}), &["the policy isolates its pods in both directions"]),
        (json!({"ingress": [{"from": [{}, {"podSelector": {}}]}]}), &[ENTRY]),
        (json!({"ingress": [{"from": [{}]}]}), &[RULE]),
        (json!({"ingress": [{"ports": [{"port": 80}, {"port": 0}]}]}), &[ENTRY]),
        (json!({"ingress": [{"ports": [{"port": 0}]}]}), &[RULE]),
        (json!({"ingress": [{"from": [{"podSelector": {"matchLabels": {"": "a"}}}]}]}), &[RULE]),
        (block(json!({"cidr": "10.0.0.0"})), &[RULE]),
        (
            block(json!({"cidr": "10.0.0.0/8", "except": ["10.1.0.0"]})),
            &["the whole block 10.0.0.0/8 allows nothing"],
        ),
        (block(json!({"cidr": "10.0.0.0/8", "except": ["192.168.0.0/16"]})), &[EXCEPTION]),
        (block(json!({"cidr": "10.0.0.0/8", "except": ["fd00::/8"]})), &[EXCEPTION]),
        (
            block(json!({"cidr": "10.0.0.0/8", "except": ["0.0.0.0/0"]})),
            &["nothing of the block 10.0.0.0/8 is allowed"],
        ),
        (block(json!({"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8", "10.1.0.0/16"]})), &[]),
        (block(json!({"cidr": "::/0", "except": ["::ffff:0:0/96"]})), &[]),
        // Go parses these as IPv4 blocks.
        (block(json!({"cidr": "10.0.0.0/8", "except": ["::ffff:10.1.0.0/112"]})), &[]),
        (block(json!({"cidr": "10.0.0.0/8", "except": ["::ffff:10.1.0.0/16"]})), &[EXCEPTION]),
    ];
    for (spec, expected) in rows {
        assert_eq!(&consequences(Kind::NetworkPolicy, spec), expected, "{spec}");
    }
}

#[test]
fn problems_of_cluster_network_policies_state_their_consequence() {
    let with = |tier: &str, rule: Value| json!({"tier": tier, "priority": 1, "subject": {"namespaces": {}}, "egress": [rule]});
    let rule = |action: &str, networks: Value, protocols: Value| {
        with("Admin", json!({"action": action, "to": [{"networks": networks}], "protocols": protocols}))
    };
    let port = |number: u32| json!({"tcp": {"destinationPort": {"number": number}}});
    const POLICY: &str = "the policy has no effect: it selects no pod";
    let rows: &[(Value, &[&str])] = &[
        (with("Middle", json!({"action": "Deny", "to": [{"nodes": {}}]})), &[POLICY]),
        (with("Admin", json!({"action": "deny", "to": [{"nodes": {}}]})), &["this rule has no effect"]),
        (
            rule("Deny", json!(["10.0.0.0/8"]), json!([port(80), port(0)])),
            &["this entry has no effect; the rest of the Deny rule applies"],
        ),
        (rule("Deny", json!(["10.0.0.0/8"]), json!([port(0)])), &["this Deny rule has no effect"]),
        (
            rule("Deny", json!(["10.0.0.0/8", "x"]), json!([])),
            &["this entry has no effect; the rest of the Deny rule applies"],
        ),
        (rule("Accept", json!(["x"]), json!([])), &["this Accept rule has no effect"]),
        // The API server rejects IPv4-mapped blocks here.
        (rule("Deny", json!(["::ffff:10.0.0.0/104"]), json!([])), &["this Deny rule has no effect"]),
        (
            with("Admin", json!({"name": "a\nb", "action": "Deny", "to": [{"nodes": {}}]})),
            &["the rule applies without a name"],
        ),
    ];
    for (spec, expected) in rows {
        assert_eq!(&consequences(Kind::ClusterNetworkPolicy, spec), expected, "{spec}");
    }
}

#[test]
fn invalid_network_policy_never_isolates_less() {
    let read = |spec: Value| {
        let value = json!({"metadata": {"name": "p", "namespace": "x"}, "spec": spec});
        match Object::parse(Kind::NetworkPolicy, value).unwrap().object {
            Object::NetworkPolicy(policy) => policy,
            other => panic!("{other:?}"),
        }
    };
    let near = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
    let policy = read(json!({"podSelector": near, "ingress": [{}], "egress": [{}]}));
    assert!(policy.pod_selector.selects_all());
    assert_eq!((policy.ingress.as_deref(), policy.egress.as_deref()), (Some(&[][..]), Some(&[][..])));
    let policy = read(json!({"policyTypes": ["egress"], "ingress": [{}]}));
    assert_eq!(policy.ingress.map(|rules| rules.len()), Some(1));
    assert_eq!(policy.egress.map(|rules| rules.len()), Some(0));
}

#[test]
fn cluster_network_policies_name_the_field_and_its_value() {
    let with = |field: &str, value: Value| {
        let mut spec = json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}});
        spec[field] = value;
        spec
    };
    let from = |peer: Value| with("ingress", json!([{"action": "Deny", "from": [peer]}]));
    let to = |peer: Value| with("egress", json!([{"action": "Deny", "to": [peer]}]));
    let protocol = |protocol: Value| {
        with("egress", json!([{"action": "Deny", "to": [{"namespaces": {}}], "protocols": [protocol]}]))
    };
    let rows: &[(Value, &[&str])] = &[
        (with("tier", json!("Middle")), &["spec.tier: Middle"]),
        (with("priority", json!(1001)), &["spec.priority: 1001"]),
        (with("priority", json!(-1)), &["spec.priority: -1"]),
        (with("priority", json!(null)), &["spec.priority: "]),
        (with("subject", json!({})), &["spec.subject: neither"]),
        (with("subject", json!({"namespaces": {}, "pods": {"podSelector": {}}})), &["spec.subject: both"]),
        (with("subject", json!({"pods": {}})), &["spec.subject.pods.podSelector: "]),
        (
            with("subject", json!({"namespaces": {"matchExpressions": [{"key": "a", "operator": "?"}]}})),
            &["spec.subject.namespaces.matchExpressions[0].operator: ?"],
        ),
        (
            with("ingress", json!([{"action": "Allow", "from": [{"namespaces": {}}]}])),
            &["spec.ingress[0].action: Allow"],
        ),
        (with("ingress", json!([{"action": "Accept"}])), &["spec.ingress[0].from: []"]),
        (
            with("egress", json!([{"action": "Accept", "from": [{"namespaces": {}}]}])),
            &["spec.egress[0].to: []"],
        ),
        (from(json!({})), &["spec.ingress[0].from[0]: {}"]),
        (from(json!({"nodes": {}})), &["spec.ingress[0].from[0].nodes: nodes"]),
        (from(json!({"networks": ["10.0.0.0/8"]})), &["spec.ingress[0].from[0].networks: networks"]),
        (to(json!({"nodes": {}})), &[]),
        (to(json!({"nodes": {}, "namespaces": {}})), &["spec.egress[0].to[0]: namespaces and nodes"]),
        (to(json!({"domainNames": ["*.example.com"]})), &["spec.egress[0].to[0].domainNames: *.example.com"]),
        (to(json!({"networks": []})), &["spec.egress[0].to[0].networks: []"]),
        (to(json!({"networks": ["10.0.0.0/8", "x"]})), &["spec.egress[0].to[0].networks[1]: x"]),
        (protocol(json!({})), &["spec.egress[0].protocols[0]: {}"]),
        (protocol(json!({"icmp": {}})), &["spec.egress[0].protocols[0]: {}"]),
        (protocol(json!({"tcp": {}})), &["spec.egress[0].protocols[0].tcp.destinationPort: "]),
        (
            protocol(json!({"tcp": {"destinationPort": {"number": 0}}})),
            &["spec.egress[0].protocols[0].tcp.destinationPort.number: 0"],
        ),
        (
            protocol(json!({"udp": {"destinationPort": {"range": {"start": 9, "end": 8}}}})),
            &["spec.egress[0].protocols[0].udp.destinationPort.range: 9-8"],
        ),
        (
            protocol(json!({"sctp": {"destinationPort": {}}})),
            &["spec.egress[0].protocols[0].sctp.destinationPort: {}"],
        ),
        (
            protocol(json!({"destinationNamedPort": "Web"})),
            &["spec.egress[0].protocols[0].destinationNamedPort: Web"],
        ),
        (
            protocol(json!({"destinationNamedPort": "web", "tcp": {"destinationPort": {"number": 1}}})),
            &["spec.egress[0].protocols[0]: several of them"],
        ),
        (
            with("priority", json!("1")),
            &["error ClusterNetworkPolicy p: field spec.priority: invalid type: string \"1\", expected i64"],
        ),
    ];
    for (spec, expected) in rows {
        assert_eq!(&problems(Kind::ClusterNetworkPolicy, spec), expected, "{spec}");
    }
}

/// Returns the number of rules, and the consequence of the only problem, of a policy with this spec.
fn rules_and_consequence(kind: Kind, spec: Value) -> ([Option<usize>; 2], Option<String>) {
    let parsed =
        Object::parse(kind, json!({"metadata": {"name": "p", "namespace": "x"}, "spec": spec})).unwrap();
    assert!(parsed.problems.len() < 2, "{:?}", parsed.problems);
    let count = match &parsed.object {
        Object::NetworkPolicy(policy) => {
            [&policy.ingress, &policy.egress].map(|rules| rules.as_ref().map(|rules| rules.len()))
        }
        Object::ClusterNetworkPolicy(policy) => {
            [&policy.ingress, &policy.egress].map(|rules| Some(rules.len()))
        }
        object => panic!("{object:?}"),
    };
    (count, parsed.problems.first().map(ToString::to_string))
}

/// A policy above the limit allows nothing, and isolates its pods in the directions to which it applies.
#[test]
fn rules_of_a_network_policy_above_the_limit_are_not_read() {
    let many = |n: usize, value: fn(usize) -> Value| (0..n).map(value).collect::<Vec<_>>();
    let block =
        |n: usize| json!({"ipBlock": {"cidr": format!("10.{}.{}.{}/32", n >> 16, n >> 8 & 255, n & 255)}});
    let selector = |n: usize| json!({"podSelector": {"matchLabels": {"app": format!("a{n}")}}});
    let values = many(20_000, |n| json!(format!("v{n}")));
    let expression =
        json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": values}]}});
    let excepted = many(20_000, |n| json!(format!("10.0.{}.{}/32", n >> 8, n & 255)));
    let rows = [
        ("a rule", json!({"ingress": [{}]}), true),
        ("address ranges of a cloud", json!({"egress": [{"to": many(19_000, block)}]}), true),
        (
            "1,000 rules",
            json!({"ingress": vec![json!({"from": [selector(1)], "ports": [{"port": 80}]}); 900]}),
            true,
        ),
        ("2,000 rules", json!({"ingress": vec![json!({"from": [selector(1)]}); 2000]}), false),
        ("address blocks", json!({"ingress": [{"from": many(20_000, block)}]}), false),
        (
            "exceptions",
            json!({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": excepted}}]}]}),
            false,
        ),
        ("selectors", json!({"ingress": [{"from": many(2000, selector)}]}), false),
        ("values of a selector", json!({"ingress": [{"from": [expression]}]}), false),
        ("ports", json!({"ingress": [{"ports": many(20_000, |n| json!({"port": n + 1}))}]}), false),
        (
            "named ports",
            json!({"ingress": [{"ports": many(2000, |n| json!({"port": format!("p{n}")}))}]}),
            false,
        ),
        (
            "both directions",
            json!({"ingress": [{"from": many(10_000, block)}], "egress": [{"to": many(10_000, block)}]}),
            false,
        ),
    ];
    for (what, spec, is_read) in rows {
        let (rules, consequence) = rules_and_consequence(Kind::NetworkPolicy, spec.clone());
        let applies =
            ["ingress", "egress"].map(|direction| direction == "ingress" || spec.get(direction).is_some());
        assert_eq!(rules.map(|rules| rules.is_some()), applies, "{what}: the directions stay");
        let total: usize = rules.iter().flatten().sum();
        assert_eq!(total > 0, is_read, "{what}");
        let expected = "entries (rules, selectors, address blocks and ports); the policy isolates its pods and allows nothing";
        assert_eq!(
            consequence.as_ref().is_some_and(|text| text.ends_with(expected)),
            !is_read,
            "{what}: {consequence:?}"
        );
    }
}

#[test]
fn cluster_network_policy_above_the_limit_allows_nothing_that_it_might_deny() {
    let rule =
        |action: &str| json!({"action": action, "from": [{"namespaces": {"matchLabels": {"a": "b"}}}]});
    let spec = |action: &str, rules: usize| json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "ingress": vec![rule(action); rules]});
    for (action, rules, expected) in
        [("Deny", 900, 900), ("Deny", 1000, 1), ("Pass", 1000, 1), ("Accept", 1000, 0)]
    {
        let spec = spec(action, rules);
        let parsed =
            Object::parse(Kind::ClusterNetworkPolicy, json!({"metadata": {"name": "p"}, "spec": spec}))
                .unwrap();
        let Object::ClusterNetworkPolicy(policy) = parsed.object else { panic!("{:?}", parsed.object) };
        assert_eq!((policy.ingress.len(), policy.egress.len()), (expected, 0), "{action} × {rules}");
        assert_eq!(parsed.problems.len(), usize::from(rules == 1000), "{action} × {rules}");
        if expected == 1 {
            let rule = &policy.ingress[0];
            assert_eq!(rule.action, ClusterNetworkPolicyAction::Deny);
            let [ClusterNetworkPolicyPeer::Networks(nets)] = &*rule.peers else { panic!("{:?}", rule.peers) };
            assert!(rule.ports.is_none() && nets.iter().map(ToString::to_string).eq(["0.0.0.0/0", "::/0"]));
        }
    }
}
