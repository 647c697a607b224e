//! Equivalence classes of pods that no policy distinguishes, so that one pod of each class is evaluated for all.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_cluster::{Family, Name, NamespacedName};
use portcullis_policy::CompiledPolicies;
use portcullis_policy::compile::{AddressRanges, LocalPod, Profile};

/// Everything that decides about a pod's connections, except those to itself and to its own node.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Signature {
    namespace: Name,
    profiles: [Option<Arc<Profile>>; 2],
    addresses: Vec<AddressSignature>,
}

/// What rules match of an address.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct AddressSignature {
    is_ipv6: bool,
    /// The pod that owns the address, if it is another one.
    owner: Option<NamespacedName>,
    /// The peer sets that contain the address.
    sets: Vec<usize>,
    /// The rules' address ranges that contain the address.
    ranges: Vec<usize>,
    /// Its named ports, with the sets that contain them.
    named_ports: Vec<(usize, u16)>,
}

/// Returns the classes of equivalent pods, as indexes into `pods`, ordered by the first pod of each.
pub(super) fn classes(compiled: &CompiledPolicies, pods: &[&LocalPod]) -> Vec<Vec<usize>> {
    let matches = AddressMatches::new(compiled);
    let mut found: BTreeMap<Signature, Vec<usize>> = BTreeMap::new();
    for (index, pod) in pods.iter().enumerate() {
        found.entry(matches.signature(compiled, pod)).or_default().push(index);
    }
    let mut classes: Vec<Vec<usize>> = found.into_values().collect();
    classes.sort();
    classes
}

/// Sets and ranges of all rules, by address.
struct AddressMatches<'a> {
    sets: HashMap<IpAddr, Vec<usize>>,
    named_ports: HashMap<IpAddr, Vec<(usize, u16)>>,
    ranges: Vec<&'a AddressRanges>,
}

impl<'a> AddressMatches<'a> {
    fn new(compiled: &'a CompiledPolicies) -> Self {
        let mut sets: HashMap<IpAddr, Vec<usize>> = HashMap::new();
        for (set, (_, members)) in compiled.sets().enumerate() {
            members.iter().for_each(|address| sets.entry(*address).or_default().push(set));
        }
        let mut named_ports: HashMap<IpAddr, Vec<(usize, u16)>> = HashMap::new();
        for (set, (_, members)) in compiled.named_ports().enumerate() {
            members
                .iter()
                .for_each(|(address, port)| named_ports.entry(*address).or_default().push((set, *port)));
        }
        let rules = compiled.rules().flat_map(|(_, rules)| rules.iter());
        let ranges = rules.map(|rule| &rule.peers.blocks).filter(|ranges| !ranges.is_empty());
        AddressMatches { sets, named_ports, ranges: ranges.collect() }
    }

    fn signature(&self, compiled: &CompiledPolicies, pod: &LocalPod) -> Signature {
        let address = |address: &IpAddr| AddressSignature {
            is_ipv6: Family::from_address(*address) == Family::V6,
            owner: compiled.pod_at(*address).map(|owner| &owner.key).filter(|key| **key != pod.key).cloned(),
            sets: self.sets.get(address).cloned().unwrap_or_default(),
            ranges: (0..self.ranges.len()).filter(|index| self.ranges[*index].contains(*address)).collect(),
            named_ports: self.named_ports.get(address).cloned().unwrap_or_default(),
        };
        Signature {
            namespace: pod.key.namespace.clone(),
            profiles: [pod.ingress.clone(), pod.egress.clone()],
            addresses: pod.addresses.iter().map(address).collect(),
        }
    }
}

/// Returns at most two pods that represent a class: on two nodes if the class is on several, as a node may always reach
/// its own pods.
pub(super) fn samples(pods: &[&LocalPod], class: &[usize]) -> Vec<usize> {
    let first = class[0];
    let on_other_node = class.iter().find(|index| pods[**index].node != pods[first].node);
    std::iter::once(first).chain(on_other_node.or(class.get(1)).copied()).collect()
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::{Event, Index, Kind, Object};
    use portcullis_policy::{Compiler, Scope};
    use serde_json::{Value, json};

    use super::*;

    fn index(objects: &[(Kind, Value)]) -> Index {
        let mut index = Index::new();
        for (kind, value) in objects {
            let object = Object::parse(*kind, value.clone()).expect("a well-formed object").object;
            index.handle(Event::Applied(object));
        }
        index
    }

    fn pod(name: &str, node: &str, labels: Value, address: &str, port: u16) -> (Kind, Value) {
        let value = json!({
            "metadata": {"name": name, "namespace": "shop", "labels": labels},
            "spec": {"nodeName": node, "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": address}]},
        });
        (Kind::Pod, value)
    }

    fn policy(name: &str, spec: Value) -> (Kind, Value) {
        (Kind::NetworkPolicy, json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec}))
    }

    #[test]
    fn pods_are_equivalent_unless_a_rule_distinguishes_them() {
        let web = |hash: &str| json!({"app": "web", "pod-template-hash": hash});
        let pods = [
            pod("web-1", "node-1", web("a"), "10.244.1.1", 8080),
            pod("web-2", "node-2", web("b"), "10.244.2.2", 8080),
            pod("web-3", "node-2", web("b"), "10.244.2.3", 8081),
            pod("web-4", "node-2", web("b"), "10.244.2.129", 8080),
            pod("db-1", "node-1", json!({"app": "db"}), "10.244.1.5", 8080),
        ];
        let from_web = json!({"podSelector": {"matchLabels": {"app": "db"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]});
        let from_block = json!({"podSelector": {"matchLabels": {"app": "db"}},
            "ingress": [{"from": [{"ipBlock": {"cidr": "10.244.2.128/25"}}]}]});
        let by_name = json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"ports": [{"port": "http"}]}]});
        for (policies, expected) in [
            (vec![], vec![vec![0, 1, 2, 3, 4]]),
            (vec![policy("in", from_web.clone())], vec![vec![0, 1, 2, 3], vec![4]]),
            (vec![policy("block", from_block)], vec![vec![0, 1, 2], vec![3], vec![4]]),
            (vec![policy("named", by_name.clone())], vec![vec![0, 1, 3], vec![2], vec![4]]),
            (vec![policy("in", from_web), policy("named", by_name)], vec![vec![0, 1, 3], vec![2], vec![4]]),
        ] {
            let objects: Vec<(Kind, Value)> = pods.iter().cloned().chain(policies).collect();
            let index = index(&objects);
            let compiler = Compiler::from_index(Scope::Cluster, &index);
            let compiled = compiler.compiled();
            // By name, `db-1` is the first.
            let mut all: Vec<&LocalPod> = compiled.pods().collect();
            all.rotate_left(1);
            assert_eq!(classes(compiled, &all), expected, "{:?}", &objects[pods.len()..]);
            assert_eq!(samples(&all, &[0, 1, 3]), [0, 1]);
            assert_eq!(samples(&all, &[1, 2, 3]), [1, 2]);
        }
    }
}
