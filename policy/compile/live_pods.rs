//! Pods with addresses of their own: by namespace, and by address.
//!
//! A cluster has up to 150,000 of them. They are the objects of the index at the last update, and are shared with it, so that
//! the compiler has no copies of names, labels and addresses. An object that the index has replaced stays until the next update.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_cluster::labels::Labels;
use portcullis_cluster::pod::Pod;
use portcullis_cluster::{Name, NamespacedName, sparse};

/// Live pods. Several may have one address.
#[derive(Default)]
pub(super) struct LivePods {
    of_namespace: HashMap<Name, HashSet<ByName>>,
    at: HashSet<Owners>,
}

/// A pod that is found by its name in its namespace.
struct ByName(Arc<Pod>);

/// The pods with an address, which are found by it.
enum Owners {
    /// One pod, and the position of the address in its list.
    One(Arc<Pod>, u32),
    Several(Box<SeveralOwners>),
}

struct SeveralOwners {
    address: IpAddr,
    pods: Vec<Arc<Pod>>,
}

impl LivePods {
    /// Adds or replaces a pod. Returns its old and new addresses.
    pub(super) fn insert(&mut self, pod: &Arc<Pod>) -> Vec<IpAddr> {
        let mut addresses = self.remove(&pod.key);
        let pods = self.of_namespace.entry(pod.key.namespace.clone()).or_default();
        pods.insert(ByName(Arc::clone(pod)));
        for (position, address) in pod.ips.iter().enumerate() {
            if pod.ips[..position].contains(address) {
                continue;
            }
            self.add_owner(*address, pod, position);
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        addresses
    }

    /// Removes a pod, if it is present. Returns its addresses.
    pub(super) fn remove(&mut self, key: &NamespacedName) -> Vec<IpAddr> {
        let Some(pods) = self.of_namespace.get_mut(&key.namespace) else { return Vec::new() };
        let Some(ByName(pod)) = pods.take(&*key.name) else { return Vec::new() };
        // Releases the memory of a table that has become sparse.
        sparse::remove_element(pods, &*key.name);
        if pods.is_empty() {
            sparse::remove(&mut self.of_namespace, &key.namespace);
        }
        let mut addresses = pod.ips.to_vec();
        addresses.sort_unstable();
        addresses.dedup();
        addresses.iter().for_each(|address| self.remove_owner(*address, key));
        addresses
    }

    fn add_owner(&mut self, address: IpAddr, pod: &Arc<Pod>, position: usize) {
        let owners = match self.at.take(&address) {
            None => {
                let position = u32::try_from(position).expect("objects are smaller than 4 GiB");
                Owners::One(Arc::clone(pod), position)
            }
            Some(Owners::One(other, _)) => {
                Owners::Several(Box::new(SeveralOwners { address, pods: vec![other, Arc::clone(pod)] }))
            }
            Some(Owners::Several(mut several)) => {
                several.pods.push(Arc::clone(pod));
                Owners::Several(several)
            }
        };
        self.at.insert(owners);
    }

    fn remove_owner(&mut self, address: IpAddr, key: &NamespacedName) {
        let owners = self.at.take(&address);
        // Releases the memory of a table that has become sparse.
        sparse::remove_element(&mut self.at, &address);
        let Some(Owners::Several(several)) = owners else { return };
        for pod in several.pods.iter().filter(|pod| pod.key != *key) {
            let position = pod.ips.iter().position(|own| *own == address);
            self.add_owner(address, pod, position.expect("each owner has the address"));
        }
    }

    /// Returns the pods that have an address.
    pub(super) fn at(&self, address: IpAddr) -> &[Arc<Pod>] {
        match self.at.get(&address) {
            None => &[],
            Some(Owners::One(pod, _)) => std::slice::from_ref(pod),
            Some(Owners::Several(several)) => &several.pods,
        }
    }

    /// Returns all namespaces with pods.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Name> {
        self.of_namespace.keys()
    }

    /// Returns the pods of a namespace.
    pub(super) fn of_namespace(&self, namespace: &Name) -> impl Iterator<Item = &Pod> {
        self.of_namespace.get(namespace).into_iter().flatten().map(|pod| &*pod.0)
    }

    /// Returns the pods of a namespace, grouped by labels, so that selectors are evaluated once for all replicas of a workload.
    pub(super) fn by_labels(&self, namespace: &Name) -> HashMap<&Labels, Vec<&Pod>> {
        let mut groups: HashMap<&Labels, Vec<&Pod>> = HashMap::new();
        self.of_namespace(namespace).for_each(|pod| groups.entry(&pod.labels).or_default().push(pod));
        groups
    }
}

impl Owners {
    fn address(&self) -> &IpAddr {
        match self {
            Owners::One(pod, position) => &pod.ips[*position as usize],
            Owners::Several(several) => &several.address,
        }
    }
}

