//! Random clusters, reproducible by seed.

use std::fmt::Write;

/// SplitMix64; the sequence of a seed does not depend on the machine or on versions of libraries.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Returns true with a probability of `percent` percent.
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

/// Number of pods with a network namespace of their own.
const PODS: usize = 5;
const NAMESPACES: [&str; 2] = ["a", "b"];
const APPS: [&str; 2] = ["web", "db"];

/// Returns the manifests of a cluster of two nodes.
pub(super) fn manifests(random: &mut Random, with_policies: bool) -> String {
    let mut text = String::new();
    for node in 1..=2 {
        add(
            &mut text,
            &format!(
                "{{apiVersion: v1, kind: Node, metadata: {{name: node-{node}, labels: {{topology.kubernetes.io/zone: \
                 z{node}}}}}, spec: {{podCIDRs: [10.244.{node}.0/24, 'fd00:10:244:{node}::/64']}}}}"
            ),
        );
    }
    for name in NAMESPACES {
        let labels = format!("kubernetes.io/metadata.name: {name}");
        add(
            &mut text,
            &format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{{labels}}}}}}}"),
        );
    }
    let pods: Vec<Pod> = (0..PODS).map(|n| pod(random, n)).collect();
    pods.iter().for_each(|pod| add(&mut text, &pod.manifest()));
    add(
        &mut text,
        "{apiVersion: v1, kind: Pod, metadata: {name: host, namespace: a}, spec: {nodeName: node-1, hostNetwork: true}}",
    );
    for n in 0..2 + random.below(3) {
        service(random, n, &pods, &mut text);
    }
    if with_policies {
        (0..random.below(4)).for_each(|n| add(&mut text, &network_policy(random, n)));
        (0..random.below(3)).for_each(|n| add(&mut text, &cluster_network_policy(random, n)));
    }
    text
}

fn add(text: &mut String, document: &str) {
    writeln!(text, "---\n{document}").unwrap();
}

struct Pod {
    number: usize,
    namespace: &'static str,
    app: &'static str,
    node: usize,
    http: u16,
}

fn pod(random: &mut Random, n: usize) -> Pod {
    Pod {
        number: n + 1,
        namespace: random.pick(&NAMESPACES),
        app: random.pick(&APPS),
        node: 1 + random.below(2),
        http: if random.chance(75) { 8080 } else { 8081 },
    }
}

impl Pod {
    fn addresses(&self) -> [String; 2] {
        let (node, host) = (self.node, 20 + self.number);
        [format!("10.244.{node}.{host}"), format!("fd00:10:244:{node}::{host}")]
    }

    fn manifest(&self) -> String {
        let Pod { number, namespace, app, node, http } = self;
        let [v4, v6] = self.addresses();
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: p{number}, namespace: {namespace}, labels: {{app: {app}, \
             topology.kubernetes.io/zone: z{node}}}}}, spec: {{nodeName: node-{node}, containers: [{{name: c, ports: \
             [{{name: http, containerPort: {http}}}, {{name: admin, containerPort: 9090}}, {{name: dns, containerPort: \
             5353, protocol: UDP}}]}}]}}, status: {{phase: Running, podIPs: [{{ip: {v4}}}, {{ip: '{v6}'}}]}}}}"
        )
    }
}

/// Adds a Service, and its EndpointSlice if it has no selector.
fn service(random: &mut Random, n: usize, pods: &[Pod], text: &mut String) {
    let (namespace, app) = (random.pick(&NAMESPACES), random.pick(&APPS));
    let kind = random.pick(&["ClusterIP", "NodePort", "NodePort", "LoadBalancer", "LoadBalancer"]);
    let mut spec = format!("type: {kind}");
    let mut option = |random: &mut Random, percent: usize, option: &str| {
        if random.chance(percent) {
            spec.push_str(&format!(", {option}"));
        }
    };
    option(random, 25, "internalTrafficPolicy: Local");
    option(random, 20, "sessionAffinity: ClientIP");
    option(random, 30, "ipFamilyPolicy: PreferDualStack");
    option(random, 25, &format!("externalIPs: [192.0.2.{}]", n + 1));
    if kind != "ClusterIP" {
        option(random, 40, "externalTrafficPolicy: Local");
    }
    if kind == "LoadBalancer" {
        let ranges = random.pick(&["198.51.100.0/24", "10.244.1.0/24", "192.168.77.0/24", "203.0.113.77/32"]);
        option(random, 40, &format!("loadBalancerSourceRanges: [{ranges}]"));
    }
    let target = random.pick(&["8080", "http", "http", "9090"]);
    let by_hand = random.chance(40);
    let selector = if by_hand { String::new() } else { format!(", selector: {{app: {app}}}") };
    add(
        text,
        &format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: s{n}, namespace: {namespace}}}, spec: {{{spec}{selector}, \
             ports: [{{name: http, port: 80, targetPort: {target}}}, {{name: dns, port: 53, protocol: UDP, targetPort: \
             dns}}]}}}}"
        ),
    );
    if by_hand {
        slice(random, n, namespace, pods, text);
    }
}

