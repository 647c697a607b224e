//! The endpoints of a slice, in a compact form: a cluster has more of them than of anything else, and every node keeps all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::Family;
use crate::endpoint_slice::EndpointConditions;
use crate::endpoint_topology::EndpointTopology;

/// An endpoint of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceEndpoint<'a> {
    /// Its first address; the API defines no meaning for further addresses.
    pub address: IpAddr,
    /// Its conditions.
    pub conditions: EndpointConditions,
    /// Its node and topology hints.
    pub topology: &'a EndpointTopology,
}

/// The endpoints of a slice, which are of one family: 16 bytes for each with an IPv4 address, 32 with an IPv6 address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoints(Stored);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stored {
    V4(Box<[StoredEndpoint<Ipv4Addr>]>),
    V6(Box<[StoredEndpoint<Ipv6Addr>]>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct StoredEndpoint<A> {
    address: A,
    conditions: EndpointConditions,
    topology: EndpointTopology,
}

impl Default for SliceEndpoints {
    fn default() -> Self {
        SliceEndpoints(Stored::V4(Box::default()))
    }
}

impl SliceEndpoints {
    /// Returns the endpoints of a family. Endpoints of the other family are omitted: a slice has none.
    pub fn new(
        family: Family,
        endpoints: impl IntoIterator<Item = (IpAddr, EndpointConditions, EndpointTopology)>,
    ) -> Self {
        let endpoints = endpoints.into_iter();
        SliceEndpoints(match family {
            Family::V4 => Stored::V4(stored(endpoints, |address| match address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            })),
            Family::V6 => Stored::V6(stored(endpoints, |address| match address {
                IpAddr::V4(_) => None,
                IpAddr::V6(address) => Some(address),
            })),
        })
    }

    /// Returns the family of all its endpoints.
    pub fn family(&self) -> Family {
        match self.0 {
            Stored::V4(_) => Family::V4,
            Stored::V6(_) => Family::V6,
        }
    }

    /// Returns the number of endpoints.
    pub fn len(&self) -> usize {
        match &self.0 {
            Stored::V4(endpoints) => endpoints.len(),
            Stored::V6(endpoints) => endpoints.len(),
        }
    }

    /// Returns true if there are no endpoints.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the endpoints.
    pub fn iter(&self) -> impl Iterator<Item = SliceEndpoint<'_>> + Clone {
        let (v4, v6): (&[_], &[_]) = match &self.0 {
            Stored::V4(endpoints) => (endpoints, &[]),
            Stored::V6(endpoints) => (&[], endpoints),
        };
        v4.iter().map(StoredEndpoint::view).chain(v6.iter().map(StoredEndpoint::view))
    }

    /// Returns the number of endpoints of a family.
    pub fn count_in(&self, family: Family) -> usize {
        if self.family() == family { self.len() } else { 0 }
    }

    /// Returns those endpoints for which `is_kept` is true.
    #[must_use]
    pub fn filtered(&self, is_kept: impl Fn(SliceEndpoint<'_>) -> bool) -> Self {
        let kept = self.iter().filter(|endpoint| is_kept(*endpoint));
        let copies = kept.map(|endpoint| (endpoint.address, endpoint.conditions, endpoint.topology.clone()));
        SliceEndpoints::new(self.family(), copies)
    }
}

impl<A: Copy + Into<IpAddr>> StoredEndpoint<A> {
    fn view(&self) -> SliceEndpoint<'_> {
        let StoredEndpoint { address, conditions, topology } = self;
        SliceEndpoint { address: (*address).into(), conditions: *conditions, topology }
    }
}

fn stored<A>(
    endpoints: impl Iterator<Item = (IpAddr, EndpointConditions, EndpointTopology)>,
    of_family: impl Fn(IpAddr) -> Option<A>,
) -> Box<[StoredEndpoint<A>]> {
    let endpoints = endpoints.filter_map(|(address, conditions, topology)| {
        Some(StoredEndpoint { address: of_family(address)?, conditions, topology })
    });
    endpoints.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_one_family_are_small_and_keep_their_order() {
        assert_eq!(std::mem::size_of::<StoredEndpoint<Ipv4Addr>>(), 16);
        assert_eq!(std::mem::size_of::<StoredEndpoint<Ipv6Addr>>(), 32);
        let ready = EndpointConditions::new(true, true, false);
        for (family, texts) in [(Family::V4, ["10.0.0.2", "10.0.0.1"]), (Family::V6, ["fd00::2", "fd00::1"])]
        {
            let addresses = texts.map(|text| text.parse::<IpAddr>().expect("an address"));
            let topology = EndpointTopology::new(Some("node-1"), ["a"], []);
            let other: IpAddr =
                if family == Family::V4 { "fd00::9" } else { "10.0.0.9" }.parse().expect("an address");
            let given = addresses.into_iter().chain([other]).map(|a| (a, ready, topology.clone()));
            let endpoints = SliceEndpoints::new(family, given);
            assert_eq!((endpoints.family(), endpoints.len(), endpoints.is_empty()), (family, 2, false));
            assert_eq!(Family::BOTH.map(|of| endpoints.count_in(of)).iter().sum::<usize>(), 2);
            let expected =
                addresses.map(|address| SliceEndpoint { address, conditions: ready, topology: &topology });
            assert_eq!(endpoints.iter().collect::<Vec<_>>(), expected);
            let kept = endpoints.filtered(|endpoint| endpoint.address == addresses[1]);
            assert_eq!(kept.iter().collect::<Vec<_>>(), expected[1..]);
        }
        assert!(SliceEndpoints::default().is_empty());
    }
}
