//! The policy fixtures, traced through the rendered tables: every cell and every flow is a packet that passes the rules of
//! its nodes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/addresses.rs"]
mod addresses;
mod corpus;

use std::net::IpAddr;

use addresses::{address, endpoints};
use corpus::{Case, End, Flow, Verdict};
use libtest_mimic::{Arguments, Trial};
use portcullis_cluster::{Event, Family, Index, Kind, Name, NamespacedName, Object, ObjectKey, Protocol};
use portcullis_netlink::nf_tables::{Fate, Hook, Packet};
use portcullis_policy::compile::{DirtyPolicyObjects, PolicyChanges};
use portcullis_policy::table::{DropLog, ObservedDrop, PolicyOptions, PolicyTable, UnknownPods, differences};
use portcullis_policy::{Compiler, Scope};
use serde_json::Value;

const NODES: [&str; 2] = ["node-1", "node-2"];

/// One test for each case.
fn main() {
    let mut trials = vec![Trial::test("node_address_in_the_pod_cidrs_is_not_an_unknown_pod", || {
        node_address_in_the_pod_cidrs_is_not_an_unknown_pod();
        Ok(())
    })];
    for folder in [corpus::NETWORK_POLICY, corpus::CLUSTER_NETWORK_POLICY] {
        trials.extend(corpus::case_names(folder).into_iter().map(|name| {
            Trial::test(format!("{folder}::{name}"), move || {
                check_case(&corpus::cluster(folder), &corpus::case(folder, &name));
                Ok(())
            })
        }));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Packets to an address of the node in the pod CIDRs, such as that of its bridge.
fn node_address_in_the_pod_cidrs_is_not_an_unknown_pod() {
    let ranges = vec!["10.244.1.0/24".parse().unwrap(), "fd00:10:244:1::/64".parse().unwrap()];
    let options = PolicyOptions { unknown_pods: UnknownPods::Deny { ranges }, ..PolicyOptions::default() };
    let objects = [
        r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}"#,
        r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "g", "labels": {"tenant": "g"}}}"#,
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "g"}, "spec": {"nodeName": "node-1"},
            "status": {"podIPs": [{"ip": "10.244.1.5"}, {"ip": "fd00:10:244:1::5"}]}}"#,
        r#"{"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "open"},
            "spec": {"tier": "Admin", "priority": 10, "subject": {"namespaces": {"matchLabels": {"tenant": "g"}}},
              "egress": [{"action": "Accept", "to": [{"networks": ["0.0.0.0/0", "::/0"]}]}]}}"#,
    ];
    let mut index = Index::new();
    for object in objects {
        let value: Value = serde_json::from_str(object).unwrap();
        let kind =
            Kind::from_api(value["apiVersion"].as_str().unwrap(), value["kind"].as_str().unwrap()).unwrap();
        index.handle(Event::Applied(Object::parse(kind, value).unwrap().object));
    }
    let compiler = Compiler::from_index(Scope::Node(Name::new("node-1")), &index);
    let rows = [
        ("its own node's gateway address", "10.244.1.5", "10.244.1.1", true, Hook::Input, Fate::Accepted),
        ("the same by IPv6", "fd00:10:244:1::5", "fd00:10:244:1::1", true, Hook::Input, Fate::Accepted),
        ("an unknown pod", "10.244.1.5", "10.244.1.9", false, Hook::Postrouting, Fate::Dropped),
        (
            "an unknown pod by IPv6",
            "fd00:10:244:1::5",
            "fd00:10:244:1::9",
            false,
            Hook::Postrouting,
            Fate::Dropped,
        ),
        ("a pod elsewhere", "10.244.1.5", "10.244.2.9", false, Hook::Postrouting, Fate::Accepted),
    ];
    for audit in [false, true] {
        let table =
            PolicyTable::from_compiled(PolicyOptions { audit, ..options.clone() }, compiler.compiled());
        for (what, from, to, local, hook, fate) in &rows {
            let packet = Packet::new(from.parse().unwrap(), to.parse().unwrap(), 6, 80);
            let packet = Packet { destination_is_local: *local, ..packet };
            let trace = table.table().desired().trace(*hook, &packet, &mut |_| 0);
            let expected = if audit { &Fate::Accepted } else { fate };
            assert_eq!(trace.fate, *expected, "{what}, audit: {audit}");
            let counted = trace.counters.iter().any(|counter| &**counter == "unknown-pods");
            assert_eq!(
                counted,
                *fate == Fate::Dropped,
                "{what} is counted where it is dropped, audit: {audit}"
            );
        }
    }
}

