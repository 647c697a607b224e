//! The elements of pods in the table of host ports (pure).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{Element, ElementData, Key};

use super::error::HostPortError;
use super::mapping::PortMapping;
use super::table::SetKind;
use crate::addresses::Attachment;

/// The host ports of a pod's attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodHostPorts {
    /// The addresses of the pod.
    pub addresses: Vec<IpAddr>,
    /// The mappings.
    pub mappings: Vec<PortMapping>,
}

impl From<&Attachment> for PodHostPorts {
    fn from(attachment: &Attachment) -> Self {
        PodHostPorts {
            addresses: attachment.addresses.iter().map(IpNet::addr).collect(),
            mappings: attachment.host_ports.clone(),
        }
    }
}

/// The host ports of all pods, from the records of the plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPortRecords {
    /// The pods. Of two with the same host port, the first one keeps it.
    pub pods: Vec<PodHostPorts>,
    /// False if a record could not be read: then host ports without a record stay.
    pub is_complete: bool,
}

/// A host port that two pods have according to the plugin's records. Only the first pod gets connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPortConflict {
    /// The mapping that is not served.
    pub mapping: PortMapping,
    /// The address of its pod.
    pub pod: IpAddr,
    /// The pod's address and port that get the connections.
    pub holder: SocketAddr,
}

/// An element of a map: a host port and its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Forward {
    pub(super) kind: SetKind,
    pub(super) family: Family,
    pub(super) key: Key,
    pub(super) target: SocketAddr,
    pub(super) mapping: PortMapping,
}

impl Forward {
    /// Returns the element.
    pub(super) fn element(&self) -> Element {
        Element::value(Key::new().address(self.target.ip()).port(self.target.port()))
    }
}

/// Returns the elements of a pod: for each mapping one of each family in which the pod has an address.
///
/// # Errors
/// A mapping cannot be served, or contradicts another mapping of the pod.
pub(super) fn forwards(pod: &PodHostPorts) -> Result<Vec<Forward>, HostPortError> {
    let mut forwards: Vec<Forward> = Vec::new();
    let mut seen: BTreeMap<(SetKind, Key), u16> = BTreeMap::new();
    for mapping in &pod.mappings {
        let mut is_served = false;
        for family in Family::ALL.into_iter().filter(|family| mapping.has_family(*family)) {
            let of_family = |ip: &&IpAddr| Family::from_address(**ip) == family;
            let Some(address) = pod.addresses.iter().find(of_family) else { continue };
            is_served = true;
            let forward = forward(mapping, family, *address);
            let port = mapping.container_port.get();
            // The keys of the families have different lengths or different maps.
            let place = (forward.kind, Key::new().part(&[family.number()]).part(forward.key.bytes()));
            match seen.insert(place, port) {
                None => forwards.push(forward),
                Some(first) if first != port => {
                    return Err(HostPortError::MappedTwice { mapping: mapping.clone(), first });
                }
                Some(_) => {}
            }
        }
        if let (false, Some(host_ip)) = (is_served, mapping.host_ip) {
            return Err(HostPortError::NoAddress { mapping: mapping.clone(), host_ip });
        }
    }
    Ok(forwards)
}

fn forward(mapping: &PortMapping, family: Family, address: IpAddr) -> Forward {
    let (kind, key) = match mapping.single_host_ip() {
        Some(ip) => (SetKind::HostIpPorts, Key::new().address(ip)),
        None => (SetKind::AllIpPorts, Key::new()),
    };
    Forward {
        kind,
        family,
        key: key.protocol(mapping.protocol.number()).port(mapping.host_port.get()),
        target: SocketAddr::new(address, mapping.container_port.get()),
        mapping: mapping.clone(),
    }
}

/// Returns the element of a pod's address in the set of connections to itself.
pub(super) fn hairpin(address: IpAddr) -> Key {
    Key::new().address(address).address(address)
}

/// Returns the target of an element of a map, or `None` for data that this program does not write.
pub(super) fn target(element: &Element, family: Family) -> Option<SocketAddr> {
    let Some(ElementData::Value(data)) = &element.data else { return None };
    let (address, port) = match (family, data.bytes()) {
        (Family::V4, [a, b, c, d, port @ ..]) => (IpAddr::V4(Ipv4Addr::new(*a, *b, *c, *d)), port),
        (Family::V6, bytes) if bytes.len() >= 16 => {
            let (address, port) = bytes.split_at(16);
            (IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?)), port)
        }
        _ => return None,
    };
    let [high, low, ..] = port else { return None };
    Some(SocketAddr::new(address, u16::from_be_bytes([*high, *low])))
}
