//! Address ranges of `ipBlock` and `networks` peers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Address ranges of each family, from the first to the last address inclusive; sorted, disjoint and not adjacent. A list may have 20,000
/// of them, so copies share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressRanges {
    /// IPv4 ranges.
    pub v4: Arc<[(Ipv4Addr, Ipv4Addr)]>,
    /// IPv6 ranges.
    pub v6: Arc<[(Ipv6Addr, Ipv6Addr)]>,
}

impl AddressRanges {
    /// Returns the union of blocks, each without its own exceptions. An exception of the other family has no effect.
    pub(super) fn union<'a>(blocks: impl IntoIterator<Item = (&'a IpNet, &'a [IpNet])>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (block, except) in blocks {
            match block {
                IpNet::V4(block) => {
                    let except = except.iter().filter_map(|net| match net {
                        IpNet::V4(net) => Some(bounds_v4(net)),
                        IpNet::V6(_) => None,
                    });
                    subtract(bounds_v4(block), except, &mut v4);
                }
                IpNet::V6(block) => {
                    let except = except.iter().filter_map(|net| match net {
                        IpNet::V6(net) => Some(bounds_v6(net)),
                        IpNet::V4(_) => None,
                    });
                    subtract(bounds_v6(block), except, &mut v6);
                }
            }
        }
        AddressRanges { v4: shared(merge(v4)), v6: shared(merge(v6)) }
    }

    /// Returns true if there are no ranges.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Returns true if all IPv4 addresses are in a range.
    pub fn is_whole_v4(&self) -> bool {
        *self.v4 == [(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)]
    }

    /// Returns true if all IPv6 addresses are in a range.
    pub fn is_whole_v6(&self) -> bool {
        *self.v6 == [(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from_bits(u128::MAX))]
    }

    /// Returns the IPv4 ranges, unless they are the whole family.
    pub fn partial_v4(&self) -> &[(Ipv4Addr, Ipv4Addr)] {
        if self.is_whole_v4() { &[] } else { &self.v4 }
    }

    /// Returns the IPv6 ranges, unless they are the whole family.
    pub fn partial_v6(&self) -> &[(Ipv6Addr, Ipv6Addr)] {
        if self.is_whole_v6() { &[] } else { &self.v6 }
    }

    /// Returns true if an address is in a range.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => within(&self.v4, address),
            IpAddr::V6(address) => within(&self.v6, address),
        }
    }
}

/// Returns ranges as a shared list, for which no memory is allocated if it is empty.
fn shared<A, B: From<A>>(ranges: Vec<(A, A)>) -> Arc<[(B, B)]> {
    if ranges.is_empty() {
        return Arc::default();
    }
    ranges.into_iter().map(|(first, last)| (B::from(first), B::from(last))).collect()
}

fn within<A: Ord + Copy>(ranges: &[(A, A)], address: A) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after > 0 && address <= ranges[after - 1].1
}

/// The number of an address.
trait AddressBits: Copy + Ord {
    fn next(self) -> Option<Self>;
    fn previous(self) -> Option<Self>;
}

impl AddressBits for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

impl AddressBits for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

fn bounds_v4(net: &Ipv4Net) -> (u32, u32) {
    (net.network().to_bits(), net.broadcast().to_bits())
}

fn bounds_v6(net: &Ipv6Net) -> (u128, u128) {
    (net.network().to_bits(), net.broadcast().to_bits())
}

/// Appends the ranges of a block without its exceptions.
fn subtract<A: AddressBits>(block: (A, A), except: impl Iterator<Item = (A, A)>, ranges: &mut Vec<(A, A)>) {
    let mut at = block.0;
    for (first, last) in merge(except.collect()) {
        if last < at {
            continue;
        }
        if first > block.1 {
            break;
        }
        if at < first {
            ranges.push((at, first.previous().expect("there is a lower address")));
        }
        if last >= block.1 {
            return;
        }
        at = last.next().expect("there is a higher address");
    }
    ranges.push((at, block.1));
}

