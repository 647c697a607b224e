//! The dispatch of frontends with many endpoints, by their number of endpoints.
//!
//! ```text
//! @service-counts      frontends with more than MAX_SEQUENTIAL endpoints, and their number of endpoints
//! @service-by-count    numbers of endpoints, and the chains of their maps
//!
//! service-many         look up the number in @service-counts, then jump to its chain by @service-by-count
//! ```
//! So two lookups find the map, whatever the number of different numbers. A rule cannot use what it found in a map as the key of another
//! map: `nft` 1.0.6 aborts when it lists such a rule. The packet priority carries the number, as for session affinity, and is 0
//! afterwards. The rule has a chain of its own, which does not change: for each added rule with a map, the kernel walks the elements of
//! the map.
//!
//! While a transaction moves a frontend to another map, a packet may find the old number, and then a map without the frontend. It returns
//! from that map, and looks up its number again.

use std::sync::Arc;

use portcullis_netlink::nf_tables::{
    Chain, DataType, DesiredTable, Element, Field, Key, Rule, Set, SetSpec, Verdict,
};

use super::endpoint_map::{EndpointMap, FrontendKey, MapKind};
use super::settings::Settings;

/// The number of endpoints up to which endpoint maps are tried one after the other. Most Services have fewer, and need no element
/// with their number.
const MAX_SEQUENTIAL: u16 = 6;

/// The maps from frontends to numbers of endpoints, and from these to chains, for endpoint maps of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct CountMaps {
    pub(super) key: FrontendKey,
    pub(super) kind: MapKind,
}

impl EndpointMap {
    /// Returns the maps by which this one is found; `None` if it is tried after others.
    pub(super) fn count_maps(self) -> Option<CountMaps> {
        let EndpointMap { key, kind, count } = self;
        (count > MAX_SEQUENTIAL).then_some(CountMaps { key, kind })
    }

    /// Returns the number of endpoints as a key or value of these maps.
    pub(super) fn count_key(self) -> Key {
        Key::new().number(self.count.into())
    }
}

impl CountMaps {
    /// Returns the name of the map from frontends to their number of endpoints.
    pub(super) fn frontends(self) -> Arc<str> {
        self.name("counts")
    }

    /// Returns the name of the verdict map from numbers of endpoints to the chains of endpoint maps.
    pub(super) fn chains(self) -> Arc<str> {
        self.name("by-count")
    }

    /// Returns the name of the chain that looks up both maps.
    pub(super) fn dispatch_chain(self) -> Arc<str> {
        self.name("many")
    }

    fn name(self, suffix: &str) -> Arc<str> {
        format!("{}-{suffix}", EndpointMap::prefix(self.key, self.kind)).into()
    }

    /// Returns the maps for whose map from frontends this is the name.
    pub(super) fn from_frontends(name: &str) -> Option<Self> {
        let all =
            FrontendKey::ALL.into_iter().flat_map(|key| MapKind::ALL.map(|kind| CountMaps { key, kind }));
        all.into_iter().find(|maps| *maps.frontends() == *name)
    }

    /// Adds an endpoint map, and these maps with their chain if they are new.
    pub(super) fn add(self, map: EndpointMap, table: &mut DesiredTable, settings: &Settings) {
        // Putting a map that exists would remove its elements.
        if !table.desired().sets.contains_key(&self.frontends()) {
            let number = [DataType::Mark];
            let frontends = SetSpec::new(&self.key.types(settings)).with_data(&number);
            table.put_set(&self.frontends(), Set::new(frontends.with_comment("numbers of endpoints")));
            let chains = SetSpec::verdict_map(&number).with_comment("maps by number of endpoints");
            table.put_set(&self.chains(), Set::new(chains));
            let rule = Rule::new()
                .set_priority_from_map(&self.key.fields(settings), self.frontends())
                .verdict_map(&[Field::PRIORITY], self.chains());
            table.put_chain(&self.dispatch_chain(), Chain::new(vec![rule]));
        }
        table.put_element(&self.chains(), map.count_key(), Element::verdict(Verdict::Jump(map.name())));
    }

    /// Removes an endpoint map, and with the last one these maps and their chain.
    pub(super) fn remove(self, map: EndpointMap, is_last: bool, table: &mut DesiredTable) {
        table.remove_element(&self.chains(), &map.count_key());
        if is_last {
            table.remove_chain(&self.dispatch_chain());
            table.remove_set(&self.frontends());
            table.remove_set(&self.chains());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_have_names_that_can_be_parsed() {
        for key in FrontendKey::ALL {
            for kind in MapKind::ALL {
                let maps = (EndpointMap { key, kind, count: u16::MAX }).count_maps().expect("many endpoints");
                assert_eq!(CountMaps::from_frontends(&maps.frontends()), Some(maps));
                for name in [maps.frontends(), maps.chains(), maps.dispatch_chain()] {
                    assert_eq!(EndpointMap::from_name(&name), None, "{name}");
                }
                assert_eq!((EndpointMap { key, kind, count: MAX_SEQUENTIAL }).count_maps(), None);
            }
        }
    }
}
