//! Node addresses on which NodePorts are served (`--nodeport-addresses`).

use ipnet::IpNet;

use super::ProxyMode;
use super::address::parse_cidr;

/// Node addresses that accept connections to NodePorts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// All addresses.
    All,
    /// The primary addresses: those in the Node object, one of each family.
    Primary {
        /// Also loopback addresses (`localhost`, which kube-proxy v1.36 does not support).
        localhost: bool,
    },
    /// Addresses in these CIDRs.
    Within {
        /// CIDRs in the order given, without host bits.
        cidrs: Vec<IpNet>,
        /// Also loopback addresses (`localhost`, which kube-proxy v1.36 does not support).
        localhost: bool,
    },
}

impl NodePortAddresses {
    /// Returns the default: all addresses, or in nftables mode the primary ones, as upstream.
    pub(super) fn default_for(mode: ProxyMode) -> Self {
        match mode {
            ProxyMode::Nftables => Self::Primary { localhost: false },
            ProxyMode::Iptables | ProxyMode::Ipvs => Self::All,
        }
    }

    /// Returns true if the list contains `localhost`.
    pub fn has_localhost(&self) -> bool {
        matches!(self, Self::Primary { localhost: true } | Self::Within { localhost: true, .. })
    }

    /// Parses a list: `primary` alone or CIDRs, as upstream. Portcullis also accepts `localhost`, with either or alone.
    /// The error is the invalid item and a description of the expected value.
    pub(super) fn parse(items: &[String], mode: ProxyMode) -> Result<Self, (String, &'static str)> {
        let (mut primary, mut localhost, mut cidrs) = (None, false, Vec::new());
        for item in items {
            match item.as_str() {
                "primary" => primary = Some(item),
                "localhost" if mode == ProxyMode::Ipvs => {
                    return Err((
                        item.clone(),
                        "CIDRs or \"primary\"; ipvs mode cannot serve NodePorts on localhost",
                    ));
                }
                "localhost" => localhost = true,
                _ => cidrs.push(parse_cidr(item).ok_or_else(|| (item.clone(), EXPECTED))?),
            }
        }
        match (primary, cidrs.is_empty()) {
            (Some(_), true) => Ok(Self::Primary { localhost }),
            (Some(item), false) => Err((item.clone(), "either \"primary\" or CIDRs, not both")),
            (None, true) if !localhost => Ok(Self::default_for(mode)),
            (None, _) => Ok(Self::Within { cidrs, localhost }),
        }
    }
}

const EXPECTED: &str = "a CIDR such as 10.0.0.0/8 or fd00::/8, \"primary\" or \"localhost\"";

#[cfg(test)]
mod tests {
    use super::*;
    use ProxyMode::{Iptables, Ipvs, Nftables};

    fn within(cidrs: &[&str], localhost: bool) -> Option<NodePortAddresses> {
        let cidrs = cidrs.iter().map(|cidr| cidr.parse().expect("a CIDR")).collect();
        Some(NodePortAddresses::Within { cidrs, localhost })
    }

    #[test]
    fn lists() {
        let primary = |localhost| Some(NodePortAddresses::Primary { localhost });
        let rows: &[(&[&str], ProxyMode, Option<NodePortAddresses>)] = &[
            (&[], Iptables, Some(NodePortAddresses::All)),
            (&[], Ipvs, Some(NodePortAddresses::All)),
            (&[], Nftables, primary(false)),
            (&["primary"], Iptables, primary(false)),
            (&["primary", "localhost"], Nftables, primary(true)),
            (&["localhost"], Iptables, within(&[], true)),
            (&["localhost"], Ipvs, None),
            (&["192.168.10.7/24", "::/0"], Ipvs, within(&["192.168.10.0/24", "::/0"], false)),
            (&["10.0.0.0/8", "localhost"], Nftables, within(&["10.0.0.0/8"], true)),
            (&["primary", "10.0.0.0/8"], Iptables, None),
            (&["10.0.0.0/8", "primary"], Iptables, None),
            (&["10.0.0.1"], Iptables, None),
            (&[""], Iptables, None),
        ];
        for (items, mode, expected) in rows {
            let items: Vec<String> = items.iter().map(|item| (*item).to_owned()).collect();
            assert_eq!(NodePortAddresses::parse(&items, *mode).ok(), *expected, "{items:?} {mode:?}");
        }
    }
}
