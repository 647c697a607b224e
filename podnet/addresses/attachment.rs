//! Attachments: interfaces of containers in the pod network.

use std::fmt;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::host_ports::PortMapping;

/// Length of a file name, `NAME_MAX`.
const MAX_FILE_NAME: usize = 255;

/// Length of an interface name, `IFNAMSIZ` without the terminator.
const MAX_INTERFACE_NAME: usize = 15;

/// The identity of an attachment: `CNI_CONTAINERID` and `CNI_IFNAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "UncheckedKey")]
pub struct AttachmentKey {
    container_id: String,
    interface: String,
}

/// A container ID or interface name that the CNI specification does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The container ID is malformed.
    #[error(
        "invalid container ID {0:?}: expected a letter or digit, then letters, digits, '_', '.' and '-' (at most 239 bytes)"
    )]
    ContainerId(String),
    /// The interface name is malformed.
    #[error(
        "invalid interface name {0:?}: expected 1 to 15 bytes without '/', ':' and spaces, other than '.' and '..'"
    )]
    Interface(String),
}

#[derive(Deserialize)]
struct UncheckedKey {
    container_id: String,
    interface: String,
}

impl TryFrom<UncheckedKey> for AttachmentKey {
    type Error = InvalidKey;

    fn try_from(key: UncheckedKey) -> Result<Self, InvalidKey> {
        Self::new(key.container_id, key.interface)
    }
}

impl AttachmentKey {
    /// Returns the key of an interface of a container.
    ///
    /// # Errors
    /// The container ID or the interface name is not of the form that the CNI specification gives.
    pub fn new(container_id: impl Into<String>, interface: impl Into<String>) -> Result<Self, InvalidKey> {
        let (container_id, interface) = (container_id.into(), interface.into());
        let is_valid_id = container_id.starts_with(|c: char| c.is_ascii_alphanumeric())
            && container_id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
            && container_id.len() + 1 + MAX_INTERFACE_NAME <= MAX_FILE_NAME;
        if !is_valid_id {
            return Err(InvalidKey::ContainerId(container_id));
        }
        let is_valid_interface = (1..=MAX_INTERFACE_NAME).contains(&interface.len())
            && interface != "."
            && interface != ".."
            && !interface.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace());
        if !is_valid_interface {
            return Err(InvalidKey::Interface(interface));
        }
        Ok(Self { container_id, interface })
    }

    /// Returns the container ID.
    pub fn container_id(&self) -> &str {
        &self.container_id
    }

    /// Returns the name of the interface inside the container.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Returns the name of the attachment's file. The first `@` separates the parts, since a container ID has none.
    pub(super) fn file_name(&self) -> String {
        self.to_string()
    }

    pub(super) fn from_file_name(name: &str) -> Option<Self> {
        let (container_id, interface) = name.split_once('@')?;
        Self::new(container_id, interface).ok()
    }
}

impl fmt::Display for AttachmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.container_id, self.interface)
    }
}

/// An attachment for which addresses are to be reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAttachment {
    /// The container and its interface.
    pub key: AttachmentKey,
    /// The network namespace, `CNI_NETNS`.
    pub netns: PathBuf,
    /// Name of the interface on the host that belongs to this attachment. If neither it nor the network namespace exists any more,
    /// the attachment has leaked.
    pub host_interface: String,
    /// Ports of the node that are to be forwarded to this attachment. They are recorded before they exist, so that no interrupted
    /// `ADD` leaves a port that nothing removes.
    pub host_ports: Vec<PortMapping>,
}

/// An interface of a container in the pod network, with the addresses that it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The container and its interface.
    pub key: AttachmentKey,
    /// The network namespace.
    pub netns: PathBuf,
    /// Inode of the network namespace, which distinguishes it from another one at the same path; 0 if it did not exist.
    #[serde(default)]
    pub netns_inode: u64,
    /// Name of the interface on the host.
    pub host_interface: String,
    /// The addresses, each with the prefix length of its pod CIDR.
    pub addresses: Vec<IpNet>,
    /// Ports of the node that are forwarded to this attachment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<PortMapping>,
    /// Time of the reservation, in seconds since the Unix epoch.
    pub created: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_specification_are_accepted() {
        let longest = "a".repeat(239);
        for (id, interface) in
            [("a", "eth0"), ("0", "e"), ("a_b.c-d", "net1@x"), (longest.as_str(), "fifteen-bytes-x")]
        {
            let key = AttachmentKey::new(id, interface).expect(id);
            assert!(key.file_name().len() <= MAX_FILE_NAME);
            assert_eq!(AttachmentKey::from_file_name(&key.file_name()), Some(key));
        }
    }

    #[test]
    fn other_keys_are_rejected() {
        let too_long = "a".repeat(240);
        for id in ["", ".", "..", "-a", "_a", "a/b", "a b", "a@b", "ä", "a\n", too_long.as_str()] {
            assert!(matches!(AttachmentKey::new(id, "eth0"), Err(InvalidKey::ContainerId(_))), "{id:?}");
        }
        for name in ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\0", "sixteen-bytes-xy"] {
            assert!(matches!(AttachmentKey::new("a", name), Err(InvalidKey::Interface(_))), "{name:?}");
        }
    }
}