/// A node with its incrementally updated tables.
struct Node {
    name: &'static str,
    compiler: Compiler,
    table: PolicyTable,
    /// The same in audit mode.
    audit: PolicyTable,
    /// The same without a log group, while an observer is connected.
    observed: PolicyTable,
}

impl Node {
    fn new(name: &'static str) -> Self {
        let log = Some(DropLog { group: 7, rate: 10 });
        let options = PolicyOptions { log, ..PolicyOptions::default() };
        let audit = PolicyTable::new(PolicyOptions { audit: true, ..options.clone() });
        let compiler = Compiler::new(Scope::Node(Name::new(name)));
        let observed =
            PolicyTable::new(PolicyOptions { log: None, observed: Some(9), ..PolicyOptions::default() });
        Node { name, compiler, table: PolicyTable::new(options), audit, observed }
    }

    fn update(&mut self, index: &Index, touched: &DirtyPolicyObjects) {
        let changes = self.compiler.update(index, touched);
        let compiled = self.compiler.compiled();
        for table in [&mut self.table, &mut self.audit, &mut self.observed] {
            table.apply(&changes, compiled);
            let mut scratch = PolicyTable::new(table.options().clone());
            scratch.apply(&PolicyChanges::all(compiled), compiled);
            let (updated, scratch) = (table.table().desired(), scratch.table().desired());
            assert!(updated == scratch, "{}: {updated}\nfrom scratch {scratch}", self.name);
        }
        let unobserved = PolicyTable::from_compiled(PolicyOptions::default(), compiled);
        let observed = self.observed.table().desired();
        assert_eq!(differences(unobserved.table().desired(), Some(observed), &[]), [], "{}", self.name);
    }
}

/// Traces a packet on one node. Returns the direction for which it is dropped, if it is.
fn dropped(node: &Node, hook: Hook, packet: &Packet) -> Option<&'static str> {
    let mut none = |_| 0;
    let trace = node.table.table().desired().trace(hook, packet, &mut none);
    let audited = node.audit.table().desired().trace(hook, packet, &mut none);
    assert_eq!(audited.fate, Fate::Accepted, "an audit drops nothing");
    let observed = node.observed.table().desired().trace(hook, packet, &mut none);
    assert_eq!(observed.fate, trace.fate, "an observer changes no decision");
    assert_eq!(observed.counters, trace.counters, "nor counters");
    let observed_drop = observed.log_prefixes.first().map(|prefix| prefix.to_string());
    let counted = trace.counters.last().map(|counter| node.table.labels()[counter].clone());
    let log_prefix = |logged: &[std::sync::Arc<str>]| logged.first().map(|prefix| prefix.to_string());
    match trace.fate {
        Fate::Accepted => {
            assert_eq!(observed_drop, None, "accepted packets are not logged");
            assert_eq!(counted, None, "accepted packets are not counted");
            assert_eq!(audited.counters, [], "an audit does not count accepted packets");
            None
        }
        Fate::Dropped => {
            let label = counted.expect("dropped packets are counted");
            let observed_drop = observed_drop.expect("dropped packets are observed");
            let observed_drop =
                ObservedDrop::parse(&observed_drop).expect("the prefix is that of an observer");
            assert_eq!(observed_drop.counter, &**trace.counters.last().unwrap());
            assert!(!observed_drop.is_audit);
            if let Some(direction) = observed_drop.direction.filter(|_| !label.direction.is_empty()) {
                assert_eq!(direction.as_str(), label.direction);
            }
            let prefix = log_prefix(&trace.log_prefixes).expect("dropped packets are logged");
            assert!(prefix.starts_with(&format!("drop {}", label.direction)), "{prefix}");
            assert_eq!(
                log_prefix(&audited.log_prefixes),
                Some(format!("would {prefix}").chars().take(127).collect())
            );
            assert!(audited.counters.contains(trace.counters.last().unwrap()));
            Some(label.direction)
        }
        Fate::Rejected(_) => panic!("policies drop packets and never reject them"),
    }
}

struct Cluster {
    index: Index,
    dirty: DirtyPolicyObjects,
    nodes: [Node; 2],
}

impl Cluster {
    fn new() -> Self {
        Cluster { index: Index::new(), dirty: DirtyPolicyObjects::default(), nodes: NODES.map(Node::new) }
    }

    fn apply(&mut self, value: &Value) {
        let text = |field: &str| value[field].as_str().unwrap_or_default();
        let kind = Kind::from_api(text("apiVersion"), text("kind")).expect("a kind that we use");
        let object = Object::parse(kind, value.clone()).expect("an object").object;
        self.dirty.extend(self.index.handle(Event::Applied(object)));
    }

    fn update(&mut self) {
        let touched = std::mem::take(&mut self.dirty);
        self.nodes.iter_mut().for_each(|node| node.update(&self.index, &touched));
    }

