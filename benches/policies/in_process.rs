//! Syncs in this process, from an event to the kernel's response, compared with the bare transaction.

use std::thread::sleep;

use portcullis_cluster::{Event, Index, Name};
use portcullis_netlink::nf_tables::Table;
use portcullis_netlink::socket::Socket;
use portcullis_policy::compile::DirtyPolicyObjects;
use portcullis_policy::table::{Enforcer, PolicyOptions};
use portcullis_policy::{Compiler, Scope};
use serde_json::{Value, json};

use super::bare::{self, Bare};
use super::cluster_state::{self, APP_OF_NO_POD_HERE, LOCAL_PODS, NAMESPACES, NODE, applied, deleted};
use super::figures::{Samples, Spent, Watch};
use super::namespace::{Namespace, SETTLE};

/// Measurements of the first sync.
#[derive(Default)]
pub(crate) struct First {
    /// Whole sync, with a complete index.
    pub(crate) ours: Samples,
    /// Part before writing.
    pub(crate) compile: Samples,
    pub(crate) bare: Samples,
    /// Description of the table.
    pub(crate) written: String,
}

/// Measurements of a kind of change.
pub(crate) struct Change {
    pub(crate) what: &'static str,
    pub(crate) ours: Samples,
    /// Part before writing.
    pub(crate) compile: Samples,
    pub(crate) bare: Samples,
    /// Number of elements added to and removed from sets.
    pub(crate) elements: usize,
}

/// An index, and the enforcer that keeps the table in a namespace in sync with it.
pub(crate) struct Follower {
    index: Index,
    dirty: DirtyPolicyObjects,
    compiler: Compiler,
    enforcer: Enforcer,
}

impl Follower {
    /// Creates the index of a cluster with this number of pods; nothing is compiled or written yet.
    fn new(pods: usize, namespace: &Namespace) -> Self {
        let enforcer = namespace.run(|| Enforcer::open(PolicyOptions::default()));
        Follower {
            index: cluster_state::index(pods),
            dirty: DirtyPolicyObjects::default(),
            compiler: Compiler::new(Scope::Node(Name::new(NODE))),
            enforcer: enforcer.expect("runs as root, and the kernel has nf_tables"),
        }
    }

    /// Handles an event up to the kernel's response. Returns the whole time, and the time before writing.
    fn handle(&mut self, event: Event) -> (Spent, Spent) {
        let watch = Watch::start();
        self.dirty.extend(self.index.handle(event));
        self.sync(&watch)
    }

    /// Compiles what changed; at first, everything.
    fn compile(&mut self, watch: &Watch) -> Spent {
        let touched = std::mem::take(&mut self.dirty);
        let changes = self.compiler.update(&self.index, &touched);
        self.enforcer.apply(&changes, self.compiler.compiled());
        watch.spent()
    }

    /// Compiles what changed and writes it.
    fn sync(&mut self, watch: &Watch) -> (Spent, Spent) {
        let compile = self.compile(watch);
        self.enforcer.sync().unwrap_or_else(|error| panic!("the kernel rejected the sync: {error}"));
        (watch.spent(), compile)
    }

    fn table(&self) -> &Table {
        self.enforcer.table().table().desired()
    }
}

/// Measures the first sync of a cluster, alternating with the bare transaction, then all changes.
pub(crate) fn measure(pods: usize, repeats: usize, rounds: usize) -> (First, Vec<Change>) {
    let mut first = First::default();
    let mut last = None;
    for repeat in 0..repeats {
        // Drop the previous namespaces before measuring.
        drop(last.take());
        sleep(SETTLE);
        let (ours, theirs) = (Namespace::new(), Namespace::new());
        let (mut follower, mut socket) = (Follower::new(pods, &ours), bare::socket(&theirs));
        // Alternate the order: the first one to run has to wait for the kernel to allocate memory.
        let mut twin = (!repeat.is_multiple_of(2)).then(|| Follower::new(pods, &theirs));
        if let Some(twin) = &mut twin {
            twin.compile(&Watch::start());
            first.bare.push(Bare::between(None, twin.table()).send(&mut socket));
        }
        let (took, compile) = follower.sync(&Watch::start());
        first.ours.push(took);
        first.compile.push(compile);
        if twin.is_none() {
            first.bare.push(Bare::between(None, follower.table()).send(&mut socket));
        }
        first.written = describe(follower.table());
        last = Some((follower, socket, ours, theirs));
    }
    let (mut follower, mut socket, ..) = last.expect("at least one repeat");
    let changes = kinds(pods).into_iter().flat_map(|kind| kind.measure(&mut follower, &mut socket, rounds));
    let changes = changes.collect();
    let differs = follower.enforcer.check().expect("it can be read");
    assert!(differs.is_empty(), "the table in the kernel differs: {differs:?}");
    (first, changes)
}

