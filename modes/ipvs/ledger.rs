//! Who needs what: Services may share an address, an entry of a set, and even a virtual server.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

use portcullis_cluster::NamespacedName;
use portcullis_netlink::ip_vs::VirtualServer;
use portcullis_netlink::ipset::SetEntry;

use super::ip_set::IpSet;
use super::service_objects::ServiceObjects;

/// What all Services of a family need.
#[derive(Default)]
pub(super) struct Ledger {
    addresses: Count<IpAddr>,
    entries: [Count<SetEntry>; IpSet::ALL.len()],
    out_filter: BTreeMap<String, usize>,
    owners: HashMap<VirtualServer, Owners>,
}

/// The Services that have a virtual server at one address and port. That with the least name is served: the
/// others would get its packets otherwise, depending on who came last.
enum Owners {
    One(NamespacedName),
    Several(BTreeSet<NamespacedName>),
}

/// What changed of a [`Ledger`], as far as the kernel must know.
#[derive(Default)]
pub(super) struct Delta {
    addresses: Touched<IpAddr>,
    entries: [Touched<SetEntry>; IpSet::ALL.len()],
    /// The rules of the out filter are not what they were.
    pub(super) out_filter: bool,
}

impl Delta {
    /// Takes in what changed after this.
    pub(super) fn extend(&mut self, later: &Delta) {
        extend(&mut self.addresses, &later.addresses);
        for (touched, later) in self.entries.iter_mut().zip(&later.entries) {
            extend(touched, later);
        }
        self.out_filter |= later.out_filter;
    }

    /// Notes an address that was not needed before.
    pub(super) fn touch_address(&mut self, address: IpAddr) {
        self.addresses.entry(address).or_insert(false);
    }

    pub(super) fn touches_address(&self, address: &IpAddr) -> bool {
        self.addresses.contains_key(address)
    }

    pub(super) fn touches_entry(&self, set: IpSet, entry: &SetEntry) -> bool {
        self.entries[set.at()].contains_key(entry)
    }
}

fn extend<T: Copy + Ord>(touched: &mut Touched<T>, later: &Touched<T>) {
    for (thing, was) in later {
        touched.entry(*thing).or_insert(*was);
    }
}

/// Things that were touched, and whether they were needed before that.
type Touched<T> = BTreeMap<T, bool>;

impl Ledger {
    /// An empty one, with room for so many Services with a virtual server each.
    pub(super) fn with_room_for(services: usize) -> Ledger {
        let mut ledger = Ledger { owners: HashMap::with_capacity(services), ..Ledger::default() };
        ledger.addresses.0.reserve(services);
        for set in [IpSet::ClusterIp, IpSet::IpvsIps] {
            ledger.entries[set.at()].0.reserve(services);
        }
        ledger
    }

    /// Takes in a Service.
    pub(super) fn add(&mut self, service: &NamespacedName, objects: &ServiceObjects, delta: &mut Delta) {
        for address in &objects.addresses {
            self.addresses.add(*address, &mut delta.addresses);
        }
        for (set, entry) in &objects.entries {
            self.entries[set.at()].add(*entry, &mut delta.entries[set.at()]);
        }
        for rule in &objects.out_filter {
            *self.out_filter.entry(rule.clone()).or_default() += 1;
            delta.out_filter = true;
        }
        for server in &objects.servers {
            match self.owners.entry(server.key) {
                std::collections::hash_map::Entry::Vacant(vacant) => {
                    vacant.insert(Owners::One(service.clone()));
                }
                std::collections::hash_map::Entry::Occupied(mut owners) => owners.get_mut().add(service),
            }
        }
    }

    /// Takes out a Service as it was taken in.
    pub(super) fn remove(&mut self, service: &NamespacedName, objects: &ServiceObjects, delta: &mut Delta) {
        for address in &objects.addresses {
            self.addresses.remove(address, &mut delta.addresses);
        }
        for (set, entry) in &objects.entries {
            self.entries[set.at()].remove(entry, &mut delta.entries[set.at()]);
        }
        for rule in &objects.out_filter {
            delta.out_filter = true;
            if let Some(count) = self.out_filter.get_mut(rule) {
                *count -= 1;
                if *count == 0 {
                    self.out_filter.remove(rule);
                }
            }
        }
        for server in &objects.servers {
            if self.owners.get_mut(&server.key).is_some_and(|owners| owners.remove(service)) {
                self.owners.remove(&server.key);
            }
        }
    }

    /// The Service that is served at a virtual server.
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
        self.entries[set.at()].0.keys()
    }

    pub(super) fn needs_entry(&self, set: IpSet, entry: &SetEntry) -> bool {
        self.entries[set.at()].0.contains_key(entry)
    }

    /// Which sets have entries, as in [`IpSet::ALL`].
    pub(super) fn filled(&self) -> [bool; IpSet::ALL.len()] {
        IpSet::ALL.map(|set| !self.entries[set.at()].0.is_empty())
    }

    /// The rules of the out filter, in order.
    pub(super) fn out_filter(&self) -> impl Iterator<Item = &str> {
        self.out_filter.keys().map(String::as_str)
    }

    /// The entries of a set that are new, and those that are no longer needed.
    pub(super) fn changed_entries(&self, set: IpSet, delta: &Delta) -> (Vec<SetEntry>, Vec<SetEntry>) {
        changed(&self.entries[set.at()], &delta.entries[set.at()])
    }

    /// The addresses that are new, and those that are no longer needed.
    pub(super) fn changed_addresses(&self, delta: &Delta) -> (Vec<IpAddr>, Vec<IpAddr>) {
        changed(&self.addresses, &delta.addresses)
    }
}

