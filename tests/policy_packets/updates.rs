//! Changes of policies, pods and daemons under traffic: connections that are allowed before and after a change lose no
//! packet, and those that are denied before and after are never let through.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portcullis_lab::{Family, ObjectRef, Protocol, TrafficGenerator, TrafficLog, TrafficOptions};

use crate::daemons::NODES;
use crate::flows::end;
use crate::test_cluster::TestCluster;

/// Pairs that are always allowed: on one node, across nodes, and through a Service.
const ALLOWED: [(&str, &str); 3] = [("x/a", "x/c"), ("x/a", "x/b"), ("x/c", "service/x/s-x-b")];

/// Pairs that are always denied while policies are enforced.
const FORBIDDEN: [(&str, &str); 3] = [("y/a", "x/b"), ("y/b", "x/b"), ("y/b", "service/x/s-x-c")];

/// Only pods of x may connect to pods of x.
const OWN_NAMESPACE: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: own, namespace: x}, spec: {
  podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}, {port: 80, protocol: UDP}]}]}}";

/// An equivalent policy with other selectors.
const OWN_NAMESPACE_IN_OTHER_WORDS: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: own, namespace: x}, spec: {
  podSelector: {matchExpressions: [{key: pod, operator: Exists}]}, policyTypes: [Ingress], ingress: [
  {from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: x}}}], ports: [{port: 80, protocol: TCP}]},
  {from: [{podSelector: {}}], ports: [{port: 80, protocol: UDP}]}]}}";

/// Another policy that selects the same pods. Its peers are in none of the pairs, or in an allowed one.
fn another(peer: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: more, namespace: x}}, spec: {{
           podSelector: {{}}, ingress: [{{from: [{peer}]}}]}}}}"
    )
}

/// Isolates pods with a label for egress too.
const BOTH_WAYS_IF_LABELLED: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: labelled, namespace: x}, spec: {
  podSelector: {matchLabels: {both-ways: 'yes'}}, policyTypes: [Ingress, Egress], egress: [{to: [{namespaceSelector: {}}]}]}}";

const NEW_POD: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: d, namespace: x, labels: {pod: d}}, spec: {nodeName: node-2}}";