/// Measures the start of a remote pod in a cluster with this number of pods.
pub(crate) fn pod_start(pods: usize, rounds: usize) -> Change {
    let (ours, theirs) = (Namespace::new(), Namespace::new());
    let mut follower = Follower::new(pods, &ours);
    follower.sync(&Watch::start());
    let mut socket = bare::socket(&theirs);
    Bare::between(None, follower.table()).send(&mut socket);
    let mut changes = remote_pod(pods).measure(&mut follower, &mut socket, rounds);
    changes.swap_remove(0)
}

fn describe(table: &Table) -> String {
    let elements: usize = table.sets.values().map(|set| set.elements.len()).sum();
    let rules: usize = table.chains.values().map(|chain| chain.rules.len()).sum();
    format!(
        "{} chains, {rules} rules, {} sets with {elements} elements",
        table.chains.len(),
        table.sets.len()
    )
}

/// A kind of change: two events that undo each other.
struct Kind {
    names: [&'static str; 2],
    events: [Box<dyn Fn() -> Event>; 2],
}

impl Kind {
    /// Adds and deletes an object.
    fn object(names: [&'static str; 2], object: Value) -> Self {
        let gone = object.clone();
        let events: [Box<dyn Fn() -> Event>; 2] =
            [Box::new(move || applied(object.clone())), Box::new(move || deleted(&gone))];
        Kind { names, events }
    }

    /// Alternates between two versions of an object.
    fn versions(names: [&'static str; 2], after: Value, before: Value) -> Self {
        Kind {
            names,
            events: [after, before].map(|object| Box::new(move || applied(object.clone())) as Box<_>),
        }
    }

    /// Measures both events alternately, each followed by its bare transaction.
    fn measure(&self, follower: &mut Follower, socket: &mut Socket, rounds: usize) -> Vec<Change> {
        let before = follower.table().clone();
        follower.handle(self.events[0]());
        let between = follower.table().clone();
        follower.handle(self.events[1]());
        assert!(*follower.table() == before, "the second event undoes the first: {}", self.names[0]);
        let bare = [Bare::between(Some(&before), &between), Bare::between(Some(&between), &before)];
        let mut changes = [0, 1].map(|which| Change {
            what: self.names[which],
            ours: Samples::default(),
            compile: Samples::default(),
            bare: Samples::default(),
            elements: bare[which].elements(),
        });
        for _ in 0..rounds {
            for (which, change) in changes.iter_mut().enumerate() {
                let event = self.events[which]();
                let (took, compile) = follower.handle(event);
                change.ours.push(took);
                change.compile.push(compile);
                change.bare.push(bare[which].send(socket));
            }
        }
        changes.into()
    }
}

fn remote_pod(pods: usize) -> Kind {
    // This number has a namespace of stage `live` and the app `web`, which many rules select.
    let number = pods.next_multiple_of(NAMESPACES * 10);
    Kind::object(["pod elsewhere starts", "pod elsewhere stops"], cluster_state::pod(number, 7))
}

fn kinds(pods: usize) -> Vec<Kind> {
    let number = pods.next_multiple_of(NAMESPACES * 10);
    let relabelled = |stage| cluster_state::namespace(1, stage);
    let added = |port| {
        let rules = cluster_state::app_rules(0, "web", port);
        cluster_state::named_policy(0, "added", json!({"matchLabels": {"app": "web"}}), rules)
    };
    vec![
        remote_pod(pods),
        Kind::object(["pod here starts", "pod here stops"], cluster_state::pod(number + 1, 0)),
        Kind::object(
            ["pod here starts, new profile", "pod here stops, last of it"],
            cluster_state::pod_of(number + 2, APP_OF_NO_POD_HERE, 0),
        ),
        Kind::object(["policy added", "policy deleted"], added(8081)),
        Kind::versions(
            ["policy changed, ports", "policy changed back"],
            cluster_state::policy(0, 1, 8081),
            cluster_state::policy(0, 1, 8080),
        ),
        Kind::versions(
            ["policy changed, peers", "policy changed back"],
            with_new_peers(cluster_state::policy(0, 1, 8080)),
            cluster_state::policy(0, 1, 8080),
        ),
        Kind::versions(
            ["namespace relabelled", "namespace relabelled back"],
            relabelled("live"),
            relabelled("trial"),
        ),
    ]
}

/// Changes the first rule to allow all pods of some apps in all namespaces, a set that no other rule uses.
fn with_new_peers(mut policy: Value) -> Value {
    let apps = json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["db", "mail"]}]});
    policy["spec"]["ingress"][0]["from"] = json!([{"namespaceSelector": {}, "podSelector": apps}]);
    policy
}

/// Describes the cluster.
pub(crate) fn about(pods: usize) -> String {
    format!(
        "{} pods on {} nodes, {LOCAL_PODS} of them here; {} namespaces; {} policies, {} of them for pods here",
        grouped(pods),
        cluster_state::NODES,
        NAMESPACES,
        grouped(cluster_state::POLICIES),
        cluster_state::LOCAL_POLICIES
    )
}

/// Formats a number with thousands separators.
pub(crate) fn grouped(number: usize) -> String {
    match number / 1000 {
        0 => number.to_string(),
        thousands => format!("{},{:03}", grouped(thousands), number % 1000),
    }
}
