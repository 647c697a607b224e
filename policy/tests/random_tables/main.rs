//! Properties of the policies' tables of random clusters: traced packets are decided as by the reference evaluation, updated
//! tables decide as tables from scratch, a real kernel accepts each update, and packets that flow while policies change are
//! decided as before and after.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../naive/mod.rs"]
mod naive;
#[path = "../../../netlink/tests/namespace/mod.rs"]
mod namespace;
#[path = "../random_objects/mod.rs"]
mod random_objects;
#[path = "../../../netlink/tests/namespace/veth.rs"]
mod veth;

mod kernel;
mod traced;
mod traffic;
mod under_traffic;

use naive::NaiveCluster;
use portcullis_cluster::{Index, Kind, NamespacedName, Object, ObjectKey};
use portcullis_policy::compile::DirtyPolicyObjects;
use proptest::prelude::*;
use random_objects::policies::{Scale, many_policies};
use random_objects::{Event, event, object};

const SCALE: Scale = Scale { names: 4, peers: 4, networks: 4 };

/// Enough that pods are selected by dozens of policies.
const CROWDED: Scale = Scale { names: 80, peers: 2, networks: 3 };

/// The objects of a cluster, as an index and for the reference evaluation.
#[derive(Default)]
pub(crate) struct Cluster {
    pub(crate) index: Index,
    pub(crate) naive: NaiveCluster,
    dirty: DirtyPolicyObjects,
}

impl Cluster {
    /// Handles events. Returns the objects that changed.
    pub(crate) fn handle(&mut self, events: &[Event]) -> DirtyPolicyObjects {
        for event in events {
            let event = match event {
                Event::Apply(object) => {
                    self.naive.apply(object);
                    let text = |field: &str| object[field].as_str().unwrap();
                    let kind = Kind::from_api(text("apiVersion"), text("kind")).unwrap();
                    portcullis_cluster::Event::Applied(Object::parse(kind, object.clone()).unwrap().object)
                }
                Event::Delete(kind, namespace, name) => {
                    self.naive.delete(kind.as_str(), namespace, name);
                    let namespace = if kind.namespaced() { namespace } else { "" };
                    let name = NamespacedName::new(namespace, name);
                    portcullis_cluster::Event::Deleted(ObjectKey { kind: *kind, name })
                }
            };
            self.dirty.extend(self.index.handle(event));
        }
        std::mem::take(&mut self.dirty)
    }
}

/// Returns batches of events. The first creates most of the cluster, sometimes with dozens of policies for all pods of a
/// namespace.
pub(crate) fn batches() -> impl Strategy<Value = Vec<Vec<Event>>> {
    let crowd = prop_oneof![3 => Just(Vec::new()), 1 => many_policies(CROWDED)];
    let start = (crowd, prop::collection::vec(object(SCALE), 0..30));
    let change = prop_oneof![3 => event(SCALE), 1 => event(CROWDED)];
    let changes = prop::collection::vec(prop::collection::vec(change, 1..4), 1..6);
    (start, changes).prop_map(|((crowd, objects), changes)| {
        let start = crowd.into_iter().chain(objects).map(Event::Apply).collect();
        std::iter::once(start).chain(changes).collect()
    })
}
