//! Identities of the addresses of pods and nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portcullis_netlink::Family;

use super::address;
use super::range_map::Range;

/// The identity of each address that is in groups by selectors. A cluster has up to 150,000 of them, so the addresses of a family
/// are in a map of their own: with [`IpAddr`] as key, an entry would take three times the memory.
#[derive(Debug, Default)]
pub(super) struct Members {
    v4: BTreeMap<u32, u32>,
    v6: BTreeMap<u128, u32>,
}

impl Members {
    /// Returns the identity of an address; `None` if it is in no group by selectors.
    pub(super) fn get(&self, address: IpAddr) -> Option<u32> {
        match address {
            IpAddr::V4(address) => self.v4.get(&address.to_bits()).copied(),
            IpAddr::V6(address) => self.v6.get(&address.to_bits()).copied(),
        }
    }

    /// Sets the identity of an address; `None` removes it. Returns the identity before.
    pub(super) fn set(&mut self, address: IpAddr, identity: Option<u32>) -> Option<u32> {
        match (address, identity) {
            (IpAddr::V4(address), Some(identity)) => self.v4.insert(address.to_bits(), identity),
            (IpAddr::V4(address), None) => self.v4.remove(&address.to_bits()),
            (IpAddr::V6(address), Some(identity)) => self.v6.insert(address.to_bits(), identity),
            (IpAddr::V6(address), None) => self.v6.remove(&address.to_bits()),
        }
    }

    /// Returns all addresses with their identities.
    pub(super) fn iter(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        let v4 = self.v4.iter().map(|(number, identity)| (address(Family::V4, (*number).into()), *identity));
        v4.chain(self.v6.iter().map(|(number, identity)| (address(Family::V6, *number), *identity)))
    }

    /// Returns the addresses of a family in a range.
    pub(super) fn in_range(&self, family: Family, (first, last): Range) -> Vec<IpAddr> {
        match (address(family, first), address(family, last)) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                let numbers = self.v4.range(first.to_bits()..=last.to_bits());
                numbers.map(|(number, _)| address(family, (*number).into())).collect()
            }
            _ => self.v6.range(first..=last).map(|(number, _)| address(family, *number)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::number_of;
    use super::*;

    #[test]
    fn addresses_of_both_families_are_found_by_ranges() {
        let parse = |text: &str| -> IpAddr { text.parse().expect("an address") };
        let mut members = Members::default();
        for (identity, text) in (1..).zip(["10.0.0.1", "10.0.0.9", "10.0.1.0", "fd00::1", "fd00::2:0"]) {
            assert_eq!(members.set(parse(text), Some(identity)), None);
        }
        assert_eq!(members.set(parse("10.0.0.9"), Some(7)), Some(2));
        assert_eq!((members.get(parse("10.0.0.9")), members.get(parse("10.0.0.2"))), (Some(7), None));
        let in_range = |family, first: &str, last: &str| -> Vec<String> {
            let range = (number_of(parse(first)), number_of(parse(last)));
            members.in_range(family, range).iter().map(IpAddr::to_string).collect()
        };
        assert_eq!(in_range(Family::V4, "10.0.0.1", "10.0.0.255"), ["10.0.0.1", "10.0.0.9"]);
        assert_eq!(in_range(Family::V4, "0.0.0.0", "255.255.255.255").len(), 3);
        assert_eq!(in_range(Family::V6, "fd00::2", "fd00::ffff:ffff"), ["fd00::2:0"]);
        assert_eq!(members.iter().map(|(_, identity)| identity).collect::<Vec<_>>(), [1, 7, 3, 4, 5]);
        assert_eq!(members.set(parse("fd00::1"), None), Some(4));
        assert_eq!(members.get(parse("fd00::1")), None);
    }
}
