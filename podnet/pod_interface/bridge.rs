//! The node's side of the wiring "bridge".

use ipnet::IpNet;
use portcullis_netlink::route::{InterfaceBatch, Link, LinkSettings, Rtnetlink};

use super::error::{Error, Result};
use super::identity::bridge_mac;
use super::sysctl::Ipv6Settings;
use super::{PodInterface, sysctl};
use crate::addresses::PodRange;

/// Returns the gateway of an address, which the bridge has, with the prefix length of its pod CIDR.
pub(super) fn gateway(address: IpNet) -> IpNet {
    let gateway = PodRange::new(address).map_or(address.network(), |range| range.gateway());
    IpNet::new(gateway, address.prefix_len()).expect("the prefix length is of this family")
}

/// Returns the bridge, which is added if it does not exist, with the gateways of a pod's addresses. Its other addresses stay.
pub(super) fn ensure(host: &mut Rtnetlink, pod: &PodInterface<'_>) -> Result<Link> {
    sysctl::filter_bridged_packets()?;
    let name = pod.bridge;
    let (link, is_new) = match host.link(name)? {
        Some(link) => (link, false),
        None => {
            let is_new = host.add_link_bridge(name, bridge_mac(name), pod.mtu)?;
            let link =
                host.link(name)?.ok_or(portcullis_netlink::Error::NoResponse { action: "add a bridge" });
            (link?, is_new)
        }
    };
    if link.kind.as_deref() != Some("bridge") {
        let kind = link.kind.unwrap_or_else(|| "hardware".to_owned());
        return Err(Error::NotABridge { name: link.name, kind });
    }
    let addresses = host.link_addresses(link.index)?;
    let missing: Vec<IpNet> = gateways(pod).filter(|gateway| !addresses.contains(gateway)).collect();
    if !is_new && link.is_up() && missing.is_empty() {
        return Ok(link);
    }
    if let Some(settings) = Ipv6Settings::open(name)? {
        if is_new {
            settings.set("accept_ra", "0")?;
            // The bridge sends its own solicitations back to itself through ports with hairpin mode.
            settings.set("accept_dad", "0")?;
        }
        if pod.has_ipv6() {
            settings.enable()?;
        }
    }
    let mut batch = InterfaceBatch::new();
    if is_new {
        batch.configure_link(
            link.index,
            &LinkSettings { alias: Some("portcullis pods of this node"), ..LinkSettings::default() },
        );
    }
    batch.set_up(link.index);
    missing.into_iter().for_each(|gateway| batch.add_address(link.index, gateway));
    host.change_interfaces(&mut batch)?;
    Ok(link)
}

/// Returns the addresses that the bridge must have.
pub(super) fn gateways(pod: &PodInterface<'_>) -> impl Iterator<Item = IpNet> {
    pod.addresses.iter().map(|address| gateway(*address))
}

/// Sets a port of the bridge up.
pub(super) fn add_port(batch: &mut InterfaceBatch, pod: &PodInterface<'_>, link: u32, bridge: &Link) {
    batch.set_up(link);
    for address in pod.addresses {
        batch.delete_neighbour(bridge.index, address.addr());
    }
}

/// Lets the port send packets back to the pod: a pod reaches itself by the address of a Service. Last, because the pod would receive
/// its own announcements, about which its kernel logs a warning.
pub(super) fn set_hairpin(host: &mut Rtnetlink, link: u32) -> Result<()> {
    let mut batch = InterfaceBatch::new();
    batch.set_hairpin(link);
    host.change_interfaces(&mut batch)?;
    Ok(())
}