/// Adds a slice with endpoints in all states, some of them twice, and sometimes with a port of another name.
fn slice(random: &mut Random, n: usize, namespace: &str, pods: &[Pod], text: &mut String) {
    const STATES: [&str; 6] = [
        "ready: true, serving: true, terminating: false",
        "ready: true, serving: true, terminating: false",
        "ready: true",
        "ready: false, serving: true, terminating: true",
        "ready: false, serving: false, terminating: true",
        "ready: false, serving: false, terminating: false",
    ];
    let mut endpoints = Vec::new();
    for _ in 0..random.below(5) {
        let pod = &pods[random.below(pods.len())];
        // A ghost is an old endpoint of the pod that had the address before, on the other node.
        let ghost = random.chance(30);
        for (node, state) in
            [(3 - pod.node, ghost.then_some(STATES[4])), (pod.node, Some(STATES[random.below(STATES.len())]))]
        {
            endpoints.extend(state.map(|state| {
                format!(
                    "{{addresses: [{}], nodeName: node-{node}, conditions: {{{state}}}}}",
                    pod.addresses()[0]
                )
            }));
        }
    }
    let name = if random.chance(15) { "web" } else { "http" };
    let port = random.pick(&["9090", "8080"]);
    add(
        text,
        &format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: s{n}-1, namespace: {namespace}, \
             labels: {{kubernetes.io/service-name: s{n}}}}}, addressType: IPv4, ports: [{{name: {name}, port: {port}, \
             protocol: TCP}}], endpoints: [{}]}}",
            endpoints.join(", ")
        ),
    );
}

fn network_policy(random: &mut Random, n: usize) -> String {
    let namespace = random.pick(&NAMESPACES);
    let selector = random.pick(&["{}", "{matchLabels: {app: web}}", "{matchLabels: {app: db}}"]);
    let types = random.pick(&["[Ingress]", "[Ingress]", "[Egress]", "[Ingress, Egress]"]);
    let mut spec = format!("podSelector: {selector}, policyTypes: {types}");
    for (kind, field, peers) in [("Ingress", "ingress", "from"), ("Egress", "egress", "to")] {
        if types.contains(kind) {
            let rules: Vec<String> = (0..random.below(3)).map(|_| rule(random, peers)).collect();
            spec.push_str(&format!(", {field}: [{}]", rules.join(", ")));
        }
    }
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: n{n}, namespace: {namespace}}}, spec: \
         {{{spec}}}}}"
    )
}

fn rule(random: &mut Random, peers: &str) -> String {
    const PEERS: [&str; 7] = [
        "{podSelector: {matchLabels: {app: web}}}",
        "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: a}}}",
        "{namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}",
        "{ipBlock: {cidr: 10.244.0.0/16, except: [10.244.2.0/24]}}",
        "{ipBlock: {cidr: 198.51.100.0/24}}",
        "{ipBlock: {cidr: 192.168.77.0/24}}",
        "{ipBlock: {cidr: 'fd00:10:244::/48'}}",
    ];
    const PORTS: [&str; 6] = [
        "{port: 8080}",
        "{port: http}",
        "{port: 9090, protocol: TCP}",
        "{port: 8080, endPort: 8081}",
        "{port: dns, protocol: UDP}",
        "{protocol: UDP}",
    ];
    let list = |random: &mut Random, of: &[&'static str]| {
        let picked: Vec<&str> = (0..random.below(3)).map(|_| random.pick(of)).collect();
        picked.join(", ")
    };
    let mut parts = Vec::new();
    let to = list(random, &PEERS);
    if !to.is_empty() {
        parts.push(format!("{peers}: [{to}]"));
    }
    let ports = list(random, &PORTS);
    if !ports.is_empty() {
        parts.push(format!("ports: [{ports}]"));
    }
    format!("{{{}}}", parts.join(", "))
}

fn cluster_network_policy(random: &mut Random, n: usize) -> String {
    let tier = random.pick(&["Admin", "Baseline"]);
    let subject = random.pick(&[
        "namespaces: {}",
        "namespaces: {matchLabels: {kubernetes.io/metadata.name: a}}",
        "pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}",
    ]);
    let action = |random: &mut Random| match tier {
        "Admin" => random.pick(&["Accept", "Deny", "Pass"]),
        _ => random.pick(&["Accept", "Deny"]),
    };
    let inside = [
        "namespaces: {}",
        "namespaces: {matchLabels: {kubernetes.io/metadata.name: b}}",
        "pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}",
    ];
    let outside = [inside[0], inside[2], "nodes: {}", "networks: [10.244.0.0/16]", "networks: [0.0.0.0/0]"];
    let mut spec = format!("tier: {tier}, priority: {}, subject: {{{subject}}}", 10 + n);
    for (field, peers, of) in [("ingress", "from", &inside[..]), ("egress", "to", &outside[..])] {
        if random.chance(60) {
            let (action, peer) = (action(random), random.pick(of));
            spec.push_str(&format!(", {field}: [{{action: {action}, {peers}: [{{{peer}}}]}}]"));
        }
    }
    format!(
        "{{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {{name: c{n}}}, spec: \
         {{{spec}}}}}"
    )
}
