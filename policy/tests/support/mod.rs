//! A cluster that events change, and compilers that follow it and are checked at each step.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

pub mod replica;

use portcullis_cluster::index::DirtyPolicyObjects;
use portcullis_cluster::{Event, Index, Kind, Name, NamespacedName, Object, ObjectKey};
use portcullis_policy::compile::CompiledPolicies;
use portcullis_policy::{Compiler, Scope};
use replica::Replica;
use serde_json::Value;

/// An index, and compilers of all scopes that follow it.
pub struct CompiledCluster {
    pub index: Index,
    followers: Vec<(Compiler, Replica)>,
}

impl CompiledCluster {
    /// Nothing, followed for the cluster and for each of these nodes.
    pub fn new(nodes: &[&str]) -> Self {
        let scopes = nodes.iter().map(|node| Scope::Node(Name::new(node)));
        let scopes = std::iter::once(Scope::Cluster).chain(scopes);
        CompiledCluster {
            index: Index::new(),
            followers: scopes.map(|scope| (Compiler::new(scope), Replica::default())).collect(),
        }
    }

    /// Creates or replaces an object, as the API server would send it.
    pub fn apply(&mut self, value: &Value) {
        let text = |field: &str| value[field].as_str().unwrap_or_default();
        let kind = Kind::from_api(text("apiVersion"), text("kind")).expect("a kind that we use");
        let parsed = Object::parse(kind, value.clone()).expect("an object");
        self.index.handle(Event::Applied(parsed.object));
    }

    pub fn delete(&mut self, kind: Kind, namespace: &str, name: &str) {
        let name = NamespacedName::new(if kind.namespaced() { namespace } else { "" }, name);
        self.index.handle(Event::Deleted(ObjectKey { kind, name }));
    }

    /// Lets the compilers follow, and checks that each ends where one that never saw anything else begins,
    /// and that its changes tell all of it.
    pub fn follow(&mut self) {
        let touched = self.index.take_dirty_policy_objects();
        for (compiler, replica) in &mut self.followers {
            let changes = compiler.update(&self.index, &touched);
            replica.apply(&changes);
            replica.check(compiler.compiled());
            let scratch = Compiler::from_index(compiler.scope(), &self.index);
            assert_same(compiler.compiled(), scratch.compiled());
            let none = compiler.update(&self.index, &DirtyPolicyObjects::default());
            assert!(none.is_empty(), "nothing was touched: {none:?}");
            let none = compiler.update(&self.index, &everything(&self.index));
            assert!(none.is_empty(), "nothing changed: {none:?}");
        }
    }

    /// What the compiler of a scope has.
    pub fn compiled(&self, scope: Scope) -> &CompiledPolicies {
        let follower = self.followers.iter().find(|(compiler, _)| compiler.scope() == scope);
        follower.expect("it is followed").0.compiled()
    }
}

fn assert_same(followed: &CompiledPolicies, scratch: &CompiledPolicies) {
    // Asked part by part: the whole would fill screens.
    assert!(followed.pods().eq(scratch.pods()), "pods");
    assert!(followed.addresses().eq(scratch.addresses()), "addresses");
    assert!(followed.profiles().eq(scratch.profiles()), "profiles");
    assert!(followed.rules().eq(scratch.rules()), "rules");
    assert!(
        followed.sets().eq(scratch.sets()),
        "sets: {:#?} {:#?}",
        followed.sets().collect::<Vec<_>>(),
        scratch.sets().collect::<Vec<_>>()
    );
    assert!(followed.named_ports().eq(scratch.named_ports()), "named ports");
    assert!(followed.nodes().eq(scratch.nodes()), "nodes");
    assert!(followed == scratch);
}

/// As if all objects had been touched.
fn everything(index: &Index) -> DirtyPolicyObjects {
    let key = |kind, name: &NamespacedName| ObjectKey { kind, name: name.clone() };
    let mut touched = DirtyPolicyObjects::default();
    touched.nodes.extend(index.nodes().map(|node| node.name));
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
