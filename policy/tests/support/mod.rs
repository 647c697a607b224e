//! A cluster with compilers of all scopes, which are checked at each step.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

pub mod replica;

use portcullis_cluster::{Event, Index, Kind, Name, NamespacedName, Object, ObjectKey};
use portcullis_policy::compile::{CompiledPolicies, DirtyPolicyObjects};
use portcullis_policy::{Compiler, Scope};
use replica::Replica;
use serde_json::Value;

/// An index, and compilers of all scopes.
pub struct CompiledCluster {
    pub index: Index,
    dirty: DirtyPolicyObjects,
    compilers: Vec<(Compiler, Replica)>,
}

impl CompiledCluster {
    /// Returns an empty cluster, compiled for all nodes together and for each of these nodes.
    pub fn new(nodes: &[&str]) -> Self {
        let scopes = nodes.iter().map(|node| Scope::Node(Name::new(node)));
        let scopes = std::iter::once(Scope::Cluster).chain(scopes);
        CompiledCluster {
            index: Index::new(),
            dirty: DirtyPolicyObjects::default(),
            compilers: scopes.map(|scope| (Compiler::new(scope), Replica::default())).collect(),
        }
    }

    /// Creates or replaces an object.
    pub fn apply(&mut self, value: &Value) {
        let text = |field: &str| value[field].as_str().unwrap_or_default();
        let kind = Kind::from_api(text("apiVersion"), text("kind")).expect("a kind that we use");
        let parsed = Object::parse(kind, value.clone()).expect("an object");
        self.dirty.extend(self.index.handle(Event::Applied(parsed.object)));
    }

    pub fn delete(&mut self, kind: Kind, namespace: &str, name: &str) {
        let name = NamespacedName::new(if kind.namespaced() { namespace } else { "" }, name);
        self.dirty.extend(self.index.handle(Event::Deleted(ObjectKey { kind, name })));
    }

    /// Takes the objects that changed since the last update.
    pub fn take_dirty(&mut self) -> DirtyPolicyObjects {
        std::mem::take(&mut self.dirty)
    }

    /// Updates the compilers. Checks that each result equals a compilation from scratch, and that the reported changes
    /// are complete.
    pub fn update(&mut self) {
        let touched = std::mem::take(&mut self.dirty);
        for (compiler, replica) in &mut self.compilers {
            let changes = compiler.update(&self.index, &touched);
            replica.apply(&changes);
            replica.check(compiler.compiled());
            let scratch = Compiler::from_index(compiler.scope().clone(), &self.index);
            assert_same(compiler.compiled(), scratch.compiled());
            let none = compiler.update(&self.index, &DirtyPolicyObjects::default());
            assert!(none.is_empty(), "nothing was touched: {none:?}");
            let none = compiler.update(&self.index, &all_touched(&self.index));
            assert!(none.is_empty(), "nothing changed: {none:?}");
        }
    }

    /// Returns the compiled policies of a scope.
    pub fn compiled(&self, scope: Scope) -> &CompiledPolicies {
        let found = self.compilers.iter().find(|(compiler, _)| *compiler.scope() == scope);
        found.expect("the scope was passed to `new`").0.compiled()
    }
}

fn assert_same(updated: &CompiledPolicies, scratch: &CompiledPolicies) {
    // Compared part by part, as the whole value would be too long for a failure message.
    assert!(updated.pods().eq(scratch.pods()), "pods");
    assert!(updated.addresses().eq(scratch.addresses()), "addresses");
    assert!(updated.profiles().eq(scratch.profiles()), "profiles");
    assert!(updated.rules().eq(scratch.rules()), "rules");
    assert!(
        updated.sets().eq(scratch.sets()),
        "sets: {:#?} {:#?}",
        updated.sets().collect::<Vec<_>>(),
        scratch.sets().collect::<Vec<_>>()
    );
    assert!(updated.named_ports().eq(scratch.named_ports()), "named ports");
    assert!(updated.nodes().eq(scratch.nodes()), "nodes");
    assert!(updated == scratch);
}

/// Returns all objects as touched.
fn all_touched(index: &Index) -> DirtyPolicyObjects {
    let key = |kind, name: &NamespacedName| ObjectKey { kind, name: name.clone() };
    let mut touched = DirtyPolicyObjects::default();
    touched.nodes.extend(index.nodes().map(|node| node.name.clone()));
    touched.objects.extend(index.pods().map(|o| key(Kind::Pod, &o.key)));
    touched.objects.extend(index.network_policies().map(|o| key(Kind::NetworkPolicy, &o.key)));
    let cluster = index.cluster_network_policies();
    touched.objects.extend(cluster.map(|o| key(Kind::ClusterNetworkPolicy, &o.key)));
    let namespaces = index.namespaces();
    touched
        .objects
        .extend(namespaces.map(|o| key(Kind::Namespace, &NamespacedName::new("", o.name.as_str()))));
    touched
}
