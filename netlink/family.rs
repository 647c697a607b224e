//! IP address families.

use std::net::IpAddr;

/// An IP address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4, `AF_INET`.
    V4,
    /// IPv6, `AF_INET6`.
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// Returns the family of an address. An IPv4-mapped IPv6 address is IPv6, as in the kernel.
    pub fn from_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// Returns `AF_INET` or `AF_INET6`, which equal netfilter's `NFPROTO_IPV4` and `NFPROTO_IPV6`.
    pub fn number(self) -> u8 {
        match self {
            Family::V4 => libc::AF_INET as u8,
            Family::V6 => libc::AF_INET6 as u8,
        }
    }

    /// Returns the family with this number; `None` if it is neither IPv4 nor IPv6.
    pub fn from_number(number: u8) -> Option<Self> {
        Family::ALL.into_iter().find(|family| family.number() == number)
    }
}
