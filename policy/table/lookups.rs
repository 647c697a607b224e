//! The elements of the table that the rules look up for a pod and a peer.

use std::net::IpAddr;

use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{Element, ElementData, Key, Set, Table};

use super::classes::DispatchKey;
use super::names::{EGRESS, INGRESS, PEER_RANGES, PEERS, of_family};
use super::policy_table::PolicyTable;
use super::priority::profiles;
use crate::compile::Direction;

/// An element of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookedUp {
    /// The name of the map.
    pub map: String,
    /// The element, as `nft` lists it.
    pub element: String,
}

impl PolicyTable {
    /// Returns the elements that the rules of a direction look up for a pod's address and a peer's, in this order: the pod's
    /// profile, the peer's identity, and its class. Empty if no policy selects the pod.
    pub fn lookups(&self, direction: Direction, pod: IpAddr, peer: IpAddr) -> Vec<LookedUp> {
        let mut lookups = Lookups { table: self.table().desired(), found: Vec::new() };
        let map = match direction {
            Direction::Ingress => INGRESS,
            Direction::Egress => EGRESS,
        };
        let Some(number) = lookups.number(&of_family(map, Family::from_address(pod)), &Key::from(pod)) else {
            return Vec::new();
        };
        lookups.number(profiles(direction), &Key::new().number(number));
        let family = Family::from_address(peer);
        let identity = lookups.number(&of_family(PEERS, family), &Key::from(peer));
        let identity = identity.or_else(|| lookups.range(&of_family(PEER_RANGES, family), &Key::from(peer)));
        let (Some(identity), Some(profile)) = (identity, self.profile(number)) else { return lookups.found };
        let [dispatch, _] = DispatchKey::of(profile);
        if let Some(class) = lookups.number(&dispatch.name(), &Key::new().number(identity)) {
            lookups.number(&dispatch.verdicts(), &Key::new().number(class));
        }
        lookups.found
    }
}

struct Lookups<'a> {
    table: &'a Table,
    found: Vec<LookedUp>,
}

impl Lookups<'_> {
    /// Looks up a key, and returns the number of its element; `None` if there is no element, or if it has a verdict.
    fn number(&mut self, map: &str, key: &Key) -> Option<u32> {
        let set = self.table.sets.get(map)?;
        let element = set.elements.get(key)?;
        self.add(map, set, key, &element)
    }

    /// Looks up the range that contains a key.
    fn range(&mut self, map: &str, key: &Key) -> Option<u32> {
        let set = self.table.sets.get(map)?;
        let contains = |(first, element): &(Key, Element)| {
            let last = element.last.as_ref().unwrap_or(first);
            first.bytes() <= key.bytes() && key.bytes() <= last.bytes()
        };
        let (first, element) = set.elements.iter().find(contains)?;
        self.add(map, set, &first, &element)
    }

    fn add(&mut self, map: &str, set: &Set, key: &Key, element: &Element) -> Option<u32> {
        self.found.push(LookedUp { map: map.to_owned(), element: set.line(key, element).to_string() });
        match &element.data {
            Some(ElementData::Value(value)) => value.bytes().try_into().ok().map(u32::from_ne_bytes),
            _ => None,
        }
    }
}
