//! The interface of a pod: a veth pair, its addresses, and the routes on both sides.
//!
//! ```text
//! ptp                                         bridge
//!  pod  eth0 10.244.1.5/32                     pod  eth0 10.244.1.5/24
//!   │   default via 169.254.1.1, fe80::1        │   default via 10.244.1.1
//!  node pc0123456789abc, fe80::1               node pc0123456789abc, a port of cni0 10.244.1.1/24
//!       route to 10.244.1.5/32
//! ```
//!
//! **ptp.** All gateways are the same on every node and need no address of the pod CIDRs. No packet is needed to find a neighbour:
//! both ends have entries for each other. They belong to the link, so none can be stale when an address is used again. The pod's
//! entries of its gateways are permanent; the node's entries of the pod are not, so that the pod can get another Ethernet address
//! (plugin "tuning"), which its kernel announces. For programs that bring their own network stack (virtual machines in pods), the
//! node also answers: to ARP by `proxy_arp`, to neighbour solicitations by having `fe80::1`. Reverse path filtering keeps pods from
//! sending from IPv4 addresses that are not theirs; a second interface in the network therefore needs routes of its own for its
//! address (plugin "sbr").
//!
//! **bridge.** As the reference plugin does it. Other pods and the node may remember the previous pod that had an address, so a new
//! one is announced by gratuitous ARP and unsolicited neighbour advertisements, which the pod's kernel sends once the port forwards.
//! (A packet socket could send them too, but the kernel waits for a grace period of RCU when one is closed: 10 ms.)
//!
//! IPv6 addresses are usable immediately, without duplicate address detection. Router advertisements are ignored on both sides: a
//! pod could redirect the traffic of the node or of other pods with them (CVE-2020-10749).

mod bridge;
mod check;
mod error;
mod identity;
mod namespace;
mod pod_side;
mod ptp;
mod sysctl;

pub use check::Expected;
pub use error::{Error, Result};
pub use identity::{INTERFACE_PREFIX, Identity, attachment_of, is_pod_interface};
pub use namespace::Namespace;

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use portcullis_netlink::route::{
    InterfaceBatch, Link, LinkSettings, MacAddress, RouteLookup, Rtnetlink, VethEnd,
};

use self::sysctl::Ipv6Settings;
use crate::Wiring;
use crate::addresses::AttachmentKey;

/// The first wait for what the kernel does in the background, which usually takes less; each wait is twice as long as the one before.
const FIRST_WAIT: Duration = Duration::from_micros(20);

/// The longest wait between two requests.
const LONGEST_WAIT: Duration = Duration::from_millis(1);

/// The time after which an interface is used as it is, on a machine that is overloaded.
const WAIT_LIMIT: Duration = Duration::from_millis(500);

/// The interface of a pod, as it is to be.
#[derive(Clone, Copy, Debug)]
pub struct PodInterface<'a> {
    /// The container and its interface.
    pub key: &'a AttachmentKey,
    /// The pod's network namespace.
    pub namespace: &'a Namespace,
    /// The pod's addresses, each with the prefix length of its pod CIDR.
    pub addresses: &'a [IpNet],
    /// How the pod is connected to the node.
    pub wiring: Wiring,
    /// The bridge's name, for that wiring.
    pub bridge: &'a str,
    /// The MTU; the kernel's default if 0.
    pub mtu: u32,
}

/// A link of the node or of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedLink {
    /// Its name.
    pub name: String,
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// Its MTU.
    pub mtu: u32,
}

/// The interface of a pod after it was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedInterface {
    /// The bridge, for that wiring.
    pub bridge: Option<AddedLink>,
    /// The end on the node.
    pub host: AddedLink,
    /// The end in the pod.
    pub pod: AddedLink,
    /// The pod's addresses.
    pub addresses: Vec<AddedAddress>,
}

/// An address of a pod after it was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddedAddress {
    /// The address with the prefix length that it has in the pod.
    pub address: IpNet,
    /// The gateway.
    pub gateway: IpAddr,
    /// Whether the pod's default route of this family goes through the interface. It does not if the pod had one.
    pub has_default_route: bool,
}

