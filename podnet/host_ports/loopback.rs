//! Preparation of a pod's interface for connections from loopback addresses of the node.
//!
//! IPv4: the kernel sends no packet from 127.0.0.1 to another interface than `lo`, and accepts none to it, unless that interface
//! has `route_localnet`. IPv6: a route `local ::1` through the interface lets the kernel deliver replies to connections from
//! ::1; it drops packets from other hosts with such an address before they reach any rule.

use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use portcullis_netlink::Family;
use portcullis_netlink::route::Rtnetlink;

use super::elements::PodHostPorts;
use super::error::HostPortError;
use super::mapping::PortMapping;

/// Prepares the node's interface to a pod, if a host port of the pod is served at a loopback address.
///
/// # Errors
/// The interface cannot be prepared for a host port whose host IP is a loopback address. Other host ports are then reached at all
/// addresses but these.
pub(super) fn prepare(interface: &str, pod: &PodHostPorts) -> Result<(), HostPortError> {
    for family in Family::ALL {
        let is_served = |mapping: &&PortMapping| {
            mapping.has_family(family) && mapping.single_host_ip().is_none_or(|ip| ip.is_loopback())
        };
        let has_address = pod.addresses.iter().any(|ip| Family::from_address(*ip) == family);
        let mut served = pod.mappings.iter().filter(is_served).peekable();
        if !has_address || served.peek().is_none() {
            continue;
        }
        let prepared = match family {
            Family::V4 => set_route_localnet(interface),
            Family::V6 => add_local_route(interface),
        };
        // The address at which the pod asks for the port, alone.
        let explicit = served.find(|mapping| mapping.single_host_ip().is_some());
        if let (Err(reason), Some(mapping)) = (prepared, explicit) {
            return Err(HostPortError::Loopback { mapping: mapping.clone(), reason });
        }
    }
    Ok(())
}

fn set_route_localnet(interface: &str) -> Result<(), String> {
    let path = Path::new("/proc/sys/net/ipv4/conf").join(interface).join("route_localnet");
    if fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1") {
        return Ok(());
    }
    fs::write(&path, "1").map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn add_local_route(interface: &str) -> Result<(), String> {
    let add = || {
        let mut routes = Rtnetlink::open()?;
        routes
            .link_index(interface)?
            .map(|index| routes.add_local_route(index, IpAddr::V6(Ipv6Addr::LOCALHOST)))
            .transpose()
    };
    match add() {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(format!("there is no interface {interface}")),
        Err(error) => Err(error.to_string()),
    }
}