    /// Returns the node of a pod's or node's address.
    fn node_of(&self, of: IpAddr) -> Option<&Node> {
        self.nodes.iter().find(|node| {
            let own = self.index.node(&Name::new(node.name));
            node.compiler.compiled().pod_at(of).is_some() || own.is_some_and(|n| n.ips().any(|ip| ip == of))
        })
    }

    fn is_node(&self, address: IpAddr) -> bool {
        self.index.nodes().any(|node| node.ips().any(|ip| ip == address))
    }

    /// Returns the character of a cell: the directions in which a connection is denied.
    fn character(&self, from: IpAddr, to: IpAddr, port: u16, protocol: Protocol) -> char {
        let mut packet = Packet::new(from, to, protocol.number(), port);
        let [first, last] = [from, to].map(|end| self.node_of(end).map(|node| node.name));
        let mut directions = Vec::new();
        for node in &self.nodes {
            // A node sees packets that come from it, go to it, or both.
            let (is_first, is_last) = (first == Some(node.name), last == Some(node.name));
            packet.source_is_local = is_first && self.is_node(from);
            packet.destination_is_local = is_last && self.is_node(to);
            packet.input = (!packet.source_is_local).then(|| (1, "in0".to_owned()));
            let hook = if packet.destination_is_local { Hook::Input } else { Hook::Postrouting };
            if is_first || is_last {
                directions.extend(dropped(node, hook, &packet));
            }
        }
        match directions[..] {
            [] => '.',
            ["egress"] if first == last => 'E',
            ["ingress"] => 'I',
            ["egress"] => 'E',
            ["egress", "ingress"] | ["ingress", "egress"] => 'B',
            _ => panic!("{directions:?}"),
        }
    }
}

fn check_case(objects: &[Value], case: &Case) {
    let mut cluster = Cluster::new();
    objects.iter().for_each(|object| cluster.apply(object));
    cluster.update();
    for (n, step) in case.steps.iter().enumerate() {
        let place = format!("{} step {}", case.name, n + 1);
        step.apply.iter().for_each(|object| cluster.apply(object));
        for gone in &step.delete {
            let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == gone.kind).expect("a kind");
            let namespace = if kind.namespaced() { gone.namespace.as_str() } else { "" };
            let name = NamespacedName::new(namespace, &gone.name);
            cluster.dirty.extend(cluster.index.handle(Event::Deleted(ObjectKey { kind, name })));
        }
        cluster.update();
        for cell in step.expect.cells() {
            let ends =
                [cell.from, cell.to].map(|name| address(&cluster.index, &End::parse(name), cell.family));
            let [Some(from), Some(to)] = ends else { continue };
            if from == to {
                continue;
            }
            let seen = cluster.character(from, to, cell.port, cell.protocol);
            // On one node, egress drops the packet before ingress is evaluated.
            let one_node = cluster.node_of(from).map(|n| n.name) == cluster.node_of(to).map(|n| n.name);
            let expected = if one_node && cell.expected == 'B' { 'E' } else { cell.expected };
            let (from, to, port, protocol) = (cell.from, cell.to, cell.port, cell.protocol);
            assert_eq!(seen, expected, "{place}: {from} → {to} {port}/{protocol} {}", cell.family);
        }
        for flow in step.flows.iter().filter(|flow| flow.is_new()) {
            check_flow(&cluster, flow, &place);
        }
    }
}

fn check_flow(cluster: &Cluster, flow: &Flow, place: &str) {
    let family: Family = flow.family();
    let (port, protocol) = flow.port();
    let masqueraded = flow.masqueraded_as.as_ref().map(|text| match text.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => address(&cluster.index, &End::parse(text), family).expect("a source"),
    });
    let from = masqueraded.or_else(|| address(&cluster.index, &flow.from(), family)).expect("a source");
    let targets = match flow.to() {
        End::Service { namespace, name } => {
            endpoints(&cluster.index, &NamespacedName::new(&namespace, &name), port, protocol, family)
        }
        _ if flow.from() == flow.to() => Vec::new(),
        end => vec![(address(&cluster.index, &end, family).expect("a destination"), port)],
    };
    let allowed =
        targets.iter().filter(|(to, port)| cluster.character(from, *to, *port, protocol) == '.').count();
    let verdict = match allowed {
        all if all == targets.len() => Verdict::Allow,
        0 => Verdict::Deny,
        _ => Verdict::Mixed,
    };
    let expected = flow.verdict;
    assert!(
        expected == Verdict::Either || expected == verdict,
        "{place}: {} {verdict:?}, expected {expected:?}. {}",
        flow.describe(),
        flow.note
    );
}
