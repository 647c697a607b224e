//! Comparison of a pod's interface with what `ADD` made.

use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_netlink::route::{Link, PodRoute, Rtnetlink};

use super::error::Result;
use super::{Identity, PodInterface, bridge, ptp, sysctl};
use crate::Wiring;

/// What the result of `ADD` says of the pod's end, which plugins later in the chain may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The Ethernet address as text.
    pub mac: Option<String>,
    /// The MTU, which results have since version 1.1.0.
    pub mtu: Option<u32>,
    /// The addresses.
    pub addresses: Vec<IpNet>,
    /// The routes: destination and gateway.
    pub routes: Vec<(IpNet, Option<IpAddr>)>,
}

impl PodInterface<'_> {
    /// Compares the interface with what `ADD` made, and returns all differences; each names what is missing or wrong and where.
    ///
    /// # Errors
    /// The interface cannot be examined.
    pub fn check(&self, host: &mut Rtnetlink, expected: &Expected) -> Result<Vec<String>> {
        let mut damages = Vec::new();
        let peer = self.check_host(host, &mut damages)?;
        self.in_pod(|| {
            let pod_error = |source| self.pod_error(source);
            let mut pod = Rtnetlink::open().map_err(pod_error)?;
            self.check_pod(&mut pod, peer, expected, &mut damages).map_err(pod_error)
        })?;
        Ok(damages)
    }

    /// Checks the node's side, and returns the index of the pod's end.
    fn check_host(&self, host: &mut Rtnetlink, damages: &mut Vec<String>) -> Result<Option<u32>> {
        let identity = Identity::new(self.key);
        let name = &identity.host_name;
        let Some(link) = host.link(name)? else {
            damages.push(format!("the node has no interface {name}"));
            if self.wiring == Wiring::Bridge {
                self.check_bridge(host, None, damages)?;
            }
            return Ok(None);
        };
        check_link(&link, "on the node", damages);
        if self.mtu != 0 && link.mtu != self.mtu {
            damages.push(format!("interface {name} on the node has MTU {}; expected {}", link.mtu, self.mtu));
        }
        if link.alias.as_deref() != Some(&identity.alias) {
            damages.push(format!("interface {name} on the node lacks its alias {:?}", identity.alias));
        }
        damages.extend(sysctl::difference("ipv6", name, "accept_ra", "0")?);
        match self.wiring {
            Wiring::Ptp => self.check_ptp(host, &link, damages)?,
            Wiring::Bridge => self.check_bridge(host, Some(&link), damages)?,
        }
        Ok(link.peer.map(|peer| peer.index))
    }

    fn check_ptp(&self, host: &mut Rtnetlink, link: &Link, damages: &mut Vec<String>) -> Result<()> {
        let name = &link.name;
        // `ptp::IPV4_SETTINGS`: without them, the pod can send from other addresses, and programs in it do not find the gateway by ARP.
        for setting in ["rp_filter", "proxy_arp"] {
            damages.extend(sysctl::difference("ipv4", name, setting, "1")?);
        }
        let routes = host.link_routes(link.index)?;
        for address in self.addresses {
            let destination = IpNet::from(address.addr());
            if !has_route(&routes, destination, None) {
                damages.push(format!("the node has no route to {destination} through {name}"));
            }
        }
        if let Some(address) = ptp::host_address(self)
            && !host.link_addresses(link.index)?.contains(&address)
        {
            damages.push(format!("interface {name} on the node lacks the address {address}"));
        }
        Ok(())
    }

    fn check_bridge(
        &self,
        host: &mut Rtnetlink,
        port: Option<&Link>,
        damages: &mut Vec<String>,
    ) -> Result<()> {
        let Some(bridge) = host.link(self.bridge)? else {
            damages.push(format!("the node has no bridge {}", self.bridge));
            return Ok(());
        };
        let name = &bridge.name;
        if !bridge.is_up() {
            damages.push(format!("bridge {name} is down"));
        }
        let addresses = host.link_addresses(bridge.index)?;
        for gateway in bridge::gateways(self).filter(|gateway| !addresses.contains(gateway)) {
            damages.push(format!("bridge {name} lacks the address {gateway}"));
        }
        let Some(port) = port else { return Ok(()) };
        if port.controller != Some(bridge.index) {
            damages.push(format!("interface {} is not a port of bridge {name}", port.name));
        } else if !port.has_hairpin {
            damages.push(format!("port {} of bridge {name} is not in hairpin mode", port.name));
        }
        Ok(())
    }

    fn check_pod(
        &self,
        pod: &mut Rtnetlink,
        peer: Option<u32>,
        expected: &Expected,
        damages: &mut Vec<String>,
    ) -> portcullis_netlink::Result<()> {
        let name = self.key.interface();
        let Some(link) = pod.link(name)? else {
            damages.push(format!("the pod has no interface {name}"));
            return Ok(());
        };
        check_link(&link, "in the pod", damages);
        if peer.is_some_and(|peer| peer != link.index) {
            damages.push(format!("interface {name} in the pod is not the other end of the node's interface"));
        }
        let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
        if let Some(expected) = expected.mac.as_ref().filter(|expected| !expected.eq_ignore_ascii_case(&mac))
        {
            damages
                .push(format!("interface {name} in the pod has Ethernet address {mac}; expected {expected}"));
        }
        let has_mtu = match expected.mtu {
            Some(mtu) => link.mtu == mtu,
            // A plugin later in the chain may have made it smaller, and results did not have it.
            None => self.mtu == 0 || link.mtu <= self.mtu,
        };
        if !has_mtu {
            let mtu = expected.mtu.unwrap_or(self.mtu);
            damages.push(format!("interface {name} in the pod has MTU {}; expected {mtu}", link.mtu));
        }
        let addresses = pod.link_addresses(link.index)?;
        for address in expected.addresses.iter().filter(|address| !addresses.contains(address)) {
            damages.push(format!("interface {name} in the pod lacks the address {address}"));
        }
        self.check_gateways(pod, &link, damages)?;
        let routes = pod.link_routes(link.index)?;
        for &(destination, gateway) in &expected.routes {
            if !has_route(&routes, destination, gateway) {
                let via = gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
                damages.push(format!("the pod has no route to {destination}{via} through {name}"));
            }
        }
        Ok(())
    }
}

