//! Parsing of `--nodeport-addresses`.

use portcullis_modes::NodePortAddresses;

use super::ProxyMode;
use super::address::parse_cidr;

/// Returns the default: all addresses, or in nftables mode the primary ones, as upstream.
pub(super) fn default_for(mode: ProxyMode) -> NodePortAddresses {
    match mode {
        ProxyMode::Nftables => NodePortAddresses::Primary { localhost: false },
        ProxyMode::Iptables | ProxyMode::Ipvs => NodePortAddresses::All,
    }
}

/// Parses a list: `primary` alone or CIDRs, as upstream. Portcullis also accepts `localhost`, with either or alone.
/// The error is the invalid item and a description of the expected value.
pub(super) fn parse(items: &[String], mode: ProxyMode) -> Result<NodePortAddresses, (String, &'static str)> {
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
        (Some(_), true) => Ok(NodePortAddresses::Primary { localhost }),
        (Some(item), false) => Err((item.clone(), "either \"primary\" or CIDRs, not both")),
        (None, true) if !localhost => Ok(default_for(mode)),
        (None, _) => Ok(NodePortAddresses::Cidrs { cidrs: cidrs.into(), localhost }),
    }
}

const EXPECTED: &str = "a CIDR such as 10.0.0.0/8 or fd00::/8, \"primary\" or \"localhost\"";

#[cfg(test)]
mod tests {
    use super::*;
    use ProxyMode::{Iptables, Ipvs, Nftables};

    fn within(cidrs: &[&str], localhost: bool) -> Option<NodePortAddresses> {
        let cidrs = cidrs.iter().map(|cidr| cidr.parse().expect("a CIDR")).collect();
        Some(NodePortAddresses::Cidrs { cidrs, localhost })
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
            assert_eq!(parse(&items, *mode).ok(), *expected, "{items:?} {mode:?}");
        }
    }
}
