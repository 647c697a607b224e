//! The policy fixtures: every cell of both families and every flow of all steps, evaluated for the whole cluster and for
//! each node.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/addresses.rs"]
mod addresses;
mod corpus;
mod naive;
mod support;

use std::net::IpAddr;

use addresses::{address, endpoints};
use corpus::{Case, Corpus, End, Flow, Verdict};
use libtest_mimic::{Arguments, Trial};
use naive::NaiveCluster;
use portcullis_cluster::{Kind, Name, NamespacedName};
use portcullis_policy::{Connection, Evaluation, Scope};
use serde_json::Value;
use support::CompiledCluster;

const NODES: [&str; 2] = ["node-1", "node-2"];

/// Counts of a folder's items.
#[derive(Debug, Default, PartialEq)]
struct Totals {
    cases: usize,
    steps: usize,
    cells: usize,
    flows: usize,
    /// Packets of existing connections, which policies alone do not decide.
    skipped: usize,
}

/// One test for each case.
fn main() {
    let mut trials = Vec::new();
    for folder in [corpus::NETWORK_POLICY, corpus::CLUSTER_NETWORK_POLICY] {
        trials.extend(corpus::case_names(folder).into_iter().map(|name| {
            Trial::test(format!("{folder}::{name}"), move || {
                check_case(&corpus::cluster(folder), &corpus::case(folder, &name));
                Ok(())
            })
        }));
    }
    trials.push(Trial::test("totals::network-policy", || {
        let expected = Totals { cases: 282, steps: 419, cells: 409_036, flows: 43, skipped: 3 };
        assert_eq!(totals(&corpus::read(corpus::NETWORK_POLICY)), expected);
        Ok(())
    }));
    trials.push(Trial::test("totals::cluster-network-policy", || {
        let expected = Totals { cases: 20, steps: 47, cells: 36_096, flows: 220, skipped: 0 };
        assert_eq!(totals(&corpus::read(corpus::CLUSTER_NETWORK_POLICY)), expected);
        Ok(())
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn totals(corpus: &Corpus) -> Totals {
    let mut totals = Totals { cases: corpus.cases.len(), ..Totals::default() };
    for step in corpus.cases.iter().flat_map(|case| &case.steps) {
        totals.steps += 1;
        totals.cells += step.expect.cells().len();
        let new = step.flows.iter().filter(|flow| flow.is_new()).count();
        totals.flows += new;
        totals.skipped += step.flows.len() - new;
    }
    totals
}

fn check_case(objects: &[Value], case: &Case) {
    let mut cluster = CompiledCluster::new(&NODES);
    let mut naive_cluster = NaiveCluster::default();
    for object in objects {
        cluster.apply(object);
        naive_cluster.apply(object);
    }
    cluster.update();
    for (n, step) in case.steps.iter().enumerate() {
        let place = format!("{} step {}", case.name, n + 1);
        for object in &step.apply {
            cluster.apply(object);
            naive_cluster.apply(object);
        }
        for gone in &step.delete {
            let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == gone.kind).expect("a kind");
            cluster.delete(kind, &gone.namespace, &gone.name);
            naive_cluster.delete(&gone.kind, &gone.namespace, &gone.name);
        }
        cluster.update();

        let mut columns = step.expect.columns.clone();
        columns.sort();
        let pods = cluster.compiled(Scope::Cluster).pods().map(|pod| pod.key.to_string());
        assert!(pods.eq(columns), "{place}: the tables have all pods in scope");
        for (number, cell) in step.expect.cells().into_iter().enumerate() {
            let ends =
                [cell.from, cell.to].map(|name| address(&cluster.index, &End::parse(name), cell.family));
            let verdict = match ends {
                // Packets inside of a pod are never evaluated.
                [Some(from), Some(to)] if from == to => '.',
                [Some(from), Some(to)] => {
                    let connection = Connection { from, to, port: cell.port, protocol: cell.protocol };
                    let evaluation = evaluate(&cluster, connection, &place);
                    // The reference evaluation is slow, so only a sample is compared with it.
                    if number.is_multiple_of(13) {
                        agree(&naive_cluster, &evaluation, connection, &place);
                    }
                    character(&evaluation)
                }
                _ => '-',
            };
            assert_eq!(
                verdict, cell.expected,
                "{place}: {} → {} {}/{} {}",
                cell.from, cell.to, cell.port, cell.protocol, cell.family
            );
        }
        for flow in step.flows.iter().filter(|flow| flow.is_new()) {
            check_flow(&cluster, &naive_cluster, flow, &place);
        }
    }
}

fn check_flow(cluster: &CompiledCluster, naive_cluster: &NaiveCluster, flow: &Flow, place: &str) {
    let family = flow.family();
    let (port, protocol) = flow.port();
    let seen = match flow.masqueraded_as.as_deref().map(|text| text.parse::<IpAddr>()) {
        Some(Ok(address)) => Some(address),
        Some(Err(_)) => address(&cluster.index, &End::parse(flow.masqueraded_as.as_ref().unwrap()), family),
        None => address(&cluster.index, &flow.from(), family),
    };
    let from = seen.unwrap_or_else(|| panic!("{place}: {} has no source", flow.describe()));
    let targets = match flow.to() {
        End::Service { namespace, name } => {
            endpoints(&cluster.index, &NamespacedName::new(&namespace, &name), port, protocol, family)
        }
        _ if flow.from() == flow.to() => Vec::new(),
        end => vec![(address(&cluster.index, &end, family).expect("a destination"), port)],
    };
    let allowed = |(to, port): &(IpAddr, u16)| {
        let connection = Connection { from, to: *to, port: *port, protocol };
        let evaluation = evaluate(cluster, connection, place);
        agree(naive_cluster, &evaluation, connection, place);
        evaluation.is_allowed()
    };
    let allowed = targets.iter().filter(|target| allowed(target)).count();
    let verdict = match allowed {
        all if all == targets.len() => Verdict::Allow,
        0 => Verdict::Deny,
        _ => Verdict::Mixed,
    };
    assert!(
        flow.verdict == Verdict::Either || flow.verdict == verdict,
        "{place}: {} {verdict:?}, expected {:?}. {}",
        flow.describe(),
        flow.verdict,
        flow.note
    );
}

/// Evaluates a connection for the whole cluster, and checks that each node decides the same about its own end.
fn evaluate(cluster: &CompiledCluster, connection: Connection, place: &str) -> Evaluation {
    let whole = cluster.compiled(Scope::Cluster).evaluate(connection);
    for node in NODES {
        let part = cluster.compiled(Scope::Node(Name::new(node))).evaluate(connection);
        let is_here = |address: IpAddr| {
            let pod = cluster.compiled(Scope::Cluster).pod_at(address);
            pod.is_some_and(|pod| pod.node == Some(Name::new(node)))
        };
        let expected = Evaluation {
            egress: whole.egress.clone().filter(|_| is_here(connection.from)),
            ingress: whole.ingress.clone().filter(|_| is_here(connection.to)),
        };
        assert_eq!(part, expected, "{place}: {node} evaluates {connection:?} as the cluster does");
    }
    whole
}

fn agree(naive_cluster: &NaiveCluster, evaluation: &Evaluation, connection: Connection, place: &str) {
    assert_eq!(
        naive::verdicts(evaluation),
        naive_cluster.evaluate(None, connection),
        "{place}: {connection:?}"
    );
}

fn character(evaluation: &Evaluation) -> char {
    match naive::verdicts(evaluation) {
        (Some(false), Some(false)) => 'B',
        (Some(false), _) => 'E',
        (_, Some(false)) => 'I',
        _ => '.',
    }
}