impl AddedInterface {
    /// Returns the default routes through the interface: destination and gateway.
    pub fn default_routes(&self) -> impl Iterator<Item = (IpNet, IpAddr)> {
        let with_route = self.addresses.iter().filter(|added| added.has_default_route);
        with_route.map(|added| (pod_side::default_destination(added.address), added.gateway))
    }
}

impl PodInterface<'_> {
    /// Adds the interface. One that an earlier `ADD` of the same attachment has left is replaced. `host` is a socket in the network
    /// namespace of the node, in which the calling thread must be.
    ///
    /// # Errors
    /// The kernel rejects a change. Nothing is left then, except for the bridge.
    pub fn add(&self, host: &mut Rtnetlink) -> Result<AddedInterface> {
        let identity = Identity::new(self.key);
        let bridge = match self.wiring {
            Wiring::Ptp => None,
            Wiring::Bridge => Some(bridge::ensure(host, self)?),
        };
        let (link, peer) = self.add_pair(host, &identity, bridge.as_ref())?;
        let added = self.configure(host, &identity, &link, peer, bridge.as_ref());
        if added.is_err() {
            // The error explains more than a failed deletion; `DEL` deletes it too.
            let _ = host.delete_link(link.index);
        }
        let addresses = added?;
        Ok(AddedInterface {
            bridge: bridge.as_ref().map(added_link),
            pod: AddedLink { name: self.key.interface().to_owned(), mac: identity.pod_mac, mtu: link.mtu },
            host: added_link(&link),
            addresses,
        })
    }

    fn add_pair(
        &self,
        host: &mut Rtnetlink,
        identity: &Identity,
        bridge: Option<&Link>,
    ) -> Result<(Link, u32)> {
        let near = VethEnd {
            name: &identity.host_name,
            mac: identity.host_mac,
            mtu: self.mtu,
            namespace: None,
            controller: bridge.map(|bridge| bridge.index),
        };
        let far = VethEnd {
            name: self.key.interface(),
            mac: identity.pod_mac,
            mtu: self.mtu,
            namespace: Some(self.namespace.as_fd()),
            controller: None,
        };
        match host.add_link_veth(&near, &far) {
            Err(error) if error.errno() == Some(libc::EEXIST) => {}
            added => return Ok(added?),
        }
        // One of the names is taken: by an earlier `ADD`, or by another plugin in the pod.
        if let Some(link) = host.link(&identity.host_name)? {
            if !is_veth(&link) {
                return Err(Error::HostNameTaken(link.name));
            }
            host.delete_link(link.index)?;
        }
        host.add_link_veth(&near, &far).map_err(|error| match error.errno() {
            Some(libc::EEXIST) => Error::NameTaken {
                netns: self.namespace.path().to_owned(),
                name: self.key.interface().to_owned(),
            },
            _ => error.into(),
        })
    }

    fn configure(
        &self,
        host: &mut Rtnetlink,
        identity: &Identity,
        link: &Link,
        peer: u32,
        bridge: Option<&Link>,
    ) -> Result<Vec<AddedAddress>> {
        let mut batch = InterfaceBatch::new();
        let settings = Ipv6Settings::open(&link.name)?;
        if let Some(settings) = &settings {
            settings.set("accept_ra", "0")?;
            if self.has_ipv6() {
                settings.enable()?;
            }
        }
        let has_kernel_ipv6 = settings.is_some();
        batch.configure_link(
            link.index,
            &LinkSettings {
                alias: Some(&identity.alias),
                ipv4: match self.wiring {
                    Wiring::Ptp => &ptp::IPV4_SETTINGS,
                    Wiring::Bridge => &[],
                },
                has_no_link_local: has_kernel_ipv6,
            },
        );
        match bridge {
            None => ptp::add_host_side(&mut batch, self, identity, link.index),
            Some(bridge) => bridge::add_port(&mut batch, self, link.index, bridge),
        }
        // The pod's end first: neighbour entries survive only on a link with a carrier, which it has when both ends are up.
        let (mut pod, addresses) = self.add_pod_side(identity, peer, has_kernel_ipv6)?;
        host.change_interfaces(&mut batch)?;
        await_operational(&mut pod, self.key.interface()).map_err(|source| self.pod_error(source))?;
        for address in self.addresses {
            await_address(&mut pod, peer, address.addr());
        }
        if self.wiring == Wiring::Ptp && self.has_ipv6() {
            await_address(host, link.index, ptp::GATEWAY_V6.into());
        }
        if bridge.is_some() {
            await_operational(host, &link.name)?;
            self.announce(&mut pod, identity, peer)?;
            bridge::set_hairpin(host, link.index)?;
        }
        Ok(addresses)
    }

    fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(|address| address.addr().is_ipv6())
    }

    /// Returns an address with the prefix length that it has in the pod.
    fn pod_address(&self, address: IpNet) -> IpNet {
        match self.wiring {
            Wiring::Ptp => IpNet::from(address.addr()),
            Wiring::Bridge => address,
        }
    }

    /// Returns the gateway of an address's family.
    pub fn gateway(&self, address: IpNet) -> IpAddr {
        match self.wiring {
            Wiring::Ptp => ptp::gateway(address),
            Wiring::Bridge => bridge::gateway(address).addr(),
        }
    }
}

