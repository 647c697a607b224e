//! Reference counts of kernel objects: Services may share an address, an entry of a set, or a virtual server.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

use portcullis_cluster::{NamespacedName, sparse};
use portcullis_netlink::ip_vs::VirtualServer;
use portcullis_netlink::ipset::SetEntry;

use super::ip_set::{IpSet, PerSet};
use super::service_objects::ServiceObjects;

/// The kernel objects that the Services of a family need, with the number of references to each.
#[derive(Default)]
pub(super) struct References {
    addresses: Counts<IpAddr>,
    entries: PerSet<Counts<SetEntry>>,
    out_filter: BTreeMap<String, usize>,
    owners: HashMap<VirtualServer, Owners>,
}

/// The Services that need one virtual server. The one with the least name owns it: which Service gets its packets
/// does not depend on the order in which they were created.
enum Owners {
    One(NamespacedName),
    Several(BTreeSet<NamespacedName>),
}

/// Changes of [`References`]: each object that was touched, and whether it was needed before the first change.
#[derive(Default)]
pub(super) struct ReferenceChanges {
    addresses: Touched<IpAddr>,
    entries: PerSet<Touched<SetEntry>>,
    /// The rules of the out filter may have changed.
    pub(super) out_filter: bool,
}

type Touched<T> = BTreeMap<T, bool>;

impl ReferenceChanges {
    /// Adds changes that came after these.
    pub(super) fn extend(&mut self, later: &ReferenceChanges) {
        extend(&mut self.addresses, &later.addresses);
        for set in IpSet::ALL {
            extend(&mut self.entries[set], &later.entries[set]);
        }
        self.out_filter |= later.out_filter;
    }

    /// Adds an address that was not needed before.
    pub(super) fn touch_address(&mut self, address: IpAddr) {
        self.addresses.entry(address).or_insert(false);
    }

    pub(super) fn touches_address(&self, address: &IpAddr) -> bool {
        self.addresses.contains_key(address)
    }

    pub(super) fn touches_entry(&self, set: IpSet, entry: &SetEntry) -> bool {
        self.entries[set].contains_key(entry)
    }
}

fn extend<T: Copy + Ord>(touched: &mut Touched<T>, later: &Touched<T>) {
    for (object, was_needed) in later {
        touched.entry(*object).or_insert(*was_needed);
    }
}

impl References {
    /// Returns empty counts with room for this number of Services with one virtual server each.
    pub(super) fn with_capacity(services: usize) -> References {
        let mut references = References { owners: HashMap::with_capacity(services), ..References::default() };
        references.addresses.0.reserve(services);
        for set in [IpSet::ClusterIp, IpSet::IpvsIps] {
            references.entries[set].0.reserve(services);
        }
        references
    }

    /// Adds the objects of a Service.
    pub(super) fn add(
        &mut self,
        service: &NamespacedName,
        objects: &ServiceObjects,
        changes: &mut ReferenceChanges,
    ) {
        for address in &objects.addresses {
            self.addresses.add(*address, &mut changes.addresses);
        }
        for (set, entry) in &objects.entries {
            self.entries[*set].add(*entry, &mut changes.entries[*set]);
        }
        for rule in &objects.out_filter {
            *self.out_filter.entry(rule.clone()).or_default() += 1;
            changes.out_filter = true;
        }
        for (server, _) in &objects.servers {
            match self.owners.entry(*server) {
                Entry::Vacant(vacant) => {
                    vacant.insert(Owners::One(service.clone()));
                }
                Entry::Occupied(mut owners) => owners.get_mut().add(service),
            }
        }
    }

    /// Removes the objects of a Service, which must be those that were added.
    pub(super) fn remove(
        &mut self,
        service: &NamespacedName,
        objects: &ServiceObjects,
        changes: &mut ReferenceChanges,
    ) {
        for address in &objects.addresses {
            self.addresses.remove(address, &mut changes.addresses);
        }
        for (set, entry) in &objects.entries {
            self.entries[*set].remove(entry, &mut changes.entries[*set]);
        }
        for rule in &objects.out_filter {
            changes.out_filter = true;
            if let Some(count) = self.out_filter.get_mut(rule) {
                *count -= 1;
                if *count == 0 {
                    self.out_filter.remove(rule);
                }
            }
        }
        for (server, _) in &objects.servers {
            if self.owners.get_mut(server).is_some_and(|owners| owners.remove(service)) {
                sparse::remove(&mut self.owners, server);
            }
        }
    }

    /// Returns the Service whose endpoints a virtual server has.
    pub(super) fn owner(&self, server: &VirtualServer) -> Option<&NamespacedName> {
        self.owners.get(server).map(Owners::first)
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.addresses.0.keys()
    }

    pub(super) fn needs_address(&self, address: &IpAddr) -> bool {
        self.addresses.0.contains_key(address)
    }

    pub(super) fn entries(&self, set: IpSet) -> impl Iterator<Item = &SetEntry> {
        self.entries[set].0.keys()
    }

    pub(super) fn needs_entry(&self, set: IpSet, entry: &SetEntry) -> bool {
        self.entries[set].0.contains_key(entry)
    }

    /// Returns for each set whether it has entries.
    pub(super) fn filled(&self) -> PerSet<bool> {
        PerSet::from_fn(|set| !self.entries[set].0.is_empty())
    }

    /// Returns the rules of the out filter, in order.
    pub(super) fn out_filter(&self) -> impl Iterator<Item = &str> {
        self.out_filter.keys().map(String::as_str)
    }

    /// Returns the entries of a set that are needed since the changes, and those that no longer are.
    pub(super) fn changed_entries(
        &self,
        set: IpSet,
        changes: &ReferenceChanges,
    ) -> (Vec<SetEntry>, Vec<SetEntry>) {
        changed(&self.entries[set], &changes.entries[set])
    }

