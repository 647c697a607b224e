//! What compiling costs: 10,000 pods of which 110 are here, 1,000 policies of which 100 select one of those.
//!
//! `cargo run --release -p portcullis-policy --example compile_cost`
#![allow(clippy::unwrap_used, reason = "it measures, or stops")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use portcullis_cluster::{Event, Index, Kind, Name, NamespacedName, Object, ObjectKey};
use portcullis_policy::compile::{Changes, MembersChange};
use portcullis_policy::{Compiler, Scope};
use serde_json::{Value, json};

const PODS: usize = 10_000;
const LOCAL: usize = 110;
const POLICIES: usize = 1_000;
const RELEVANT: usize = 100;
const NAMESPACES: usize = 100;
const ROUNDS: usize = 1_000;

fn main() {
    let node = Name::new("node-0");
    let before = resident();
    let mut index = Index::new();
    fill(&mut index);
    let touched = index.take_policy_touched();
    let filled = resident();
    println!("{PODS} pods, {LOCAL} of them here, {POLICIES} policies, {RELEVANT} of them for pods here");
    println!("index: {:.1} MB", filled - before);

    for (name, scope) in [("node", Scope::Node(node)), ("cluster", Scope::Cluster)] {
        let resident_before = resident();
        let mut compiler = Compiler::new(scope);
        let started = Instant::now();
        let changes = compiler.update(&index, &touched);
        let first = started.elapsed();
        let compiled = compiler.compiled();
        println!(
            "\n{name}: first compile {first:.1?}, {:.1} MB; {} profiles, {} rule lists, {} sets with {} addresses, \
             {} named ports with {}",
            resident() - resident_before,
            compiled.profiles().count(),
            compiled.rules().count(),
            compiled.sets().count(),
            compiled.sets().map(|(_, set)| set.len()).sum::<usize>(),
            compiled.named_ports().count(),
            compiled.named_ports().map(|(_, set)| set.len()).sum::<usize>(),
        );
        drop(changes);
        measure("a pod here starts or stops", &mut index, &mut compiler, |n| toggle_pod(n, 0));
        measure("a pod elsewhere starts or stops", &mut index, &mut compiler, |n| toggle_pod(n, 7));
        measure("a policy for pods here changes", &mut index, &mut compiler, |n| {
            Event::Applied(read(policy(n % 2 * NAMESPACES, 8_000 + n / 2 % 2)))
        });
        measure("a policy for no pod here changes", &mut index, &mut compiler, |n| {
            Event::Applied(read(policy(RELEVANT + 50 + n % 2, 8_000 + n / 2 % 2)))
        });
        measure("a namespace is labelled", &mut index, &mut compiler, |n| {
            Event::Applied(read(namespace(3, if n.is_multiple_of(2) { "red" } else { "blue" })))
        });
    }
}

/// The time of one update, over many.
fn measure(what: &str, index: &mut Index, compiler: &mut Compiler, event: impl Fn(usize) -> Event) {
    let mut times = Vec::with_capacity(ROUNDS);
    let mut moved = 0;
    for n in 0..ROUNDS {
        index.handle(event(n));
        let touched = index.take_policy_touched();
        let started = Instant::now();
        let changes = black_box(compiler.update(index, &touched));
        times.push(started.elapsed());
        moved += elements(&changes);
    }
    times.sort_unstable();
    let [median, p99, worst] = [times[ROUNDS / 2], times[ROUNDS * 99 / 100], times[ROUNDS - 1]];
    let each = |time: Duration| format!("{:.1} µs", time.as_secs_f64() * 1e6);
    println!(
        "{what}: median {}, p99 {}, worst {}; {:.1} elements a change",
        each(median),
        each(p99),
        each(worst),
        moved as f64 / ROUNDS as f64
    );
}

