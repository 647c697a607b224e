//! Policies, pods and daemons change under traffic: what is allowed before and after a change loses nothing by it, and
//! what is forbidden before and after gains nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portcullis_lab::{Family, Log, ObjectRef, Protocol, Traffic, TrafficOptions};

use crate::daemons::NODES;
use crate::flows::end;
use crate::town::Town;

/// Pairs that may talk all the while: on one node, across nodes, and through a Service.
const ALLOWED: [(&str, &str); 3] = [("x/a", "x/c"), ("x/a", "x/b"), ("x/c", "service/x/s-x-b")];

/// Pairs that may not, while policies are enforced.
const FORBIDDEN: [(&str, &str); 3] = [("y/a", "x/b"), ("y/b", "x/b"), ("y/b", "service/x/s-x-c")];

/// The pods of x are isolated from all but their own namespace.
const OWN_NAMESPACE: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: own, namespace: x}, spec: {
  podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}, {port: 80, protocol: UDP}]}]}}";

/// The same in other words.
const OWN_NAMESPACE_IN_OTHER_WORDS: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: own, namespace: x}, spec: {
  podSelector: {matchExpressions: [{key: pod, operator: Exists}]}, policyTypes: [Ingress], ingress: [
  {from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: x}}}], ports: [{port: 80, protocol: TCP}]},
  {from: [{podSelector: {}}], ports: [{port: 80, protocol: UDP}]}]}}";

/// Another that selects them, too: its peers are not among the pairs, or are those that may talk anyhow.
fn another(peer: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: more, namespace: x}}, spec: {{
           podSelector: {{}}, ingress: [{{from: [{peer}]}}]}}}}"
    )
}

/// Isolates outwards, too, what bears a label.
const BOTH_WAYS_IF_LABELLED: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: labelled, namespace: x}, spec: {
  podSelector: {matchLabels: {both-ways: 'yes'}}, policyTypes: [Ingress, Egress], egress: [{to: [{namespaceSelector: {}}]}]}}";

const NEW_POD: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: d, namespace: x, labels: {pod: d}}, spec: {nodeName: node-2}}";

