//! Syncs in this process, from an event to the kernel's response, compared with the bare transaction.

use std::thread::sleep;

use portcullis_cluster::{Event, Index, Name};
use portcullis_netlink::nf_tables::Table;
use portcullis_netlink::socket::Socket;
use portcullis_policy::compile::DirtyPolicyObjects;
use portcullis_policy::table::{Enforcer, PolicyOptions};
use portcullis_policy::{Compiler, Scope};
use serde_json::Value;

use super::bare::{self, Bare};
use super::cluster_state::{NODE, applied, deleted};
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
struct Follower {
    index: Index,
    dirty: DirtyPolicyObjects,
    compiler: Compiler,
    enforcer: Enforcer,
}

impl Follower {
    /// Creates a follower of an index; nothing is compiled or written yet.
    fn new(index: Index, namespace: &Namespace) -> Self {
        let enforcer = namespace.run(|| Enforcer::open(PolicyOptions::default()));
        Follower {
            index,
            dirty: DirtyPolicyObjects::default(),
            compiler: Compiler::new(Scope::Node(Name::new(NODE))),
            enforcer: enforcer.expect("runs as root, and the kernel has nf_tables"),
        }
    }

    /// Handles events up to the kernel's response. Returns the whole time, and the time before writing.
    fn handle(&mut self, events: Vec<Event>) -> (Spent, Spent) {
        let watch = Watch::start();
        events.into_iter().for_each(|event| self.dirty.extend(self.index.handle(event)));
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
        self.enforcer
            .sync(self.compiler.compiled())
            .unwrap_or_else(|error| panic!("the kernel rejected the sync: {error}"));
        self.compiler.accept_changes();
        (watch.spent(), compile)
    }

    fn table(&self) -> &Table {
        self.enforcer.table().table().desired()
    }
}

/// A namespace to which the same changes are written as bare transactions.
struct Twin {
    socket: Socket,
    table: Option<Table>,
    _namespace: Namespace,
}

impl Twin {
    fn new() -> Self {
        let namespace = Namespace::new();
        Twin { socket: bare::socket(&namespace), table: None, _namespace: namespace }
    }

    /// Writes a version of the table.
    fn follow(&mut self, table: &Table) -> Spent {
        let spent = Bare::between(self.table.as_ref(), table).send(&mut self.socket);
        self.table = Some(table.clone());
        spent
    }
}

/// A cluster whose policies are enforced in a namespace, and its twin.
pub(crate) struct Cluster {
    follower: Follower,
    twin: Twin,
    _namespace: Namespace,
}

impl Cluster {
    /// Enforces the policies of an index.
    pub(crate) fn new(index: Index) -> Self {
        let (namespace, mut twin) = (Namespace::new(), Twin::new());
        let mut follower = Follower::new(index, &namespace);
        follower.sync(&Watch::start());
        twin.follow(follower.table());
        Cluster { follower, twin, _namespace: namespace }
    }

    /// Measures the first sync of an index, alternating with the bare transaction.
    pub(crate) fn measure_first(index: impl Fn() -> Index, repeats: usize) -> (First, Cluster) {
        let mut first = First::default();
        let mut last = None;
        for repeat in 0..repeats {
            // Drop the previous namespaces before measuring.
            drop(last.take());
            sleep(SETTLE);
            let (namespace, mut twin) = (Namespace::new(), Twin::new());
            let mut follower = Follower::new(index(), &namespace);
            // Alternate the order: the first one to run has to wait for the kernel to allocate memory.
            let is_bare_first = !repeat.is_multiple_of(2);
            if is_bare_first {
                let mut same = Follower::new(index(), &namespace);
                same.compile(&Watch::start());
                first.bare.push(twin.follow(same.table()));
            }
            let (took, compile) = follower.sync(&Watch::start());
            first.ours.push(took);
            first.compile.push(compile);
            if !is_bare_first {
                first.bare.push(twin.follow(follower.table()));
            }
            first.written = describe(follower.table());
            last = Some(Cluster { follower, twin, _namespace: namespace });
        }
        (first, last.expect("at least one repeat"))
    }

    /// Measures both events of a kind alternately, each followed by its bare transaction.
    pub(crate) fn measure(&mut self, kind: &Kind, rounds: usize) -> Vec<Change> {
        let mut changes = [0, 1].map(|which| Change {
            what: kind.names[which],
            ours: Samples::default(),
            compile: Samples::default(),
            bare: Samples::default(),
            elements: 0,
        });
        // The first round is not measured: it is the first one to allocate memory.
        for round in 0..=rounds {
            for (which, change) in changes.iter_mut().enumerate() {
                let before = self.follower.table().clone();
                let events = kind.events[which]();
                let (took, compile) = self.follower.handle(events);
                change.elements = Bare::between(Some(&before), self.follower.table()).elements();
                let bare = self.twin.follow(self.follower.table());
                if round > 0 {
                    change.ours.push(took);
                    change.compile.push(compile);
                    change.bare.push(bare);
                }
            }
        }
        self.check();
        changes.into()
    }

    /// Checks that the kernel has the desired table.
    fn check(&mut self) {
        let differs = self.follower.enforcer.check().expect("it can be read");
        assert!(differs.is_empty(), "the table in the kernel differs: {differs:?}");
    }
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

/// Events of a change.
type Events = Box<dyn Fn() -> Vec<Event>>;

/// A kind of change: events, and those that undo them.
pub(crate) struct Kind {
    names: [&'static str; 2],
    events: [Events; 2],
}

impl Kind {
    /// Adds and deletes an object.
    pub(crate) fn object(names: [&'static str; 2], object: Value) -> Self {
        let gone = object.clone();
        let events: [Events; 2] =
            [Box::new(move || vec![applied(object.clone())]), Box::new(move || vec![deleted(&gone)])];
        Kind { names, events }
    }

    /// Alternates between two versions of an object.
    pub(crate) fn versions(names: [&'static str; 2], after: Value, before: Value) -> Self {
        Self::versions_of_all(names, vec![after], vec![before])
    }

    /// Alternates between two versions of several objects.
    pub(crate) fn versions_of_all(names: [&'static str; 2], after: Vec<Value>, before: Vec<Value>) -> Self {
        let applied = |objects: Vec<Value>| -> Events {
            Box::new(move || objects.iter().cloned().map(applied).collect())
        };
        Kind { names, events: [after, before].map(applied) }
    }
}
