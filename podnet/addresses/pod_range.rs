//! Ranges of pod addresses: the node's pod CIDRs without the addresses that no pod may have.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// The addresses of a pod CIDR that pods may have.
///
/// Excluded are, in both wirings, so that a change of the wiring needs no new addresses:
/// - the network address: the first address of an IPv4 network, the Subnet-Router anycast address in IPv6 (RFC 4291, 2.6.1);
/// - the gateway, the second address, which the bridge has;
/// - the broadcast address, the last one of an IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodRange {
    network: IpNet,
}

/// A network without addresses for pods.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pod CIDR {network} is too small: expected a prefix length of at most {}", largest_prefix(network))]
pub struct InvalidRange {
    network: IpNet,
}

const fn largest_prefix(network: &IpNet) -> u8 {
    match network {
        IpNet::V4(_) => 30,
        IpNet::V6(_) => 126,
    }
}

impl PodRange {
    /// Returns the range of a pod CIDR; bits after the prefix are ignored.
    ///
    /// # Errors
    /// [`InvalidRange`] if the network is smaller than a /30 (IPv4) or /126 (IPv6).
    pub fn new(network: IpNet) -> Result<Self, InvalidRange> {
        let network = network.trunc();
        if network.prefix_len() > largest_prefix(&network) {
            return Err(InvalidRange { network });
        }
        Ok(Self { network })
    }

    /// Returns the pod CIDR.
    pub const fn network(&self) -> IpNet {
        self.network
    }

    /// Returns the address that the bridge has and that no pod gets.
    pub fn gateway(&self) -> IpAddr {
        self.address(number(self.network.network()) + 1)
    }

    /// Returns whether pods may have this address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.network.contains(&address) && {
            let number = number(address);
            (self.first()..=self.last()).contains(&number)
        }
    }

    /// Returns the number of addresses for pods.
    pub fn size(&self) -> u128 {
        // The largest is 2^128 − 2.
        self.last() - self.first() + 1
    }

    /// Returns the addresses after `last` up to the end of the range, then those from its start up to `last`: each address of the
    /// range once.
    pub fn after(self, last: Option<IpAddr>) -> impl Iterator<Item = IpAddr> {
        let last = last.filter(|address| self.contains(*address)).map_or(self.last(), number);
        (last + 1..=self.last()).chain(self.first()..=last).map(move |number| self.address(number))
    }

    fn first(&self) -> u128 {
        number(self.network.network()) + 2
    }

    fn last(&self) -> u128 {
        match self.network {
            IpNet::V4(network) => number(network.broadcast().into()) - 1,
            // Below the largest number, so that the iterator of `after` cannot overflow.
            IpNet::V6(network) => number(network.broadcast().into()).min(u128::MAX - 1),
        }
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.network {
            IpNet::V4(_) => Ipv4Addr::from(number as u32).into(),
            IpNet::V6(_) => Ipv6Addr::from(number).into(),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

impl fmt::Display for PodRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.network.fmt(f)
    }
}

/// Error of a text that is no range of pod addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseRangeError {
    /// Not a network.
    #[error("invalid pod CIDR {0:?}: expected a network such as 10.244.1.0/24 or fd00:10:244:1::/64")]
    NotANetwork(String),
    /// Too small.
    #[error(transparent)]
    TooSmall(#[from] InvalidRange),
}

impl FromStr for PodRange {
    type Err = ParseRangeError;

    fn from_str(text: &str) -> Result<Self, ParseRangeError> {
        let network = text.parse().map_err(|_| ParseRangeError::NotANetwork(text.to_owned()))?;
        Ok(Self::new(network)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> PodRange {
        text.parse().expect("a valid range")
    }

    fn texts(addresses: impl Iterator<Item = IpAddr>) -> Vec<String> {
        addresses.map(|address| address.to_string()).collect()
    }

    #[test]
    fn network_gateway_and_broadcast_are_excluded() {
        for (network, gateway, size, first, last) in [
            ("10.244.1.0/24", "10.244.1.1", 253, "10.244.1.2", "10.244.1.254"),
            ("10.244.1.77/24", "10.244.1.1", 253, "10.244.1.2", "10.244.1.254"),
            ("10.0.0.0/30", "10.0.0.1", 1, "10.0.0.2", "10.0.0.2"),
            ("255.255.255.252/30", "255.255.255.253", 1, "255.255.255.254", "255.255.255.254"),
            ("fd00::/126", "fd00::1", 2, "fd00::2", "fd00::3"),
            ("fd00::/120", "fd00::1", 254, "fd00::2", "fd00::ff"),
        ] {
            let range = range(network);
            assert_eq!(range.gateway().to_string(), gateway, "{network}");
            assert_eq!(range.size(), size, "{network}");
            let all = texts(range.after(None));
            assert_eq!(all.len() as u128, size, "{network}");
            assert_eq!((all[0].as_str(), all[all.len() - 1].as_str()), (first, last), "{network}");
        }
        let range = range("10.244.1.0/24");
        for excluded in ["10.244.1.0", "10.244.1.1", "10.244.1.255", "10.244.2.2", "fd00::2"] {
            assert!(!range.contains(excluded.parse().expect("an address")), "{excluded}");
        }
    }

    #[test]
    fn search_starts_after_the_last_address_and_wraps() {
        let range = range("10.0.0.0/29");
        let after = |last: &str| texts(range.after(Some(last.parse().expect("an address"))));
        assert_eq!(after("10.0.0.3"), ["10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2", "10.0.0.3"]);
        assert_eq!(after("10.0.0.6"), ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        // Of a former range.
        assert_eq!(after("192.0.2.1"), texts(range.after(None)));
    }

    #[test]
    fn largest_ranges_do_not_overflow() {
        for network in ["::/0", "ffff::/16", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126", "0.0.0.0/0"] {
            let range = range(network);
            assert!(range.size() > 0, "{network}");
            assert!(range.after(None).next().is_some(), "{network}");
        }
        assert_eq!(texts(range("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126").after(None)).len(), 1);
    }

    #[test]
    fn networks_without_addresses_are_rejected() {
        for (text, message) in [
            ("10.0.0.0/31", "pod CIDR 10.0.0.0/31 is too small: expected a prefix length of at most 30"),
            ("fd00::/127", "pod CIDR fd00::/127 is too small: expected a prefix length of at most 126"),
            (
                "10.0.0.0",
                "invalid pod CIDR \"10.0.0.0\": expected a network such as 10.244.1.0/24 or fd00:10:244:1::/64",
            ),
        ] {
            let error = text.parse::<PodRange>().expect_err(text);
            assert_eq!(error.to_string(), message);
        }
    }
}
