//! Faults of netlink calls while policies change on a real kernel: for each fault of each call of a sync, every connection gets
//! the decision from before or after the change, the failure is reported, and the next sync completes the change.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../netlink/tests/namespace/mod.rs"]
mod namespace;

use std::collections::BTreeMap;
use std::net::IpAddr;

use namespace::inside;
use portcullis_cluster::{Event, Index, Kind, Name, Object};
use portcullis_netlink::nf_tables::{ChangeCounts, Fate, Packet, TableFamily, TracedHost};
use portcullis_netlink::socket::faults::{Fault, FaultPlan};
use portcullis_policy::compile::DirtyPolicyObjects;
use portcullis_policy::table::{self, Enforcer, PolicyOptions};
use portcullis_policy::{CompiledPolicies, Compiler, PolicyChanges, Scope};
use serde_json::{Value, json};

const PODS: [(&str, &str); 4] =
    [("db", "10.244.0.5"), ("web", "10.244.0.6"), ("api", "10.244.0.7"), ("cache", "10.244.0.8")];
const TCP: u8 = libc::IPPROTO_TCP as u8;

fn pod((name, address): (&str, &str)) -> (Kind, Value) {
    let pod = json!({
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}},
        "spec": {"nodeName": "node-1"},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    });
    (Kind::Pod, pod)
}

/// Returns a policy that lets only these pods connect to the pods of an app.
fn policy(app: &str, from: &[&str]) -> (Kind, Value) {
    let peers: Vec<Value> =
        from.iter().map(|app| json!({"podSelector": {"matchLabels": {"app": app}}})).collect();
    let policy = json!({
        "metadata": {"name": app, "namespace": "shop"},
        "spec": {
            "podSelector": {"matchLabels": {"app": app}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": peers, "ports": [{"port": 5432}]}],
        },
    });
    (Kind::NetworkPolicy, policy)
}

/// Policies before and after a change.
struct Cluster {
    before: Compiler,
    after: CompiledPolicies,
    changes: PolicyChanges,
}

impl Cluster {
    fn new() -> Self {
        let (mut index, mut dirty) = (Index::new(), DirtyPolicyObjects::default());
        let mut apply = |(kind, value): (Kind, Value), dirty: &mut DirtyPolicyObjects| {
            let parsed = Object::parse(kind, value).unwrap();
            assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
            dirty.extend(index.handle(Event::Applied(parsed.object)));
        };
        apply((Kind::Namespace, json!({"metadata": {"name": "shop"}})), &mut dirty);
        PODS.into_iter().for_each(|one| apply(pod(one), &mut dirty));
        apply(policy("db", &["web"]), &mut dirty);
        let scope = Scope::Node(Name::new("node-1"));
        let before = Compiler::from_index(scope.clone(), &index);
        let mut after = Compiler::from_index(scope, &index);
        let mut dirty = DirtyPolicyObjects::default();
        let mut apply = |(kind, value): (Kind, Value)| {
            dirty.extend(index.handle(Event::Applied(Object::parse(kind, value).unwrap().object)));
        };
        apply(policy("db", &["api"]));
        apply(policy("cache", &["db"]));
        let changes = after.update(&index, &dirty);
        Cluster { before, after: after.compiled().clone(), changes }
    }
}

/// Returns the decision about each connection between two pods: true if it is allowed.
fn decisions() -> BTreeMap<(&'static str, &'static str), bool> {
    let (table, unknown) = table::read(TableFamily::Inet).unwrap().expect("a table");
    assert_eq!(unknown, Vec::<String>::new());
    let is_local = |_: IpAddr| false;
    let host = TracedHost { tables: &[&table], is_local: &is_local };
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let pairs = PODS.into_iter().flat_map(|from| PODS.into_iter().map(move |to| (from, to)));
    pairs
        .filter(|(from, to)| from != to)
        .map(|((from, source), (to, destination))| {
            let packet = Packet::new(address(source), address(destination), TCP, 5432);
            let paths = host.paths(packet);
            assert_eq!(paths.len(), 1, "policies have no random numbers");
            ((from, to), paths[0].0.fate == Fate::Accepted)
        })
        .collect()
}

#[test]
fn policies_change_completely_after_any_fault() {
    observe(false, 1);
}

#[test]
fn policies_are_complete_after_any_fault_of_a_restart() {
    observe(true, 8);
}

/// Injects every fault into every `step`-th call of a sync: that of a change, or the first one of a new daemon, which finds the
/// tables of its predecessor.
fn observe(restarts: bool, step: usize) {
    inside(|| {
        let cluster = Cluster::new();
        let write_before = || {
            let mut enforcer = Enforcer::open(PolicyOptions::default()).unwrap();
            enforcer.apply(&PolicyChanges::all(cluster.before.compiled()), cluster.before.compiled());
            enforcer.sync(cluster.before.compiled()).unwrap();
            enforcer
        };
        let changes = if restarts { PolicyChanges::all(&cluster.after) } else { cluster.changes.clone() };
        let change = |enforcer: &mut Enforcer| {
            enforcer.apply(&changes, &cluster.after);
            enforcer.sync(&cluster.after)
        };
        let plan = FaultPlan::new();
        let prepare = || {
            write_before();
            plan.count();
            if restarts {
                return plan.run(|| Enforcer::open(PolicyOptions::default()).unwrap());
            }
            plan.run(write_before)
        };
        let mut enforcer = prepare();
        let before = decisions();
        plan.count();
        change(&mut enforcer).unwrap();
        let (calls, after) = (plan.calls(), decisions());
        assert!(before[&("web", "db")] && !before[&("api", "db")] && before[&("web", "cache")]);
        assert!(!after[&("web", "db")] && after[&("api", "db")] && !after[&("web", "cache")]);

        let mut injected = BTreeMap::<String, [usize; 2]>::new();
        for (fault, call) in
            Fault::ALL.into_iter().flat_map(|fault| (0..calls).step_by(step).map(move |call| (fault, call)))
        {
            let context = format!("{fault:?} at call {call} of {calls}");
            let mut enforcer = prepare();
            plan.inject(call, fault);
            let result = change(&mut enforcer);
            if !plan.is_injected() {
                continue;
            }
            plan.count();
            for (connection, allowed) in decisions() {
                let expected = [before[&connection], after[&connection]];
                assert!(expected.contains(&allowed), "{context}: {connection:?} is allowed: {allowed}");
            }
            let counts = injected.entry(format!("{fault:?}")).or_default();
            match result {
                Ok(_) => counts[0] += 1,
                Err(error) => {
                    counts[1] += 1;
                    assert!(!error.to_string().is_empty());
                    if let Fault::SendFails(errno) | Fault::Rejection(errno) = fault {
                        assert_eq!(error.os_errno(), Some(errno), "{context}: {error}");
                    }
                    assert!(enforcer.needs_sync(), "{context}");
                    enforcer
                        .sync(&cluster.after)
                        .unwrap_or_else(|error| panic!("{context}: the next sync: {error}"));
                }
            }
            assert_eq!(decisions(), after, "{context}");
            assert_eq!(enforcer.check().unwrap(), ChangeCounts::default(), "{context}");
        }
        println!("fault, recovered in the same sync, by the next one");
        injected.iter().for_each(|(fault, [same, next])| println!("{fault:28} {same:5} {next:5}"));
        assert!(injected.len() >= 15, "{injected:?}");
    });
}