    /// Returns the addresses that are needed since the changes, and those that no longer are.
    pub(super) fn changed_addresses(&self, changes: &ReferenceChanges) -> (Vec<IpAddr>, Vec<IpAddr>) {
        changed(&self.addresses, &changes.addresses)
    }
}

impl Owners {
    fn first(&self) -> &NamespacedName {
        match self {
            Owners::One(only) => only,
            Owners::Several(all) => all.first().expect("an empty set is removed"),
        }
    }

    fn add(&mut self, service: &NamespacedName) {
        match self {
            Owners::One(only) if only == service => {}
            Owners::One(only) => {
                *self = Owners::Several(BTreeSet::from([only.clone(), service.clone()]));
            }
            Owners::Several(all) => {
                all.insert(service.clone());
            }
        }
    }

    /// Removes a Service. Returns true if none is left.
    fn remove(&mut self, service: &NamespacedName) -> bool {
        match self {
            Owners::One(only) => only == service,
            Owners::Several(all) => {
                all.remove(service);
                all.is_empty()
            }
        }
    }
}

/// The number of references to each object; an object without references has no count.
struct Counts<T>(HashMap<T, u32>);

impl<T> Default for Counts<T> {
    fn default() -> Self {
        Counts(HashMap::new())
    }
}

impl<T: Copy + Eq + Hash + Ord> Counts<T> {
    fn add(&mut self, object: T, touched: &mut Touched<T>) {
        let count = self.0.entry(object).or_default();
        touched.entry(object).or_insert(*count > 0);
        *count += 1;
    }

    fn remove(&mut self, object: &T, touched: &mut Touched<T>) {
        let Some(count) = self.0.get_mut(object) else { return };
        touched.entry(*object).or_insert(true);
        *count -= 1;
        if *count == 0 {
            sparse::remove(&mut self.0, object);
        }
    }
}

fn changed<T: Copy + Eq + Hash + Ord>(counts: &Counts<T>, touched: &Touched<T>) -> (Vec<T>, Vec<T>) {
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    for (object, was_needed) in touched {
        match (was_needed, counts.0.contains_key(object)) {
            (false, true) => added.push(*object),
            (true, false) => removed.push(*object),
            _ => {}
        }
    }
    (added, removed)
}

#[cfg(test)]
mod tests {
    use portcullis_netlink::Family;
    use portcullis_netlink::ip_vs::VirtualServerConfig;

    use super::super::service_objects::ServerSpec;
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 96, 0, last])
    }

    fn objects(last: &[u8]) -> ServiceObjects {
        let mut objects = ServiceObjects::default();
        for address in last.iter().map(|last| address(*last)) {
            let server = VirtualServer { protocol: 6, address, port: 80 };
            let config = VirtualServerConfig::new("rr", Family::V4);
            objects.add_server(server, ServerSpec { config, real_servers: Vec::new() });
            objects.addresses.push(address);
            objects.entries.push((IpSet::IpvsIps, SetEntry::Ip(address)));
        }
        objects
    }

    #[test]
    fn shared_objects_are_removed_with_the_last_service() {
        let (a, b) = (NamespacedName::new("default", "a"), NamespacedName::new("default", "b"));
        let mut references = References::default();
        let server = |last| VirtualServer { protocol: 6, address: address(last), port: 80 };
        type Row<'a> = (bool, &'a NamespacedName, &'a [u8], &'a [u8], &'a [u8], Option<&'a NamespacedName>);
        #[rustfmt::skip]
        let rows: [Row<'_>; 6] = [
            // is added; Service; its addresses; added addresses; removed addresses; owner of 10.96.0.2
            (true, &b, &[1, 2], &[1, 2], &[], Some(&b)),
            (true, &a, &[2, 3], &[3], &[], Some(&a)),
            (false, &a, &[2, 3], &[], &[3], Some(&b)),
            (true, &a, &[2], &[], &[], Some(&a)),
            (false, &b, &[1, 2], &[], &[1], Some(&a)),
            (false, &a, &[2], &[], &[2], None),
        ];
        for (i, (is_added, service, last, added, removed, owner)) in rows.into_iter().enumerate() {
            let mut changes = ReferenceChanges::default();
            match is_added {
                true => references.add(service, &objects(last), &mut changes),
                false => references.remove(service, &objects(last), &mut changes),
            }
            let all = |last: &[u8]| last.iter().map(|l| address(*l)).collect::<Vec<_>>();
            assert_eq!(references.changed_addresses(&changes), (all(added), all(removed)), "row {i}");
            let entries = |last: &[u8]| all(last).into_iter().map(SetEntry::Ip).collect::<Vec<_>>();
            let changed = references.changed_entries(IpSet::IpvsIps, &changes);
            assert_eq!(changed, (entries(added), entries(removed)), "row {i}");
            assert_eq!(references.owner(&server(2)), owner, "row {i}");
        }
        assert!(references.owners.is_empty());
        assert_eq!(references.filled(), PerSet::default());
    }

    #[test]
    fn objects_that_are_removed_and_added_again_do_not_change() {
        let a = NamespacedName::new("default", "a");
        let mut references = References::default();
        references.add(&a, &objects(&[1, 2]), &mut ReferenceChanges::default());
        let mut changes = ReferenceChanges::default();
        references.remove(&a, &objects(&[1, 2]), &mut changes);
        references.add(&a, &objects(&[2, 3]), &mut changes);
        assert_eq!(references.changed_addresses(&changes), (vec![address(3)], vec![address(1)]));
    }
}
