//! A copy of the compiled policies that is built from the reported changes alone, as the kernel's table is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_cluster::Name;
use portcullis_policy::compile::{
    CompiledPolicies, NamedPortId, PeerSetId, PodProfiles, PolicyChanges, PolicyRule, Profile, RulePorts,
    RulesId, SetChange, SetUpdate,
};

#[derive(Default)]
pub struct Replica {
    addresses: BTreeMap<IpAddr, PodProfiles>,
    profiles: BTreeSet<Arc<Profile>>,
    rules: BTreeMap<RulesId, Arc<[PolicyRule]>>,
    sets: BTreeMap<PeerSetId, BTreeSet<IpAddr>>,
    named_ports: BTreeMap<NamedPortId, BTreeSet<(IpAddr, u16)>>,
    nodes: BTreeMap<Name, Box<[IpAddr]>>,
}

impl Replica {
    /// Applies changes. Each must match the state before it, and change something.
    pub fn apply(&mut self, changes: &PolicyChanges) {
        assert!(changes.addresses.is_sorted_by(|a, b| a.address < b.address));
        for change in &changes.addresses {
            assert_ne!(change.before, change.after, "{}", change.address);
            assert_eq!(put(&mut self.addresses, change.address, change.after.clone()), change.before);
        }
        assert!(changes.profiles_added.is_sorted() && changes.profiles_removed.is_sorted());
        for profile in &changes.profiles_added {
            assert!(self.profiles.insert(Arc::clone(profile)), "{profile:?} was added twice");
        }
        for profile in &changes.profiles_removed {
            assert!(self.profiles.remove(profile), "{profile:?} was removed twice");
        }
        assert!(changes.rules.is_sorted_by(|a, b| a.id < b.id));
        for change in &changes.rules {
            assert_ne!(change.before, change.after, "{}", change.id);
            assert_eq!(put(&mut self.rules, change.id.clone(), change.after.clone()), change.before);
        }
        apply_set_changes(&mut self.sets, &changes.sets);
        apply_set_changes(&mut self.named_ports, &changes.named_ports);
        assert!(changes.nodes.is_sorted_by(|a, b| a.node < b.node));
        for change in &changes.nodes {
            assert_ne!(change.before, change.after, "{}", change.node);
            let after = (!change.after.is_empty()).then(|| change.after.clone());
            assert_eq!(put(&mut self.nodes, change.node.clone(), after).unwrap_or_default(), change.before);
        }
    }

    /// Checks that it equals the compiled policies, that all references exist, and that all names are valid nf_tables
    /// names.
    pub fn check(&self, compiled: &CompiledPolicies) {
        let addresses = compiled.addresses().map(|(address, pod)| (address, pod.profiles()));
        assert!(addresses.eq(self.addresses.clone()));
        assert!(compiled.profiles().eq(&self.profiles));
        assert!(compiled.rules().eq(&self.rules));
        assert!(compiled.sets().eq(&self.sets));
        assert!(compiled.named_ports().eq(&self.named_ports));
        assert!(compiled.nodes().eq(self.nodes.iter().map(|(name, addresses)| (name, &**addresses))));

        let profiles = compiled.pods().flat_map(|pod| [&pod.ingress, &pod.egress]).flatten();
        assert_eq!(profiles.collect::<BTreeSet<_>>(), self.profiles.iter().collect());
        for profile in &self.profiles {
            assert!(profile.network.is_empty() || profile.baseline.is_empty(), "{profile:?}");
        }
        let rules: BTreeSet<RulesId> = self.profiles.iter().flat_map(|profile| profile.rules()).collect();
        assert!(rules.iter().eq(self.rules.keys()));
        let all = || self.rules.values().flat_map(|rules| rules.iter());
        let sets: BTreeSet<&PeerSetId> = all().filter_map(|rule| rule.peers.pods.as_ref()).collect();
        assert!(sets.into_iter().eq(self.sets.keys()));
        let named = |rule: &PolicyRule| match &rule.ports {
            RulePorts::Any => Vec::new(),
            RulePorts::Listed { named, .. } => named.to_vec(),
        };
        assert!(all().flat_map(named).collect::<BTreeSet<_>>().iter().eq(self.named_ports.keys()));

        let mut names = BTreeSet::new();
        let mut check_name = |name: String, description: String| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
            let letter_first = name.starts_with(|c: char| c.is_ascii_alphabetic());
            assert!(letter_first && name.chars().all(allowed) && name.len() <= 200, "{name}");
            assert!(!description.is_empty() && description.len() <= 128, "{description}");
            assert!(names.insert(name.clone()), "{name} names two objects");
        };
        self.profiles.iter().for_each(|profile| check_name(profile.name(), profile.describe()));
        self.rules.keys().for_each(|id| check_name(id.name(), id.describe()));
        self.sets.keys().for_each(|id| check_name(id.name(), id.describe()));
        self.named_ports.keys().for_each(|id| check_name(id.name(), id.describe()));
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    }
}

fn apply_set_changes<Id, Element>(
    sets: &mut BTreeMap<Id, BTreeSet<Element>>,
    changes: &[SetChange<Id, Element>],
) where
    Id: Ord + Clone + Debug,
    Element: Ord + Copy + Debug,
{
    assert!(changes.is_sorted_by(|a, b| a.id < b.id));
    for SetChange { id, update } in changes {
        match update {
            SetUpdate::Created(all) => {
                assert!(all.is_sorted_by(|a, b| a < b));
                assert!(sets.insert(id.clone(), all.iter().copied().collect()).is_none(), "{id:?}");
            }
            SetUpdate::Deleted => assert!(sets.remove(id).is_some(), "{id:?}"),
            SetUpdate::Updated { added, removed } => {
                assert!(!(added.is_empty() && removed.is_empty()), "{id:?}");
                assert!(added.is_sorted_by(|a, b| a < b) && removed.is_sorted_by(|a, b| a < b));
                let set = sets.get_mut(id).expect("it was there");
                removed.iter().for_each(|element| assert!(set.remove(element), "{element:?} of {id:?}"));
                added.iter().for_each(|element| assert!(set.insert(*element), "{element:?} of {id:?}"));
                assert!(added.iter().all(|element| !removed.contains(element)));
            }
        }
    }
}
