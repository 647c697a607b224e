//! Changes of policies while packets flow: packets that are allowed before and after a change pass in the moment of the change,
//! and packets that are forbidden before and after do not.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use portcullis_cluster::{Kind, Name, Protocol};
use portcullis_policy::table::{Enforcer, PolicyOptions};
use portcullis_policy::{Compiler, Connection, Scope};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;

use crate::naive::NaiveCluster;
use crate::namespace::inside;
use crate::random_objects::{Event, NODES, PORTS, V4};
use crate::traffic::{Flow, Testbed};
use crate::{Cluster, batches};

/// Random sequences of states of a cluster. The environment variable `ROUNDS` sets another number.
const ROUNDS: u64 = 8;

/// The seed before the first one; `SEED` sets another one. In the sequence of the first seed, packets were once lost when a policy
/// was added together with the identities that its rules match.
const SEED: u64 = 96;

/// Changes from one state to another in a round.
const CHANGES: usize = 250;

/// Changes until a new daemon takes over.
const CHANGES_OF_DAEMON: usize = 60;

/// Flows of each kind in a round.
const FLOWS: usize = 12;

/// The objects of a cluster, by kind, namespace and name.
type Objects = BTreeMap<(Kind, String, String), Value>;

fn key(object: &Value) -> (Kind, String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = Kind::from_api(&text(&object["apiVersion"]), &text(&object["kind"])).unwrap();
    (kind, text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
}

/// Returns the state after each batch of events.
fn states(batches: &[Vec<Event>]) -> Vec<Objects> {
    let mut objects = Objects::new();
    let state = |batch: &Vec<Event>| {
        for event in batch {
            match event {
                Event::Apply(object) => drop(objects.insert(key(object), object.clone())),
                Event::Delete(kind, namespace, name) => {
                    objects.remove(&(*kind, namespace.clone(), name.clone()));
                }
            }
        }
        objects.clone()
    };
    batches.iter().map(state).collect()
}

/// Returns the events between two states.
fn events(before: &Objects, after: &Objects) -> Vec<Event> {
    let removed = before.keys().filter(|key| !after.contains_key(key)).cloned();
    let removed = removed.map(|(kind, namespace, name)| Event::Delete(kind, namespace, name));
    let applied = after.iter().filter(|(key, object)| before.get(key) != Some(object));
    removed.chain(applied.map(|(_, object)| Event::Apply(object.clone()))).collect()
}

/// Returns all connections with the same decision in all states, and true if they are allowed. Connections of nodes are not
/// evaluated as forwarded packets.
fn constant_connections(states: &[Objects]) -> Vec<(Connection, bool)> {
    let node_addresses: Vec<&str> = states
        .iter()
        .flat_map(|objects| objects.iter().filter(|((kind, ..), _)| *kind == Kind::Node))
        .flat_map(|(_, node)| node["status"]["addresses"].as_array().into_iter().flatten())
        .filter_map(|address| address["address"].as_str())
        .collect();
    let addresses: Vec<IpAddr> =
        V4.iter().filter(|ip| !node_addresses.contains(ip)).map(|ip| ip.parse().unwrap()).collect();
    let clusters = states.iter().map(|objects| {
        let mut cluster = NaiveCluster::default();
        objects.values().for_each(|object| cluster.apply(object));
        cluster
    });
    let clusters: Vec<NaiveCluster> = clusters.collect();
    let mut constant = Vec::new();
    for from in &addresses {
        for to in addresses.iter().filter(|to| *to != from) {
            for port in PORTS {
                let connection = Connection { from: *from, to: *to, port, protocol: Protocol::Udp };
                let decisions = clusters.iter().map(|c| c.evaluate(Some(NODES[0]), connection));
                let decisions: Vec<_> = decisions.collect();
                let is_allowed = |(egress, ingress): &(Option<bool>, Option<bool>)| {
                    egress.unwrap_or(true) && ingress.unwrap_or(true)
                };
                let is_evaluated = decisions.iter().any(|decisions| *decisions != (None, None));
                let first = is_allowed(&decisions[0]);
                if is_evaluated && decisions.iter().all(|decisions| is_allowed(decisions) == first) {
                    constant.push((connection, first));
                }
            }
        }
    }
    constant
}

/// A node that follows the states of a cluster.
struct Node {
    cluster: Cluster,
    compiler: Compiler,
    enforcer: Enforcer,
    options: PolicyOptions,
}

impl Node {
    fn new(options: PolicyOptions) -> Self {
        Node {
            cluster: Cluster::default(),
            compiler: Compiler::new(Scope::Node(Name::new(NODES[0]))),
            enforcer: Enforcer::open(options.clone()).unwrap(),
            options,
        }
    }

    /// Continues as a new daemon, which finds the tables of the previous one.
    fn restart(&mut self, objects: &Objects) {
        *self = Node::new(self.options.clone());
        self.change(&Objects::new(), objects);
    }

    fn change(&mut self, before: &Objects, after: &Objects) {
        let dirty = self.cluster.handle(&events(before, after));
        let changes = self.compiler.update(&self.cluster.index, &dirty);
        self.enforcer.apply(&changes, self.compiler.compiled());
        let committed = self.enforcer.sync(self.compiler.compiled()).unwrap();
        assert!(!committed.replaced, "{committed:?}");
    }
}

/// Returns the index of the next state.
fn next_state(runner: &mut TestRunner, current: usize, all: usize) -> usize {
    let step = (1..all).new_tree(runner).unwrap().current();
    (current + step) % all
}

#[test]
fn packets_pass_and_are_dropped_alike_while_policies_change() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |number| number.parse().expect("a number"))
    };
    let rounds = number("ROUNDS", ROUNDS);
    inside(|| {
        let addresses: Vec<Ipv4Addr> = V4.iter().map(|ip| ip.parse().unwrap()).collect();
        let testbed = Testbed::new(&addresses, &PORTS);
        let mut node = Node::new(PolicyOptions::default());
        let mut current = Objects::new();
        let (mut allowed, mut forbidden, mut changes) = (0, 0, 0);
        let mut seed = number("SEED", SEED);
        for round in 0..rounds {
            // A sequence of states with flows of both kinds.
            let (mut runner, states, connections) = loop {
                seed += 1;
                let mut bytes = [0; 32];
                bytes[..8].copy_from_slice(&u64::to_be_bytes(seed));
                let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
                let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
                let states = states(&batches().new_tree(&mut runner).unwrap().current());
                let connections = constant_connections(&states);
                let count = |allowed| connections.iter().filter(|(_, of)| *of == allowed).count();
                if states.len() > 1 && count(true) > 0 && count(false) > 0 {
                    break (runner, states, connections);
                }
            };
            node.change(&current, &states[0]);
            let of_kind = |kind: bool| {
                let all = connections.iter().filter(move |(_, allowed)| *allowed == kind);
                let step = (all.clone().count() / FLOWS).max(1);
                all.step_by(step).take(FLOWS).map(|(connection, allowed)| testbed.flow(*connection, *allowed))
            };
            let flows: Vec<Flow> = of_kind(true).chain(of_kind(false)).collect();
            let mut at = 0;
            let note = format!("round {round}, seed {seed}");
            let counts = testbed.while_packets_flow(&flows, &note, |step| {
                for change in 1..=CHANGES {
                    let next = next_state(&mut runner, at, states.len());
                    step(format!("change {change}, from state {at} to {next}"));
                    node.change(&states[at], &states[next]);
                    at = next;
                    if change % CHANGES_OF_DAEMON == 0 {
                        step(format!("a new daemon after change {change}, state {at}"));
                        node.restart(&states[at]);
                    }
                }
            });
            current = states[at].clone();
            allowed += counts.allowed;
            forbidden += counts.forbidden;
            changes += CHANGES;
        }
        println!(
            "{changes} changes, {allowed} allowed and {forbidden} forbidden packets, none decided wrongly"
        );
        assert!(
            allowed > 10_000 && forbidden > 10_000,
            "{allowed} allowed and {forbidden} forbidden packets"
        );
    });
}