/// Removes the interface of an attachment, with its addresses and routes. Returns false if there is none.
///
/// # Errors
/// The kernel rejects the deletion.
pub fn remove(host: &mut Rtnetlink, key: &AttachmentKey) -> Result<bool> {
    match host.link(&Identity::new(key).host_name)? {
        Some(link) if is_veth(&link) => Ok(host.delete_link(link.index)?),
        _ => Ok(false),
    }
}

/// Returns true if a link with the name of an attachment is its interface. Another program may have changed its alias; the name is a
/// hash, which no other link has by chance.
fn is_veth(link: &Link) -> bool {
    link.kind.as_deref() == Some("veth")
}

/// Waits until a link transmits packets. The end that was set up first, and a port of a bridge, are activated in the background once
/// they have a carrier, and drop packets until then. Since Linux 6.8 the kernel does so before it answers the first request.
fn await_operational(rtnetlink: &mut Rtnetlink, name: &str) -> portcullis_netlink::Result<()> {
    wait_until(|| Ok(rtnetlink.link(name)?.is_none_or(|link| link.is_operational)))
}

/// Waits until a link has an IPv6 address. Even without duplicate address detection, the kernel adds the route of an address, and joins
/// its group of neighbour discovery, in the background. Until then, it does not answer.
fn await_address(rtnetlink: &mut Rtnetlink, index: u32, address: IpAddr) {
    if address.is_ipv4() {
        return;
    }
    let lookup =
        RouteLookup { destination: address, source: None, input: None, output: Some(index), mark: 0 };
    // Until then, there may be no route at all.
    let _ = wait_until(|| Ok(rtnetlink.look_up_route(&lookup).is_ok_and(|found| found.is_local())));
}

/// Waits until a condition is true, or until the time is over: then it soon will be, and the pod is not worse off than with plugins that
/// do not wait.
fn wait_until(
    mut condition: impl FnMut() -> portcullis_netlink::Result<bool>,
) -> portcullis_netlink::Result<()> {
    let (start, mut wait) = (Instant::now(), FIRST_WAIT);
    while !condition()? && start.elapsed() < WAIT_LIMIT {
        thread::sleep(wait);
        wait = (2 * wait).min(LONGEST_WAIT);
    }
    Ok(())
}

/// Checks that packets between pods of a bridge pass through the rules of Services and policies.
///
/// # Errors
/// [`Error::NoBridgeFilter`].
pub fn check_bridge_filter() -> Result<()> {
    sysctl::filter_bridged_packets()
}

fn added_link(link: &Link) -> AddedLink {
    AddedLink { name: link.name.clone(), mac: link.mac.unwrap_or(MacAddress([0; 6])), mtu: link.mtu }
}
