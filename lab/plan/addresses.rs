//! Allocation of addresses and node ports.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Returns the family of an address.
    pub fn from_ip(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Returns `IPv4` or `IPv6`, as the API spells it in `ipFamilies` and `addressType`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// Parses the API's spelling: `IPv4` or `IPv6`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::BOTH.into_iter().find(|family| family.name() == name)
    }

    /// Returns the prefix length of a single address: 32 or 128.
    pub(crate) fn host_prefix(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// Returns the `offset`th address of a network, if the network is that large.
pub(crate) fn nth(net: IpNet, offset: u32) -> Option<IpAddr> {
    let address = match net.network() {
        IpAddr::V4(base) => IpAddr::from((u32::from(base).checked_add(offset)?).to_be_bytes()),
        IpAddr::V6(base) => IpAddr::from((u128::from(base).checked_add(offset.into())?).to_be_bytes()),
    };
    net.contains(&address).then_some(address)
}

/// Pool of the free addresses of a network.
#[derive(Debug)]
pub(crate) struct AddressPool {
    net: IpNet,
    next: u32,
    taken: BTreeSet<IpAddr>,
}

impl AddressPool {
    /// Returns a pool that starts with the `first`th address of the network.
    pub(crate) fn new(net: IpNet, first: u32) -> Self {
        Self { net, next: first, taken: BTreeSet::new() }
    }

    /// Marks an address as used. Addresses outside of the network have no effect.
    pub(crate) fn reserve(&mut self, address: IpAddr) {
        self.taken.insert(address);
    }

    /// Allocates the next free address; `None` if the network is full.
    pub(crate) fn take(&mut self) -> Option<IpAddr> {
        loop {
            let address = nth(self.net, self.next)?;
            self.next += 1;
            if self.taken.insert(address) {
                return Some(address);
            }
        }
    }

    /// Returns the network.
    pub(crate) fn net(&self) -> IpNet {
        self.net
    }
}

/// Pool of free node ports: 30000 to 32767, the API server's default range.
#[derive(Debug)]
pub(crate) struct NodePortPool {
    next: i32,
    taken: BTreeSet<i32>,
}

impl NodePortPool {
    pub(crate) fn new() -> Self {
        Self { next: 30_000, taken: BTreeSet::new() }
    }

    pub(crate) fn reserve(&mut self, port: i32) {
        self.taken.insert(port);
    }

    pub(crate) fn take(&mut self) -> Option<i32> {
        let port = (self.next..32_768).find(|port| !self.taken.contains(port))?;
        self.next = port + 1;
        self.taken.insert(port);
        Some(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_skips_reserved_addresses_and_ends() {
        let mut pool = AddressPool::new("10.0.0.0/30".parse().unwrap(), 1);
        pool.reserve("10.0.0.2".parse().unwrap());
        let got: Vec<String> = std::iter::from_fn(|| pool.take()).map(|ip| ip.to_string()).collect();
        assert_eq!(got, ["10.0.0.1", "10.0.0.3"]);
    }

    #[test]
    fn ipv6_addresses_are_counted_from_the_network_address() {
        assert_eq!(nth("fd00:10:96::/112".parse().unwrap(), 10), "fd00:10:96::a".parse().ok());
        assert_eq!(nth("fd00:10:96::/112".parse().unwrap(), 65_536), None);
    }

    #[test]
    fn node_ports_end_at_32767() {
        let mut pool = NodePortPool::new();
        pool.reserve(30_000);
        let got: Vec<i32> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!((got.first(), got.last(), got.len()), (Some(&30_001), Some(&32_767), 2_767));
    }
}