/// A named change.
type Step = (&'static str, fn(&mut TestCluster));

const CHANGES: [Step; 13] = [
    ("a policy is added", |cluster| cluster.apply(&another("{podSelector: {matchLabels: {pod: a}}}"))),
    ("its peers change", |cluster| cluster.apply(&another("{namespaceSelector: {matchLabels: {ns: z}}}"))),
    ("its peers are a block", |cluster| cluster.apply(&another("{ipBlock: {cidr: 198.51.100.0/24}}"))),
    ("a policy is replaced by an equivalent one", |cluster| cluster.apply(OWN_NAMESPACE_IN_OTHER_WORDS)),
    ("a policy is replaced by one of another name", |cluster| {
        let twin = OWN_NAMESPACE.replace("name: own", "name: twin");
        let objects = portcullis_lab::manifests::parse(&twin, "twin").unwrap();
        cluster
            .lab
            .update(|cluster| {
                cluster.extend(objects);
                assert!(cluster.delete(&ObjectRef::new("NetworkPolicy", "x", "own")));
            })
            .unwrap();
        crate::settle::wait_until_settled(&mut cluster.lab);
    }),
    ("a policy is added for pods with a label", |cluster| cluster.apply(BOTH_WAYS_IF_LABELLED)),
    ("a pod gets the label", |cluster| cluster.label_pod("x/b", "both-ways", "yes")),
    ("another pod gets the label", |cluster| cluster.label_pod("x/a", "both-ways", "yes")),
    ("a pod loses the label", |cluster| cluster.label_pod("x/b", "both-ways", "no")),
    ("a pod starts", |cluster| cluster.apply(NEW_POD)),
    ("a pod ends", |cluster| {
        cluster.lab.delete(&ObjectRef::new("Pod", "x", "d")).unwrap();
        crate::settle::wait_until_settled(&mut cluster.lab);
    }),
    ("a policy is deleted", |cluster| cluster.delete_policy("more")),
    ("it is added again", |cluster| cluster.apply(&another("{podSelector: {matchLabels: {pod: a}}}"))),
];

/// Restarts of daemons with other options.
const RESTARTS: [Step; 4] = [
    ("killed and started again", |cluster| cluster.restart(&["--network-policy"], TestCluster::kill)),
    ("they log", |cluster| {
        cluster.restart(&["--network-policy", "--network-policy-log-group=7"], TestCluster::stop)
    }),
    ("they terminate connections", |cluster| {
        cluster.restart(&["--network-policy", "--network-policy-established=cut"], TestCluster::kill)
    }),
    ("they deny unknown pods", |cluster| {
        cluster.restart(&["--network-policy", "--network-policy-unknown-pods=deny"], TestCluster::stop);
    }),
];

/// Restarts of daemons without enforcement; no pair is always denied.
const ON_AND_OFF: [Step; 4] = [
    ("audit", |cluster| cluster.restart(&["--network-policy", "--network-policy-audit"], TestCluster::kill)),
    ("no audit", |cluster| cluster.restart(&["--network-policy"], TestCluster::stop)),
    ("off", |cluster| cluster.restart(&[], TestCluster::kill)),
    ("on", |cluster| cluster.restart(&["--network-policy"], TestCluster::stop)),
];

#[test]
fn changes_of_policies_and_pods_lose_no_allowed_and_pass_no_denied_packet() {
    let mut cluster = cluster();
    run(&mut cluster, &CHANGES, &FORBIDDEN);
}

#[test]
fn restarts_of_daemons_lose_no_allowed_and_pass_no_denied_packet() {
    let mut cluster = cluster();
    run(&mut cluster, &RESTARTS, &FORBIDDEN);
}

#[test]
fn start_and_end_of_enforcement_lose_no_allowed_packet() {
    let mut cluster = cluster();
    run(&mut cluster, &ON_AND_OFF, &[]);
}

fn cluster() -> TestCluster {
    let mut cluster = TestCluster::enforcing(&[]);
    cluster.apply(OWN_NAMESPACE);
    cluster
}

fn run(cluster: &mut TestCluster, steps: &[Step], forbidden: &[(&str, &str)]) {
    let allowed = start(cluster, &ALLOWED, Duration::from_millis(25), Duration::from_secs(3));
    let forbidden = start(cluster, forbidden, Duration::from_millis(40), Duration::from_millis(400));
    let begin = Instant::now();
    let mut history = vec![(begin.elapsed(), "start")];
    for (what, step) in steps {
        history.push((begin.elapsed(), what));
        step(cluster);
        std::thread::sleep(Duration::from_millis(300));
    }
    history.push((begin.elapsed(), "end"));
    let allowed: Vec<TrafficLog> = allowed.into_iter().map(TrafficGenerator::stop).collect();
    let forbidden: Vec<TrafficLog> = forbidden.into_iter().map(TrafficGenerator::stop).collect();
    let count = |logs: &[TrafficLog]| logs.iter().map(|log| log.probes.len()).sum::<usize>();
    println!(
        "{} flows with {} probes that expect a reply, {} with {} that expect none, {history:#?}",
        allowed.len(),
        count(&allowed),
        forbidden.len(),
        count(&forbidden)
    );
    let lost = allowed.iter().filter(|log| log.probes.is_empty() || !log.lost().is_empty());
    let answered = forbidden.iter().filter(|log| log.probes.is_empty() || !log.answered().is_empty());
    let describe = |log: &TrafficLog| format!("{log} {:?}", log.tally().failures);
    let wrong: Vec<String> = lost.chain(answered).map(describe).collect();
    assert!(wrong.is_empty(), "{history:#?}\n{}", wrong.join("\n"));
    NODES.iter().for_each(|node| assert!(cluster.lab.daemon_pid(node).is_some()));
}

/// Starts all kinds of traffic of both families between pairs.
fn start(
    cluster: &TestCluster,
    pairs: &[(&str, &str)],
    pace: Duration,
    patience: Duration,
) -> Vec<TrafficGenerator> {
    let options = TrafficOptions { interval: pace, timeout: patience, max_in_flight: 64 };
    let mut all = Vec::new();
    for (from, to) in pairs {
        for family in Family::BOTH {
            let [from, to] = [from, to].map(|name| end(cluster.lab.plan(), name));
            let source = from.address_of(family).unwrap();
            let prober = cluster.lab.prober(from.vantage().unwrap().clone()).unwrap().source(source);
            let to = SocketAddr::new(to.address_of(family).unwrap(), 80);
            all.push(prober.datagrams(to, options).unwrap());
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                all.push(prober.connections(protocol, to, options).unwrap());
            }
        }
    }
    all
}
