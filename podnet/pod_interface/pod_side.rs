//! The pod's end of the veth pair.

use std::net::Ipv6Addr;

use ipnet::IpNet;
use portcullis_netlink::route::{
    InterfaceBatch, Ipv4Setting, LinkSettings, MacAddress, NeighbourState, PodRoute, Rtnetlink,
};

use super::error::{Error, Result};
use super::sysctl::Ipv6Settings;
use super::{AddedAddress, Identity, PodInterface};
use crate::{ROUTE_PROTOCOL, Wiring};

/// The pod announces its addresses when its Ethernet address changes.
const IPV4_SETTINGS: [(Ipv4Setting, u32); 1] = [(Ipv4Setting::ArpNotify, 1)];

impl PodInterface<'_> {
    /// Configures the pod's end in its network namespace and sets it up. Returns a socket in the namespace.
    pub(super) fn add_pod_side(
        &self,
        identity: &Identity,
        index: u32,
        has_kernel_ipv6: bool,
    ) -> Result<(Rtnetlink, Vec<AddedAddress>)> {
        let (mut batch, default_routes) = self.pod_batch(identity, index);
        let (pod, existing) = self.in_pod(|| {
            if has_kernel_ipv6 {
                self.set_ipv6_settings()?;
            }
            let mut change = || {
                let mut pod = Rtnetlink::open()?;
                let existing = pod.change_interfaces(&mut batch)?;
                Ok((pod, existing))
            };
            change().map_err(|source| self.pod_error(source))
        })?;
        let added = self.addresses.iter().zip(default_routes).map(|(&address, position)| AddedAddress {
            address: self.pod_address(address),
            gateway: self.gateway(address),
            has_default_route: !existing.contains(&position),
        });
        Ok((pod, added.collect()))
    }

    /// Tells other pods on the bridge which Ethernet address has the pod's addresses now. The node itself has no entry of the previous
    /// pod any more.
    pub(super) fn announce(&self, pod: &mut Rtnetlink, identity: &Identity, index: u32) -> Result<()> {
        let mut batch = InterfaceBatch::new();
        // It stays the same. Each change is announced: see `IPV4_SETTINGS` and `ndisc_notify`.
        batch.set_mac(index, identity.pod_mac);
        pod.change_interfaces(&mut batch).map_err(|source| self.pod_error(source))?;
        Ok(())
    }

    /// Adds the network namespace to an error of the kernel.
    pub(super) fn pod_error(&self, source: portcullis_netlink::Error) -> Error {
        Error::Pod { netns: self.namespace.path().to_owned(), source }
    }

    /// Runs `task` in the pod's network namespace.
    pub(super) fn in_pod<T>(&self, task: impl FnOnce() -> Result<T>) -> Result<T> {
        self.namespace
            .run(task)
            .map_err(|source| Error::Enter { netns: self.namespace.path().to_owned(), source })?
    }

    fn set_ipv6_settings(&self) -> Result<()> {
        let Some(settings) = Ipv6Settings::open(self.key.interface())? else { return Ok(()) };
        settings.set("accept_ra", "0")?;
        if self.has_ipv6() {
            if let Some(loopback) = Ipv6Settings::open("lo")? {
                loopback.enable()?;
            }
            settings.enable()?;
            settings.set("accept_dad", "0")?;
            // The plugin "tuning" sets the interface down to change its Ethernet address.
            settings.set("keep_addr_on_down", "1")?;
            settings.set("ndisc_notify", "1")?;
        }
        Ok(())
    }

    /// Returns the changes, and the position of the default route of each address among them.
    fn pod_batch(&self, identity: &Identity, index: u32) -> (InterfaceBatch, Vec<usize>) {
        let mut batch = InterfaceBatch::new();
        batch.configure_link(
            index,
            &LinkSettings {
                ipv4: &IPV4_SETTINGS,
                has_no_link_local: self.has_ipv6(),
                ..LinkSettings::default()
            },
        );
        batch.set_up(index);
        if self.has_ipv6() {
            // The kernel would add it later, once the link has a carrier.
            batch.add_address(index, link_local(identity.pod_mac));
        }
        let mut default_routes = Vec::with_capacity(self.addresses.len());
        for &address in self.addresses {
            batch.add_address(index, self.pod_address(address));
            self.add_default_route(&mut batch, identity, index, address);
            default_routes.push(batch.len() - 1);
        }
        (batch, default_routes)
    }

    fn add_default_route(&self, batch: &mut InterfaceBatch, identity: &Identity, index: u32, address: IpNet) {
        let gateway = self.gateway(address);
        if self.wiring == Wiring::Ptp {
            batch.replace_neighbour(index, gateway, identity.host_mac, NeighbourState::Permanent);
            if gateway.is_ipv4() {
                let on_link = PodRoute {
                    destination: gateway.into(),
                    gateway: None,
                    link: index,
                    protocol: ROUTE_PROTOCOL,
                };
                batch.replace_route(&on_link);
            }
        }
        let destination = default_destination(address);
        // A second attachment of a pod leaves the default route to the first one.
        batch.add_route(&PodRoute {
            destination,
            gateway: Some(gateway),
            link: index,
            protocol: ROUTE_PROTOCOL,
        });
    }
}

/// Returns the destination of the default route of an address's family.
pub(crate) fn default_destination(address: IpNet) -> IpNet {
    match address {
        IpNet::V4(_) => "0.0.0.0/0",
        IpNet::V6(_) => "::/0",
    }
    .parse()
    .expect("a network")
}

/// Returns the link-local address of an Ethernet address (RFC 4291, appendix A).
fn link_local(mac: MacAddress) -> IpNet {
    let [a, b, c, d, e, f] = mac.0;
    let groups = [
        u16::from_be_bytes([a ^ 2, b]),
        u16::from_be_bytes([c, 0xff]),
        u16::from_be_bytes([0xfe, d]),
        u16::from_be_bytes([e, f]),
    ];
    let [g1, g2, g3, g4] = groups;
    IpNet::new(Ipv6Addr::new(0xfe80, 0, 0, 0, g1, g2, g3, g4).into(), 64).expect("64 of 128 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_local_address_is_that_of_the_kernel() {
        let address = link_local(MacAddress([0x02, 0x42, 0xac, 0x11, 0x00, 0x02]));
        assert_eq!(address.to_string(), "fe80::42:acff:fe11:2/64");
    }
}
