//! Choice of the next address of a range.

use std::collections::HashSet;
use std::net::IpAddr;

use super::pod_range::PodRange;

/// Number of addresses that are looked up one by one before all are listed: about the cost of listing 1,000 files.
const LOOKUPS: usize = 1_000;

/// Reservations, as the allocator sees them.
pub(super) trait Reservations {
    /// Error of a lookup.
    type Error;

    /// Returns whether an address is held.
    fn is_held(&self, address: IpAddr) -> Result<bool, Self::Error>;

    /// Returns all addresses that are held, and possibly others.
    fn held(&self) -> Result<HashSet<IpAddr>, Self::Error>;
}

/// Returns the first free address after the one that was allocated last; `None` if no address of the range is free.
///
/// An address is used again only after all other free ones of its range. So a client that still knows a removed pod rarely reaches
/// another pod by its address, and entries of ARP caches and conntrack have expired.
pub(super) fn next<R: Reservations>(
    range: PodRange,
    last: Option<IpAddr>,
    reservations: &R,
) -> Result<Option<IpAddr>, R::Error> {
    let mut candidates = range.after(last);
    for address in candidates.by_ref().take(LOOKUPS) {
        if !reservations.is_held(address)? {
            return Ok(Some(address));
        }
    }
    // A range that is nearly full, e.g. a /16 whose addresses after the last one belong to long-lived pods. The list has a limited
    // number of addresses, so the search ends also in an IPv6 range.
    let held = reservations.held()?;
    for address in candidates.filter(|address| !held.contains(address)) {
        // Another plugin may hold it, which the list does not know.
        if !reservations.is_held(address)? {
            return Ok(Some(address));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// Counts lookups.
    #[derive(Default)]
    struct Held {
        addresses: HashSet<IpAddr>,
        lookups: Cell<usize>,
        lists: Cell<usize>,
    }

    impl Reservations for Held {
        type Error = Infallible;

        fn is_held(&self, address: IpAddr) -> Result<bool, Infallible> {
            self.lookups.set(self.lookups.get() + 1);
            Ok(self.addresses.contains(&address))
        }

        fn held(&self) -> Result<HashSet<IpAddr>, Infallible> {
            self.lists.set(self.lists.get() + 1);
            Ok(self.addresses.clone())
        }
    }

    fn next_of(range: PodRange, last: Option<IpAddr>, held: &Held) -> Option<IpAddr> {
        let Ok(next) = next(range, last, held);
        next
    }

    #[test]
    fn each_address_is_used_once_before_one_is_used_again() {
        let range: PodRange = "10.244.1.0/24".parse().expect("a range");
        let held = Held::default();
        let mut last = None;
        let mut seen = HashSet::new();
        for _ in 0..range.size() {
            last = next_of(range, last, &held);
            assert!(seen.insert(last.expect("nothing is held")));
        }
        assert!(!seen.insert(next_of(range, last, &held).expect("nothing is held")));
    }

    #[test]
    fn lookups_in_a_nearly_full_range_are_limited() {
        let range: PodRange = "10.244.0.0/16".parse().expect("a range");
        let free: IpAddr = "10.244.200.7".parse().expect("an address");
        let mut held = Held::default();
        held.addresses.extend(range.after(None).filter(|address| *address != free));
        assert_eq!(next_of(range, None, &held), Some(free));
        assert_eq!((held.lookups.get(), held.lists.get()), (LOOKUPS + 1, 1));
        held.addresses.insert(free);
        assert_eq!(next_of(range, None, &held), None);
    }

    proptest! {
        #[test]
        fn the_next_address_is_the_first_free_one_in_order(
            held in proptest::collection::hash_set(0u8..=255, 0..256), last in proptest::option::of(any::<u8>())
        ) {
            let range: PodRange = "10.0.0.0/24".parse().expect("a range");
            let address = |host: u8| IpAddr::from([10, 0, 0, host]);
            let last = last.map(address);
            let reservations = Held { addresses: held.iter().copied().map(address).collect(), ..Held::default() };
            let expected = range.after(last).find(|address| !reservations.addresses.contains(address));
            prop_assert_eq!(next_of(range, last, &reservations), expected);
        }
    }
}