/// What is done, each with its name.
type Step = (&'static str, fn(&mut Town));

const CHANGES: [Step; 13] = [
    ("a policy comes", |town| town.apply(&another("{podSelector: {matchLabels: {pod: a}}}"))),
    ("its peers change", |town| town.apply(&another("{namespaceSelector: {matchLabels: {ns: z}}}"))),
    ("its peers are a block", |town| town.apply(&another("{ipBlock: {cidr: 198.51.100.0/24}}"))),
    ("a policy says the same in other words", |town| town.apply(OWN_NAMESPACE_IN_OTHER_WORDS)),
    ("a policy gives way to one of another name", |town| {
        let twin = OWN_NAMESPACE.replace("name: own", "name: twin");
        let objects = portcullis_lab::manifests::parse(&twin, "twin").unwrap();
        town.lab
            .update(|cluster| {
                cluster.extend(objects);
                assert!(cluster.delete(&ObjectRef::new("NetworkPolicy", "x", "own")));
            })
            .unwrap();
        crate::rest::wait_for_rest(&mut town.lab);
    }),
    ("a policy comes for pods with a label", |town| town.apply(BOTH_WAYS_IF_LABELLED)),
    ("a pod gets the label", |town| town.label_pod("x/b", "both-ways", "yes")),
    ("another pod gets the label", |town| town.label_pod("x/a", "both-ways", "yes")),
    ("a pod loses the label", |town| town.label_pod("x/b", "both-ways", "no")),
    ("a pod starts", |town| town.apply(NEW_POD)),
    ("a pod ends", |town| {
        town.lab.delete(&ObjectRef::new("Pod", "x", "d")).unwrap();
        crate::rest::wait_for_rest(&mut town.lab);
    }),
    ("a policy goes", |town| town.delete_policy("more")),
    ("it comes again", |town| town.apply(&another("{podSelector: {matchLabels: {pod: a}}}"))),
];

/// Daemons that end, in several ways, and begin again to enforce in others.
const RESTARTS: [Step; 4] = [
    ("killed and started again", |town| town.restart(&["--network-policy"], Town::kill)),
    ("they log", |town| town.restart(&["--network-policy", "--network-policy-log-group=7"], Town::stop)),
    ("they cut", |town| town.restart(&["--network-policy", "--network-policy-established=cut"], Town::kill)),
    ("they deny the unknown", |town| {
        town.restart(&["--network-policy", "--network-policy-unknown-pods=deny"], Town::stop);
    }),
];

/// Daemons that stop to enforce, and begin again: nothing is forbidden all the while.
const ON_AND_OFF: [Step; 4] = [
    ("audit", |town| town.restart(&["--network-policy", "--network-policy-audit"], Town::kill)),
    ("no audit", |town| town.restart(&["--network-policy"], Town::stop)),
    ("off", |town| town.restart(&[], Town::kill)),
    ("on", |town| town.restart(&["--network-policy"], Town::stop)),
];

#[test]
fn nothing_is_lost_or_let_in_while_policies_and_pods_change() {
    let mut town = town();
    run(&mut town, &CHANGES, &FORBIDDEN);
}

#[test]
fn nothing_is_lost_or_let_in_while_daemons_end_and_begin() {
    let mut town = town();
    run(&mut town, &RESTARTS, &FORBIDDEN);
}

#[test]
fn nothing_is_lost_while_enforcing_begins_and_ends() {
    let mut town = town();
    run(&mut town, &ON_AND_OFF, &[]);
}

fn town() -> Town {
    let mut town = Town::enforcing(&[]);
    town.apply(OWN_NAMESPACE);
    town
}

fn run(town: &mut Town, steps: &[Step], forbidden: &[(&str, &str)]) {
    let allowed = start(town, &ALLOWED, Duration::from_millis(25), Duration::from_secs(3));
    let forbidden = start(town, forbidden, Duration::from_millis(40), Duration::from_millis(400));
    let begin = Instant::now();
    let mut history = vec![(begin.elapsed(), "all is as at first")];
    for (what, step) in steps {
        history.push((begin.elapsed(), what));
        step(town);
        std::thread::sleep(Duration::from_millis(300));
    }
    history.push((begin.elapsed(), "the end"));
    let allowed: Vec<Log> = allowed.into_iter().map(Traffic::stop).collect();
    let forbidden: Vec<Log> = forbidden.into_iter().map(Traffic::stop).collect();
    let count = |logs: &[Log]| logs.iter().map(|log| log.sent.len()).sum::<usize>();
    println!(
        "{} flows with {} probes that must be answered, {} with {} that must not, {history:#?}",
        allowed.len(),
        count(&allowed),
        forbidden.len(),
        count(&forbidden)
    );
    let lost = allowed.iter().filter(|log| log.sent.is_empty() || !log.lost().is_empty());
    let answered = forbidden.iter().filter(|log| log.sent.is_empty() || !log.answered().is_empty());
    let told = |log: &Log| format!("{log} {:?}", log.tally().others);
    let wrong: Vec<String> = lost.chain(answered).map(told).collect();
    assert!(wrong.is_empty(), "{history:#?}\n{}", wrong.join("\n"));
    NODES.iter().for_each(|node| assert!(town.lab.daemon_pid(node).is_some()));
}

/// Starts all kinds of traffic of both families between pairs.
fn start(town: &Town, pairs: &[(&str, &str)], pace: Duration, patience: Duration) -> Vec<Traffic> {
    let options = TrafficOptions { pace, patience, under_way: 64 };
    let mut all = Vec::new();
    for (from, to) in pairs {
        for family in Family::BOTH {
            let [from, to] = [from, to].map(|name| end(town.lab.plan(), name));
            let source = from.address_of(family).unwrap();
            let prober = town.lab.from(from.vantage().unwrap().clone()).unwrap().source(source);
            let to = SocketAddr::new(to.address_of(family).unwrap(), 80);
            all.push(prober.datagrams(to, options).unwrap());
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                all.push(prober.connections(protocol, to, options).unwrap());
            }
        }
    }
    all
}