impl Borrow<str> for ByName {
    fn borrow(&self) -> &str {
        &self.0.key.name
    }
}

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (*self.0.key.name).hash(state);
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.key.name == other.0.key.name
    }
}

impl Eq for ByName {}

impl Borrow<IpAddr> for Owners {
    fn borrow(&self) -> &IpAddr {
        self.address()
    }
}

impl Hash for Owners {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address().hash(state);
    }
}

impl PartialEq for Owners {
    fn eq(&self, other: &Self) -> bool {
        self.address() == other.address()
    }
}

impl Eq for Owners {}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use portcullis_cluster::{Kind, Object};
    use serde_json::json;

    use super::*;

    fn pod(name: &str, app: &str, addresses: &[u8]) -> Arc<Pod> {
        let ips: Vec<_> = addresses.iter().map(|last| json!({"ip": format!("10.0.0.{last}")})).collect();
        let object = json!({
            "metadata": {"namespace": "shop", "name": name, "labels": {"app": app}}, "status": {"podIPs": ips},
        });
        match Object::parse(Kind::Pod, object).expect("a pod").object {
            Object::Pod(pod) => Arc::new(pod),
            _ => unreachable!("the kind was requested"),
        }
    }

    fn addresses(last: &[u8]) -> BTreeSet<IpAddr> {
        last.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect()
    }

    fn set(addresses: Vec<IpAddr>) -> BTreeSet<IpAddr> {
        let set: BTreeSet<IpAddr> = addresses.iter().copied().collect();
        assert_eq!(set.len(), addresses.len(), "without duplicates");
        set
    }

    fn shown(pods: &LivePods) -> BTreeMap<String, BTreeSet<String>> {
        let groups = pods.by_labels(&Name::new("shop")).into_iter().map(|(labels, pods)| {
            let names = pods.into_iter().map(|pod| pod.key.name.to_string());
            (labels.get("app").expect("all have it").to_owned(), names.collect())
        });
        groups.collect()
    }

    fn groups(expected: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<String>> {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        expected.iter().map(|(app, names)| (app.to_string(), owned(names))).collect()
    }

    fn names_at(pods: &LivePods, last: u8) -> BTreeSet<&str> {
        pods.at(IpAddr::from([10, 0, 0, last])).iter().map(|pod| &*pod.key.name).collect()
    }

    #[test]
    fn pods_are_found_by_labels_and_addresses() {
        let mut pods = LivePods::default();
        assert_eq!(set(pods.insert(&pod("one", "web", &[1]))), addresses(&[1]));
        assert_eq!(set(pods.insert(&pod("two", "web", &[2, 1, 2]))), addresses(&[1, 2]));
        assert_eq!(shown(&pods), groups(&[("web", &["one", "two"])]));
        assert_eq!(names_at(&pods, 1), BTreeSet::from(["one", "two"]));
        assert_eq!(names_at(&pods, 2), BTreeSet::from(["two"]));
        let moved = pods.insert(&pod("one", "db", &[3]));
        assert_eq!(set(moved), addresses(&[1, 3]), "old and new addresses");
        assert_eq!(shown(&pods), groups(&[("db", &["one"]), ("web", &["two"])]));
        assert_eq!(
            (names_at(&pods, 1), names_at(&pods, 3)),
            (BTreeSet::from(["two"]), BTreeSet::from(["one"]))
        );
        // A third owner, and a new version of an owner.
        pods.insert(&pod("one", "db", &[1]));
        pods.insert(&pod("three", "db", &[4, 1]));
        pods.insert(&pod("two", "cache", &[1]));
        assert_eq!(names_at(&pods, 1), BTreeSet::from(["one", "three", "two"]));
        assert_eq!(shown(&pods), groups(&[("cache", &["two"]), ("db", &["one", "three"])]));
        for name in ["one", "three", "two"] {
            let key = NamespacedName::new("shop", name);
            assert!(set(pods.remove(&key)).is_superset(&addresses(&[1])));
            assert!(!names_at(&pods, 1).contains(name));
            assert!(pods.remove(&key).is_empty(), "it was removed already");
        }
        assert!(pods.of_namespace.is_empty() && pods.at.is_empty());
    }

    #[test]
    fn tables_shrink_with_their_pods() {
        let mut pods = LivePods::default();
        let all: Vec<_> = (0..200_u8).map(|n| pod(&format!("pod-{n}"), "web", &[n])).collect();
        all.iter().for_each(|pod| _ = pods.insert(pod));
        all[1..].iter().for_each(|pod| _ = pods.remove(&pod.key));
        let of_namespace = &pods.of_namespace[&Name::new("shop")];
        assert_eq!((of_namespace.len(), pods.at.len()), (1, 1));
        assert!(of_namespace.capacity() < 30 && pods.at.capacity() < 30);
        assert_eq!((size_of::<ByName>(), size_of::<Owners>()), (8, 16), "the bytes of a pod in the tables");
    }
}