/// Sorts ranges and merges those that overlap or are adjacent.
fn merge<A: AddressBits>(mut ranges: Vec<(A, A)>) -> Vec<(A, A)> {
    ranges.sort_unstable();
    ranges.dedup_by(|(first, last), before| {
        let is_connected = before.1.next().is_none_or(|next| *first <= next);
        if is_connected {
            before.1 = before.1.max(*last);
        }
        is_connected
    });
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `block -except -except + block …` as ranges.
    fn ranges(text: &str) -> Vec<String> {
        let net = |text: &str| text.trim().parse::<IpNet>().expect("a row of this table");
        let blocks: Vec<(IpNet, Vec<IpNet>)> = text
            .split('+')
            .map(|block| {
                let mut nets = block.split(" -").map(net);
                (nets.next().expect("a block"), nets.collect())
            })
            .collect();
        let blocks = AddressRanges::union(blocks.iter().map(|(block, except)| (block, except.as_slice())));
        let v4 = blocks.v4.iter().map(|(a, b)| format!("{a}-{b}"));
        v4.chain(blocks.v6.iter().map(|(a, b)| format!("{a}-{b}"))).collect()
    }

    #[test]
    fn blocks_become_disjoint_ranges() {
        let rows: &[(&str, &[&str])] = &[
            ("10.0.0.0/24", &["10.0.0.0-10.0.0.255"]),
            ("10.0.0.0/24 -10.0.0.0/25", &["10.0.0.128-10.0.0.255"]),
            ("10.0.0.0/24 -10.0.0.128/25", &["10.0.0.0-10.0.0.127"]),
            ("10.0.0.0/24 -10.0.0.16/28 -10.0.0.32/28", &["10.0.0.0-10.0.0.15", "10.0.0.48-10.0.0.255"]),
            ("10.0.0.0/24 -10.0.0.0/24", &[]),
            ("10.0.0.0/24 -10.0.0.0/16", &[]),
            ("10.0.0.0/24 -10.0.1.0/24 -9.0.0.0/8", &["10.0.0.0-10.0.0.255"]),
            ("10.0.0.0/24 -fd00::/8", &["10.0.0.0-10.0.0.255"]),
            // An exception applies to its own block only.
            ("10.0.0.0/24 -10.0.0.0/25 + 10.0.0.0/26", &["10.0.0.0-10.0.0.63", "10.0.0.128-10.0.0.255"]),
            ("10.0.1.0/24 + 10.0.0.0/24", &["10.0.0.0-10.0.1.255"]),
            ("0.0.0.0/0 -255.255.255.255/32", &["0.0.0.0-255.255.255.254"]),
            ("0.0.0.0/0 -0.0.0.0/32", &["0.0.0.1-255.255.255.255"]),
            ("::/0 + 0.0.0.0/0", &["0.0.0.0-255.255.255.255", "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]),
            ("fd00::/64 -fd00::/128", &["fd00::1-fd00::ffff:ffff:ffff:ffff"]),
        ];
        for (text, expected) in rows {
            assert_eq!(&ranges(text), expected, "{text}");
        }
    }

    #[test]
    fn addresses_are_found_in_ranges() {
        let nets: [IpNet; 2] = ["10.0.0.0/24", "fd00::/64"].map(|n| n.parse().expect("a block"));
        let except: [IpNet; 1] = ["10.0.0.16/28"].map(|n| n.parse().expect("a block"));
        let blocks = AddressRanges::union([(&nets[0], except.as_slice()), (&nets[1], &[])]);
        for (address, expected) in [
            ("10.0.0.0", true),
            ("10.0.0.15", true),
            ("10.0.0.16", false),
            ("10.0.0.32", true),
            ("10.0.1.0", false),
            ("9.255.255.255", false),
            ("fd00::1", true),
            ("fd00:0:0:1::", false),
        ] {
            assert_eq!(blocks.contains(address.parse().expect("an address")), expected, "{address}");
        }
    }
}
