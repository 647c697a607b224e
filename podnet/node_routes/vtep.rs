//! The MAC addresses of VTEPs.

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
