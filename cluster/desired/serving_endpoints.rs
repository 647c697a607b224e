//! The serving endpoints of a Service port, in a compact form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use super::endpoints::Endpoint;

/// Endpoints of one family: 8 bytes for each with an IPv4 address, 20 with an IPv6 address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServingEndpoints(Stored);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stored {
    V4(Box<[StoredEndpoint<Ipv4Addr>]>),
    V6(Box<[StoredEndpoint<Ipv6Addr>]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StoredEndpoint<A> {
    ip: A,
    port: NonZeroU16,
    flags: u8,
}

impl Default for ServingEndpoints {
    fn default() -> Self {
        ServingEndpoints(Stored::V4(Box::default()))
    }
}

impl ServingEndpoints {
    /// Returns these endpoints, all of which have the family of the first.
    pub(super) fn new(endpoints: impl Iterator<Item = Endpoint>) -> Self {
        let mut endpoints = endpoints.peekable();
        let is_v6 = endpoints.peek().is_some_and(|first| first.ip.is_ipv6());
        ServingEndpoints(match is_v6 {
            false => Stored::V4(stored(endpoints, |ip| match ip {
                IpAddr::V4(ip) => Some(ip),
                IpAddr::V6(_) => None,
            })),
            true => Stored::V6(stored(endpoints, |ip| match ip {
                IpAddr::V4(_) => None,
                IpAddr::V6(ip) => Some(ip),
            })),
        })
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

    /// Returns the endpoints, sorted by their text (`address:port`).
    pub fn iter(&self) -> impl Iterator<Item = Endpoint> + Clone {
        let (v4, v6): (&[_], &[_]) = match &self.0 {
            Stored::V4(endpoints) => (endpoints, &[]),
            Stored::V6(endpoints) => (&[], endpoints),
        };
        v4.iter().map(StoredEndpoint::endpoint).chain(v6.iter().map(StoredEndpoint::endpoint))
    }
}

impl<A: Copy + Into<IpAddr>> StoredEndpoint<A> {
    fn endpoint(&self) -> Endpoint {
        Endpoint { ip: self.ip.into(), port: self.port, flags: self.flags }
    }
}

fn stored<A>(
    endpoints: impl Iterator<Item = Endpoint>,
    of_family: impl Fn(IpAddr) -> Option<A>,
) -> Box<[StoredEndpoint<A>]> {
    let endpoints = endpoints
        .filter_map(|Endpoint { ip, port, flags }| Some(StoredEndpoint { ip: of_family(ip)?, port, flags }));
    endpoints.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_one_family_are_small_and_keep_their_order() {
        assert_eq!(std::mem::size_of::<StoredEndpoint<Ipv4Addr>>(), 8);
        assert_eq!(std::mem::size_of::<StoredEndpoint<Ipv6Addr>>(), 20);
        let port = NonZeroU16::new(80).expect("not 0");
        for texts in [["10.0.0.2", "10.0.0.1"], ["fd00::2", "fd00::1"]] {
            let ips = texts.map(|text| text.parse::<IpAddr>().expect("an address"));
            let given = [(ips[0], 1), (ips[1], 2)].map(|(ip, flags)| Endpoint { ip, port, flags });
            let endpoints = ServingEndpoints::new(given.into_iter());
            assert_eq!((endpoints.len(), endpoints.is_empty()), (2, false));
            assert_eq!(endpoints.iter().collect::<Vec<_>>(), given);
        }
        assert_eq!(ServingEndpoints::new(std::iter::empty()), ServingEndpoints::default());
    }
}