fn elements(changes: &Changes) -> usize {
    let of = |added: usize, removed: usize| added + removed;
    let sets = changes.sets.iter().map(|change| match &change.members {
        MembersChange::Came(all) => all.len(),
        MembersChange::Went => 0,
        MembersChange::Changed { added, removed } => of(added.len(), removed.len()),
    });
    let ports = changes.named_ports.iter().map(|change| match &change.members {
        MembersChange::Came(all) => all.len(),
        MembersChange::Went => 0,
        MembersChange::Changed { added, removed } => of(added.len(), removed.len()),
    });
    changes.addresses.len() + sets.sum::<usize>() + ports.sum::<usize>()
}

fn fill(index: &mut Index) {
    for n in 0..PODS / LOCAL {
        let [_, _, a, b] = u32::try_from(n).unwrap().to_be_bytes();
        index.handle(Event::Applied(read(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node-{n}")},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("172.18.{a}.{b}")}]},
        }))));
    }
    for n in 0..NAMESPACES {
        index.handle(Event::Applied(read(namespace(n, if n.is_multiple_of(4) { "red" } else { "green" }))));
    }
    for n in 0..PODS {
        index.handle(Event::Applied(read(pod(n, if n < LOCAL { 0 } else { n / LOCAL }))));
    }
    for n in 0..POLICIES {
        index.handle(Event::Applied(read(policy(n, 8_000))));
    }
}

fn namespace(n: usize, team: &str) -> Value {
    let name = format!("ns-{n}");
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, "team": team}},
    })
}

fn pod(n: usize, node: usize) -> Value {
    let [_, a, b, c] = u32::try_from(n).unwrap().to_be_bytes();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("app-{}-5d59d67564-{n:05}", n % 10), "namespace": format!("ns-{}", n % NAMESPACES),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": format!("app-{}", n / NAMESPACES % 10), "pod-template-hash": "5d59d67564"},
        },
        "spec": {
            "nodeName": format!("node-{node}"),
            "containers": [{"ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}]}],
        },
        "status": {
            "phase": "Running",
            "podIPs": [{"ip": format!("10.{a}.{b}.{c}")}, {"ip": format!("fd00::{n:x}")}],
        },
    })
}

/// The first of these are for pods here: pods n of app-0 are in ns-n, and the first 110 pods are here.
fn policy(n: usize, port: usize) -> Value {
    let app = if n < RELEVANT { 0 } else { 2 + n % 8 };
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("policy-{n}"), "namespace": format!("ns-{}", n % NAMESPACES)},
        "spec": {
            "podSelector": {"matchLabels": {"app": format!("app-{app}")}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"from": [{"podSelector": {"matchLabels": {"app": format!("app-{}", n % 10)}}}], "ports": [{"port": port}]},
                {
                    "from": [{"namespaceSelector": {"matchLabels": {"team": "red"}}, "podSelector": {"matchLabels": {"app": "app-3"}}}],
                    "ports": [{"port": "http"}],
                },
            ],
            "egress": [
                {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": format!("ns-{}", n % 50)}}}]},
                {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}], "ports": [{"port": 443}]},
                {"to": [{"podSelector": {}}], "ports": [{"port": "metrics"}]},
            ],
        },
    })
}

fn toggle_pod(n: usize, node: usize) -> Event {
    // The same pod comes and goes, in turn with others.
    let number = PODS + n / 2 % 100;
    if n.is_multiple_of(2) {
        return Event::Applied(read(pod(number, node)));
    }
    let name = format!("app-{}-5d59d67564-{number:05}", number % 10);
    let name = NamespacedName::new(&format!("ns-{}", number % NAMESPACES), &name);
    Event::Deleted(ObjectKey { kind: Kind::Pod, name })
}

fn read(value: Value) -> Object {
    let kind = Kind::of(value["apiVersion"].as_str().unwrap(), value["kind"].as_str().unwrap()).unwrap();
    Object::parse(kind, value).unwrap().object
}

/// What the process holds of memory, in megabytes (`VmRSS` of proc(5)).
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1000.0
}
