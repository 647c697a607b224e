//! IP families, and parsing of addresses as lenient as in Kubernetes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// An IP family. All code that differs by family takes this as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, in the order in which they are synced.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// Returns the family of an address.
    pub fn from_address(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// Returns the family of a CIDR.
    pub fn from_net(net: &IpNet) -> Family {
        Family::from_address(net.addr())
    }

    /// Returns `IPv4` or `IPv6`, as in the Kubernetes API and kube-proxy's metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    /// Returns the number of bits of an address.
    pub fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Parses an address as the API server does: IPv4 octets may have leading zeros (they are decimal), and an IPv4-mapped IPv6
/// address is the IPv4 address.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    parse_literal(text).map(|address| address.to_canonical())
}

/// Parses an address and keeps an IPv4-mapped IPv6 address as it is.
fn parse_literal(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| parse_ipv4_with_leading_zeros(text).map(IpAddr::V4))
}

fn parse_ipv4_with_leading_zeros(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let significant = part.trim_start_matches('0');
        *octet = if significant.is_empty() { 0 } else { significant.parse().ok()? };
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// Parses a CIDR as Go's `net.ParseCIDR` and `net/netip` do, and clears its host bits. The prefix length of an
/// IPv4-mapped IPv6 block counts the bits of an IPv6 address: `::ffff:10.244.2.0/24` is `::/24`. Such a block
/// matches no IPv4 address.
pub fn parse_cidr(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let net = IpNet::new(parse_literal(address)?, length.parse().ok()?).ok()?;
    Some(net.trunc())
}

/// Returns true if the address of a CIDR is written as an IPv4-mapped IPv6 address.
pub fn is_ipv4_mapped_cidr(text: &str) -> bool {
    let address = text.split_once('/').and_then(|(address, _)| address.parse::<Ipv6Addr>().ok());
    address.is_some_and(|address| address.to_ipv4_mapped().is_some())
}

/// Returns the IPv4 block of an IPv4-mapped IPv6 block, if its prefix covers the mapping prefix (`::ffff:0:0/96`).
pub fn unmapped_cidr(net: &IpNet) -> Option<IpNet> {
    let IpNet::V6(net) = net else { return None };
    let address = net.network().to_ipv4_mapped()?;
    let length = net.prefix_len().checked_sub(96)?;
    Ipv4Net::new(address, length).ok().map(IpNet::V4)
}

/// A description of the addresses that are not special.
pub const NOT_SPECIAL: &str =
    "a unicast address other than the unspecified address and loopback and link-local addresses";

/// Returns true if the API server rejects the address for endpoints and external IPs (`ValidateNonSpecialIP`). Includes all
/// multicast addresses, not only link-local ones.
pub fn is_special(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    is_link_local || address.is_unspecified() || address.is_loopback() || address.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_as_the_api_server_parses_them() {
        for (text, expected) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("010.000.00.1", Some("10.0.0.1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("fd00::0001", Some("fd00::1")),
            ("10.0.0", None),
            ("10.0.0.256", None),
            ("10.0.0.1.2", None),
            ("10..0.1", None),
            ("None", None),
            ("", None),
        ] {
            assert_eq!(parse_ip(text), expected.map(|e| e.parse().expect("a row of this table")), "{text}");
        }
    }

    #[test]
    fn cidrs_are_parsed_as_the_api_server_parses_them() {
        for (text, expected) in [
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("010.1.2.3/8", Some("10.0.0.0/8")),
            (" 10.1.2.3/8", None),
            // The prefix length of an IPv4-mapped block counts the bits of an IPv6 address.
            ("::ffff:10.244.2.0/24", Some("::/24")),
            ("::ffff:10.244.2.7/120", Some("::ffff:10.244.2.0/120")),
            ("::ffff:0:0/96", Some("::ffff:0.0.0.0/96")),
            ("::ffff:10.244.2.0/129", None),
            ("fe80::1%eth0/64", None),
            ("fd00::1/64", Some("fd00::/64")),
            ("10.0.0.0/33", None),
            ("10.0.0.0", None),
            ("10.0.0.0/+8", None),
        ] {
            assert_eq!(parse_cidr(text), expected.map(|e| e.parse().expect("a row of this table")), "{text}");
        }
    }

    #[test]
    fn ipv4_mapped_block_of_96_bits_or_more_is_an_ipv4_block() {
        for (text, expected) in [
            ("::ffff:10.244.2.0/120", Some("10.244.2.0/24")),
            ("::ffff:0:0/96", Some("0.0.0.0/0")),
            ("::ffff:0:0/95", None),
            ("fd00::/120", None),
            ("10.244.2.0/24", None),
        ] {
            let net = parse_cidr(text).expect("a row of this table");
            assert_eq!(unmapped_cidr(&net).map(|net| net.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn special_addresses_are_recognised() {
        for text in [
            "0.0.0.0",
            "::",
            "127.0.0.2",
            "::1",
            "169.254.169.254",
            "fe80::1",
            "224.0.0.1",
            "239.1.2.3",
            "255.255.255.255",
            "ff02::1",
            "ff0e::1",
        ] {
            assert!(is_special(text.parse().expect("an address")), "{text}");
        }
        for text in ["192.0.2.1", "10.96.0.1", "fd00::1", "2001:db8::1"] {
            assert!(!is_special(text.parse().expect("an address")), "{text}");
        }
    }
}
