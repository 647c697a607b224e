//! Names and Ethernet addresses of an attachment's veth pair.

use portcullis_netlink::route::{Link, MacAddress};
use sha2::{Digest, Sha256};

use crate::addresses::AttachmentKey;

/// The prefix of the names of all interfaces of pods on the host.
pub const INTERFACE_PREFIX: &str = "pc";

/// Hexadecimal digits after the prefix, up to the length of an interface name.
const NAME_DIGITS: usize = 13;

/// The prefix of their aliases.
const ALIAS_PREFIX: &str = "portcullis ";

/// Names and Ethernet addresses of an attachment's veth pair. They follow from the attachment, so that `DEL` finds the interface
/// without any record, and that a repeated `ADD` gives the same addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name on the host.
    pub host_name: String,
    /// The alias on the host, which names the attachment.
    pub alias: String,
    /// The Ethernet address on the host.
    pub host_mac: MacAddress,
    /// The Ethernet address of the pod.
    pub pod_mac: MacAddress,
}

impl Identity {
    /// Returns the identity of an attachment's veth pair.
    pub fn new(key: &AttachmentKey) -> Self {
        let hash = Sha256::new()
            .chain_update(key.container_id())
            .chain_update([0])
            .chain_update(key.interface())
            .finalize();
        let digits: String =
            hash.iter().map(|byte| format!("{byte:02x}")).take(NAME_DIGITS.div_ceil(2)).collect();
        let mac = |first: usize| local_mac(hash[first..first + 6].try_into().expect("6 bytes"));
        Identity {
            host_name: format!("{INTERFACE_PREFIX}{}", &digits[..NAME_DIGITS]),
            alias: alias(key),
            host_mac: mac(8),
            pod_mac: mac(16),
        }
    }
}

/// Returns the alias of an attachment's interface on the host. The kernel allows 255 bytes, which only container IDs that no runtime
/// uses exceed.
fn alias(key: &AttachmentKey) -> String {
    let mut alias = format!("{ALIAS_PREFIX}{} {}", key.container_id(), key.interface());
    alias.truncate(255);
    alias
}

/// Makes an Ethernet address a locally administered one of a single host (IEEE 802).
fn local_mac(mut bytes: [u8; 6]) -> MacAddress {
    bytes[0] = bytes[0] & !0b11 | 0b10;
    MacAddress(bytes)
}

/// Returns the Ethernet address of a bridge, which follows from its name: pods keep reaching a bridge that was made again.
pub(super) fn bridge_mac(name: &str) -> MacAddress {
    let hash = Sha256::digest(name);
    local_mac(hash[..6].try_into().expect("6 bytes"))
}

/// Returns true if a link is the host's end of an attachment's veth pair. A process that was killed may have left one without alias.
pub fn is_pod_interface(link: &Link) -> bool {
    let has_name = link.name.strip_prefix(INTERFACE_PREFIX).is_some_and(|digits| {
        digits.len() == NAME_DIGITS && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    });
    let has_alias = link.alias.as_deref().is_none_or(|alias| alias.starts_with(ALIAS_PREFIX));
    has_name && has_alias && link.kind.as_deref() == Some("veth")
}

/// Returns the attachment that a link's alias names; `None` if the link is not of an attachment.
pub fn attachment_of(link: &Link) -> Option<AttachmentKey> {
    let (container_id, interface) = link.alias.as_deref()?.strip_prefix(ALIAS_PREFIX)?.split_once(' ')?;
    AttachmentKey::new(container_id, interface).ok().filter(|_| is_pod_interface(link))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, interface: &str) -> AttachmentKey {
        AttachmentKey::new(id, interface).expect("a valid key")
    }

    fn link(name: &str, alias: Option<&str>, kind: &str) -> Link {
        Link {
            index: 1,
            name: name.to_owned(),
            flags: 0,
            kind: Some(kind.to_owned()),
            controller: None,
            peer: None,
            mac: None,
            mtu: 1500,
            alias: alias.map(str::to_owned),
            is_operational: true,
            has_hairpin: false,
        }
    }

    #[test]
    fn names_and_addresses_follow_from_the_attachment() {
        let first = Identity::new(&key("c1", "eth0"));
        assert_eq!(first, Identity::new(&key("c1", "eth0")));
        assert_eq!(first.host_name.len(), 15);
        assert_eq!(first.alias, "portcullis c1 eth0");
        assert_ne!(first.host_mac, first.pod_mac);
        for mac in [first.host_mac, first.pod_mac, bridge_mac("cni0")] {
            assert_eq!(mac.0[0] & 0b11, 0b10, "{mac}: local, of a single host");
        }
        for other in [key("c1", "eth1"), key("c1e", "th0"), key("c2", "eth0")] {
            assert_ne!(Identity::new(&other).host_name, first.host_name, "{other}");
        }
        let longest = key(&"a".repeat(239), "fifteen-bytes-x");
        assert_eq!(Identity::new(&longest).alias.len(), 255);
    }

    #[test]
    fn links_of_attachments_are_recognized() {
        let Identity { host_name, alias, .. } = Identity::new(&key("c1", "eth0"));
        // (name, alias, kind, is of an attachment, names the attachment)
        let rows = [
            (host_name.as_str(), Some(alias.as_str()), "veth", true, true),
            (&host_name, None, "veth", true, false),
            (&host_name, Some("uplink of the firewall"), "veth", false, false),
            (&host_name, Some("portcullis c1"), "veth", true, false),
            (&host_name, Some(&alias), "dummy", false, false),
            ("pc0123", Some(&alias), "veth", false, false),
            ("pcie0123456789x", None, "veth", false, false),
            ("veth0123456789a", Some(&alias), "veth", false, false),
        ];
        for (name, alias, kind, is_ours, names) in rows {
            let link = link(name, alias, kind);
            assert_eq!(is_pod_interface(&link), is_ours, "{link:?}");
            assert_eq!(attachment_of(&link), names.then(|| key("c1", "eth0")), "{link:?}");
        }
    }
}