impl Owners {
    fn first(&self) -> &NamespacedName {
        match self {
            Owners::One(only) => only,
            Owners::Several(all) => all.first().expect("the last one takes the entry with it"),
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

    /// Says whether nobody is left.
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

/// How often each thing is needed; what is not is not there.
struct Count<T>(HashMap<T, u32>);

impl<T> Default for Count<T> {
    fn default() -> Self {
        Count(HashMap::new())
    }
}

impl<T: Copy + Eq + Hash + Ord> Count<T> {
    fn add(&mut self, thing: T, touched: &mut Touched<T>) {
        let count = self.0.entry(thing).or_default();
        touched.entry(thing).or_insert(*count > 0);
        *count += 1;
    }

    fn remove(&mut self, thing: &T, touched: &mut Touched<T>) {
        let Some(count) = self.0.get_mut(thing) else { return };
        touched.entry(*thing).or_insert(true);
        *count -= 1;
        if *count == 0 {
            self.0.remove(thing);
        }
    }
}

fn changed<T: Copy + Eq + Hash + Ord>(now: &Count<T>, touched: &Touched<T>) -> (Vec<T>, Vec<T>) {
    let is = |thing: &T| now.0.contains_key(thing);
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    for (thing, was) in touched {
        match (was, is(thing)) {
            (false, true) => added.push(*thing),
            (true, false) => removed.push(*thing),
            _ => {}
        }
    }
    (added, removed)
}

#[cfg(test)]
mod tests {
    use super::super::service_objects::Server;
    use super::*;
    use portcullis_netlink::Family;
    use portcullis_netlink::ip_vs::VirtualServerConfig;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 96, 0, last])
    }

    fn objects(last: &[u8]) -> ServiceObjects {
        let mut objects = ServiceObjects::default();
        for address in last.iter().map(|last| address(*last)) {
            let key = VirtualServer { protocol: 6, address, port: 80 };
            objects.serve(Server {
                key,
                config: VirtualServerConfig::new("rr", Family::V4),
                real: Vec::new(),
            });
            objects.addresses.push(address);
            objects.entries.push((IpSet::IpvsIps, SetEntry::Ip(address)));
        }
        objects
    }

    #[test]
    fn what_two_share_goes_with_the_last() {
        let (a, b) = (NamespacedName::new("default", "a"), NamespacedName::new("default", "b"));
        let mut ledger = Ledger::default();
        let key = |last| VirtualServer { protocol: 6, address: address(last), port: 80 };
        type Row<'a> = (bool, &'a NamespacedName, &'a [u8], &'a [u8], &'a [u8], Option<&'a NamespacedName>);
        #[rustfmt::skip]
        let rows: [Row<'_>; 6] = [
            // added?, who, what; new; no longer needed; who owns 2
            (true, &b, &[1, 2], &[1, 2], &[], Some(&b)),
            (true, &a, &[2, 3], &[3], &[], Some(&a)),
            (false, &a, &[2, 3], &[], &[3], Some(&b)),
            (true, &a, &[2], &[], &[], Some(&a)),
            (false, &b, &[1, 2], &[], &[1], Some(&a)),
            (false, &a, &[2], &[], &[2], None),
        ];
        for (i, (added, who, what, new, gone, owner)) in rows.into_iter().enumerate() {
            let mut delta = Delta::default();
            match added {
                true => ledger.add(who, &objects(what), &mut delta),
                false => ledger.remove(who, &objects(what), &mut delta),
            }
            let all = |last: &[u8]| last.iter().map(|l| address(*l)).collect::<Vec<_>>();
            assert_eq!(ledger.changed_addresses(&delta), (all(new), all(gone)), "row {i}");
            let entries = |last: &[u8]| all(last).into_iter().map(SetEntry::Ip).collect::<Vec<_>>();
            let changed = ledger.changed_entries(IpSet::IpvsIps, &delta);
            assert_eq!(changed, (entries(new), entries(gone)), "row {i}");
            assert_eq!(ledger.owner(&key(2)), owner, "row {i}");
        }
        assert!(ledger.owners.is_empty());
        assert_eq!(ledger.filled(), [false; IpSet::ALL.len()]);
    }

    #[test]
    fn what_comes_back_in_the_same_sync_never_went() {
        let a = NamespacedName::new("default", "a");
        let mut ledger = Ledger::default();
        ledger.add(&a, &objects(&[1, 2]), &mut Delta::default());
        let mut delta = Delta::default();
        ledger.remove(&a, &objects(&[1, 2]), &mut delta);
        ledger.add(&a, &objects(&[2, 3]), &mut delta);
        assert_eq!(ledger.changed_addresses(&delta), (vec![address(3)], vec![address(1)]));
    }
}
