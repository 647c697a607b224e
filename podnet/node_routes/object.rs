//! What the kernel needs to forward packets to other nodes, and the difference of two states.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_netlink::route::{FdbEntry, MacAddress, Neighbour, Route};

/// An entry of the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardingObject {
    /// The host to which the overlay sends frames for a VTEP.
    Fdb(FdbEntry),
    /// The MAC address of a VTEP.
    Neighbour(Neighbour),
    /// A route.
    Route(Route),
}

/// The key of an object: the kernel has at most one with each key. Their order is that in which objects are added: a route is of use
/// once packets know their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ForwardingKey {
    /// Link and MAC address.
    Fdb(u32, MacAddress),
    /// Link and IP address.
    Neighbour(u32, IpAddr),
    /// Destinations and metric.
    Route(IpNet, u32),
}

impl fmt::Display for ForwardingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ForwardingKey::Fdb(_, mac) => write!(f, "FDB entry for {mac}"),
            ForwardingKey::Neighbour(_, address) => write!(f, "neighbour {address}"),
            ForwardingKey::Route(destination, _) => write!(f, "route to {destination}"),
        }
    }
}

impl ForwardingObject {
    /// Returns the key.
    pub fn key(&self) -> ForwardingKey {
        match self {
            ForwardingObject::Fdb(entry) => ForwardingKey::Fdb(entry.link, entry.mac),
            ForwardingObject::Neighbour(neighbour) => {
                ForwardingKey::Neighbour(neighbour.link, neighbour.address)
            }
            ForwardingObject::Route(route) => ForwardingKey::Route(route.destination, route.metric),
        }
    }
}

/// The objects of a node, by key.
pub type Forwarding = BTreeMap<ForwardingKey, ForwardingObject>;

/// A change of an object: added, replaced or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardingChange {
    /// The object before.
    pub before: Option<ForwardingObject>,
    /// The object after.
    pub after: Option<ForwardingObject>,
}

/// Changes by key. Each has an effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardingChanges(BTreeMap<ForwardingKey, ForwardingChange>);

impl ForwardingChanges {
    /// Returns the changes that lead from one state to another.
    pub fn between(current: &Forwarding, wanted: &Forwarding) -> Self {
        let removed = current.iter().filter(|(key, _)| !wanted.contains_key(key));
        let removed =
            removed.map(|(key, object)| (*key, ForwardingChange { before: Some(*object), after: None }));
        let set = wanted.iter().filter_map(|(key, object)| {
            let before = current.get(key).copied();
            (before != Some(*object)).then_some((*key, ForwardingChange { before, after: Some(*object) }))
        });
        ForwardingChanges(removed.chain(set).collect())
    }

    /// Records a change of an object of the state `forwarding`, and changes the state.
    pub(super) fn set(
        &mut self,
        forwarding: &mut Forwarding,
        key: ForwardingKey,
        after: Option<ForwardingObject>,
    ) {
        let before = match after {
            Some(object) => forwarding.insert(key, object),
            None => forwarding.remove(&key),
        };
        // Of an object that was changed before, the first state counts.
        let before = self.0.get(&key).map_or(before, |change| change.before);
        if before == after {
            self.0.remove(&key);
        } else {
            self.0.insert(key, ForwardingChange { before, after });
        }
    }

    /// Adds later changes.
    pub fn extend(&mut self, later: ForwardingChanges) {
        for (key, ForwardingChange { before, after }) in later.0 {
            let before = self.0.get(&key).map_or(before, |change| change.before);
            if before == after {
                self.0.remove(&key);
            } else {
                self.0.insert(key, ForwardingChange { before, after });
            }
        }
    }

    /// Returns true if the object with this key is added: it was not there before.
    pub fn adds(&self, key: &ForwardingKey) -> bool {
        self.0.get(key).is_some_and(|change| change.before.is_none())
    }

    /// Returns true if there are no changes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of changes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the changes in the order in which they are to be made: objects are added and replaced before others are removed, and
    /// removed in the opposite order.
    pub fn in_order(&self) -> impl Iterator<Item = (&ForwardingKey, &ForwardingChange)> {
        let set = self.0.iter().filter(|(_, change)| change.after.is_some());
        set.chain(self.0.iter().rev().filter(|(_, change)| change.after.is_none()))
    }
}
