//! The MAC addresses of VTEPs.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use portcullis_cluster::Name;
use portcullis_netlink::route::MacAddress;
use sha2::{Digest, Sha256};

/// Separates the hash from others of the same name.
const PURPOSE: &[u8] = b"portcullis VTEP\0";

/// Returns the MAC address of the VTEP of a node: 46 bits of a hash of its name. So every node knows it without the API server, it is the
/// same after each restart of the node, and it does not change with the node's address. It is locally administered and unicast.
pub fn vtep_mac(node: &Name) -> MacAddress {
    let digest = Sha256::new().chain_update(PURPOSE).chain_update(node.as_str()).finalize();
    let mut mac = [0; 6];
    mac.copy_from_slice(&digest[..6]);
    mac[0] = mac[0] & !1 | 2;
    MacAddress(mac)
}

/// Returns the address that stands for a VTEP in the routes to a pod CIDR of its node, and that no other host has: the first address of the
/// CIDR in IPv4, where no pod has it; in IPv6 the link-local address of the MAC address (RFC 4291, appendix A). The kernel rejects any
/// other IPv6 gateway to which it has a route through another link, such as the route that is being replaced.
pub(super) fn vtep_gateway(mac: MacAddress, cidr: IpNet) -> IpAddr {
    match cidr {
        IpNet::V4(cidr) => cidr.network().into(),
        IpNet::V6(_) => {
            let [a, b, c, d, e, f] = mac.0;
            let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
            Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_local_unicast_stable_and_distinct() {
        let macs: std::collections::BTreeSet<MacAddress> =
            (0..5000).map(|n| vtep_mac(&Name::new(&format!("node-{n}")))).collect();
        assert_eq!(macs.len(), 5000);
        assert!(macs.iter().all(|mac| mac.0[0] & 3 == 2));
        // A different address after an upgrade would cut the overlay until all nodes are upgraded.
        assert_eq!(vtep_mac(&Name::new("node-1")), STABLE);
    }

    const STABLE: MacAddress = MacAddress([250, 140, 123, 2, 29, 211]);
}