impl PodInterface<'_> {
    /// Checks the permanent neighbours of the gateways. One that is missing is no damage: the node answers ARP and neighbour solicitations,
    /// and a plugin that sets the interface down removes them.
    fn check_gateways(
        &self,
        pod: &mut Rtnetlink,
        link: &Link,
        damages: &mut Vec<String>,
    ) -> portcullis_netlink::Result<()> {
        if self.wiring != Wiring::Ptp {
            return Ok(());
        }
        let mac = Identity::new(self.key).host_mac;
        let gateways: Vec<IpAddr> = self.addresses.iter().map(|address| self.gateway(*address)).collect();
        for neighbour in pod.neighbours(link.index)? {
            if gateways.contains(&neighbour.address) && neighbour.mac != mac {
                damages.push(format!(
                    "the neighbour {} of interface {} in the pod has Ethernet address {}; expected {mac}",
                    neighbour.address, link.name, neighbour.mac
                ));
            }
        }
        Ok(())
    }
}

fn check_link(link: &Link, place: &str, damages: &mut Vec<String>) {
    let name = &link.name;
    if link.kind.as_deref() != Some("veth") {
        let kind = link.kind.as_deref().unwrap_or("hardware");
        damages.push(format!("interface {name} {place} is of kind {kind}; expected veth"));
    }
    if !link.is_up() {
        damages.push(format!("interface {name} {place} is down"));
    }
}

fn has_route(routes: &[PodRoute], destination: IpNet, gateway: Option<IpAddr>) -> bool {
    routes.iter().any(|route| route.destination == destination && route.gateway == gateway)
}
