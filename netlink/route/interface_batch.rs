//! Changes to links and their addresses, routes and neighbours, in one `sendmsg`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{MacAddress, Rtnetlink};
use crate::Family;
use crate::attribute::Writer;
use crate::batches::Batches;
use crate::error::{Error, Result};
use crate::message::{CREATE, EXCLUSIVE};

/// `NLM_F_REPLACE`.
const REPLACE: u16 = libc::NLM_F_REPLACE as u16;

/// `IFLA_INET_CONF`.
const INET_CONF: u16 = 1;
/// `IFLA_INET6_ADDR_GEN_MODE`.
const ADDR_GEN_MODE: u16 = 8;
/// `IN6_ADDR_GEN_MODE_NONE`.
const ADDR_GEN_MODE_NONE: u8 = 1;
/// `IFLA_BRPORT_MODE`: hairpin mode.
const PORT_HAIRPIN: u16 = 4;

/// Changes to links and their addresses, routes and neighbours, which are executed in order.
#[derive(Debug, Default)]
pub struct InterfaceBatch {
    requests: Batches,
    actions: Vec<Action>,
}

#[derive(Clone, Copy, Debug)]
struct Action {
    name: &'static str,
    /// The error number of a rejection that is none: an object exists already, or is gone already.
    accepted: i32,
}

/// No error number is accepted.
const NONE: i32 = 0;

/// A setting of IPv4 on a link, as below `/proc/sys/net/ipv4/conf/LINK` (`IPV4_DEVCONF_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Ipv4Setting {
    /// `proxy_arp`.
    ProxyArp = 3,
    /// `rp_filter`.
    ReversePathFilter = 8,
    /// `arp_notify`.
    ArpNotify = 22,
}

/// The state of a neighbour that is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum NeighbourState {
    /// It is used without a solicitation for a while, and replaced if the host announces another Ethernet address.
    Reachable = libc::NUD_REACHABLE,
    /// It stays until it is deleted or the link is set down.
    Permanent = libc::NUD_PERMANENT,
}

/// Settings of a link.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkSettings<'a> {
    /// The alias.
    pub alias: Option<&'a str>,
    /// Settings of IPv4.
    pub ipv4: &'a [(Ipv4Setting, u32)],
    /// Whether the kernel adds no link-local IPv6 address when the link is set up. Must not be set if the kernel has no IPv6.
    pub has_no_link_local: bool,
}

/// A route through a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodRoute {
    /// The destination.
    pub destination: IpNet,
    /// The next hop; `None` if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The index of the link.
    pub link: u32,
    /// `RTPROT_*`.
    pub protocol: u8,
}

impl InterfaceBatch {
    /// Returns an empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of changes.
    pub fn len(&self) -> usize {
        self.actions.len()
    }

    /// Returns true if there are no changes.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// Changes settings of a link.
    pub fn configure_link(&mut self, index: u32, settings: &LinkSettings<'_>) {
        self.push("configure a link", libc::RTM_SETLINK, 0, NONE, |message| {
            message.raw(&link_header(index, libc::AF_UNSPEC, 0));
            if let Some(alias) = settings.alias {
                message.bytes(libc::IFLA_IFALIAS, alias.as_bytes());
            }
            if settings.ipv4.is_empty() && !settings.has_no_link_local {
                return;
            }
            message.nested(libc::IFLA_AF_SPEC, |families| {
                if !settings.ipv4.is_empty() {
                    families.nested(libc::AF_INET as u16, |inet| {
                        inet.nested(INET_CONF, |all| {
                            for &(setting, value) in settings.ipv4 {
                                all.u32(setting as u16, value);
                            }
                        });
                    });
                }
                if settings.has_no_link_local {
                    families.nested(libc::AF_INET6 as u16, |inet6| {
                        inet6.u8(ADDR_GEN_MODE, ADDR_GEN_MODE_NONE);
                    });
                }
            });
        });
    }

    /// Sets a link up.
    pub fn set_up(&mut self, index: u32) {
        self.push("set a link up", libc::RTM_SETLINK, 0, NONE, |message| {
            message.raw(&link_header(index, libc::AF_UNSPEC, libc::IFF_UP as u32));
        });
    }

    /// Sets the Ethernet address of a link. The kernel announces the link's addresses by gratuitous ARP and unsolicited neighbour
    /// advertisements if `arp_notify` and `ndisc_notify` are set, also if the Ethernet address stays the same.
    pub fn set_mac(&mut self, index: u32, mac: MacAddress) {
        self.push("set an Ethernet address", libc::RTM_SETLINK, 0, NONE, |message| {
            message.raw(&link_header(index, libc::AF_UNSPEC, 0)).bytes(libc::IFLA_ADDRESS, &mac.0);
        });
    }

    /// Lets a port of a bridge send packets back to the link that they came from.
    pub fn set_hairpin(&mut self, index: u32) {
        self.push("turn on the hairpin mode of a bridge port", libc::RTM_SETLINK, 0, NONE, |message| {
            message.raw(&link_header(index, libc::AF_BRIDGE, 0));
            message.nested(libc::IFLA_PROTINFO, |port| {
                port.u8(PORT_HAIRPIN, 1);
            });
        });
    }

    /// Adds an address, of IPv6 without duplicate address detection. An existing one stays.
    pub fn add_address(&mut self, index: u32, address: IpNet) {
        let family = Family::from_address(address.addr());
        let scope = match address.addr() {
            IpAddr::V6(address) if address.is_unicast_link_local() => libc::RT_SCOPE_LINK,
            _ => libc::RT_SCOPE_UNIVERSE,
        };
        let flags = if family == Family::V6 { libc::IFA_F_NODAD as u8 } else { 0 };
        self.push("add an address", libc::RTM_NEWADDR, CREATE | EXCLUSIVE, libc::EEXIST, |message| {
            let [a, b, c, d] = index.to_ne_bytes();
            message.raw(&[family.number(), address.prefix_len(), flags, scope, a, b, c, d]);
            message.address(libc::IFA_LOCAL, address.addr()).address(libc::IFA_ADDRESS, address.addr());
            if let IpNet::V4(address) = address
                && address.prefix_len() < 31
            {
                message.address(libc::IFA_BROADCAST, address.broadcast().into());
            }
        });
    }

    /// Adds a route to the main table. A route to the same destination is replaced.
    pub fn replace_route(&mut self, route: &PodRoute) {
        self.push("add a route", libc::RTM_NEWROUTE, CREATE | REPLACE, NONE, |message| route.write(message));
    }

    /// Adds a route to the main table. A route to the same destination stays.
    pub fn add_route(&mut self, route: &PodRoute) {
        self.push("add a route", libc::RTM_NEWROUTE, CREATE | EXCLUSIVE, libc::EEXIST, |message| {
            route.write(message)
        });
    }

    /// Adds a neighbour. One with the same address is replaced.
    pub fn replace_neighbour(&mut self, index: u32, address: IpAddr, mac: MacAddress, state: NeighbourState) {
        self.push("add a neighbour", libc::RTM_NEWNEIGH, CREATE | REPLACE, NONE, |message| {
            let [a, b, c, d] = index.to_ne_bytes();
            let [state_low, state_high] = (state as u16).to_ne_bytes();
            // `struct ndmsg`
            let family = Family::from_address(address).number();
            message.raw(&[family, 0, 0, 0, a, b, c, d, state_low, state_high, 0, libc::RTN_UNICAST]);
            message.address(libc::NDA_DST, address).bytes(libc::NDA_LLADDR, &mac.0);
        });
    }

    /// Deletes a neighbour, if there is one.
    pub fn delete_neighbour(&mut self, index: u32, address: IpAddr) {
        self.push("delete a neighbour", libc::RTM_DELNEIGH, 0, libc::ENOENT, |message| {
            let [a, b, c, d] = index.to_ne_bytes();
            message.raw(&[Family::from_address(address).number(), 0, 0, 0, a, b, c, d, 0, 0, 0, 0]);
            message.address(libc::NDA_DST, address);
        });
    }

    fn push(
        &mut self,
        name: &'static str,
        kind: u16,
        flags: u16,
        accepted: i32,
        fill: impl FnOnce(&mut Writer<'_>),
    ) {
        self.requests.push(name, kind, flags, fill).expect("names, addresses and aliases are short");
        self.actions.push(Action { name, accepted });
    }
}

impl PodRoute {
    fn write(&self, message: &mut Writer<'_>) {
        let PodRoute { destination, gateway, link, protocol } = *self;
        let scope = match (destination, gateway) {
            // IPv6 has no scopes.
            (IpNet::V4(_), None) => libc::RT_SCOPE_LINK,
            _ => libc::RT_SCOPE_UNIVERSE,
        };
        let family = Family::from_address(destination.addr()).number();
        // `struct rtmsg`
        message.raw(&[
            family,
            destination.prefix_len(),
            0,
            0,
            libc::RT_TABLE_MAIN,
            protocol,
            scope,
            libc::RTN_UNICAST,
            0,
            0,
            0,
            0,
        ]);
        if destination.prefix_len() > 0 {
            message.address(libc::RTA_DST, destination.network());
        }
        if let Some(gateway) = gateway {
            message.address(libc::RTA_GATEWAY, gateway);
        }
        message.u32(libc::RTA_OIF, link);
    }
}

/// Returns `struct ifinfomsg`, which changes these flags to set.
fn link_header(index: u32, family: i32, set_flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[0] = family as u8;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&set_flags.to_ne_bytes());
    header[12..16].copy_from_slice(&set_flags.to_ne_bytes());
    header
}

impl Rtnetlink {
    /// Executes a batch. All changes are tried, also after a rejected one. Returns the positions of changes without effect, whose
    /// object existed or was gone already.
    ///
    /// # Errors
    /// [`Error::Rejected`] for the first rejected change, with its action.
    pub fn change_interfaces(&mut self, batch: &mut InterfaceBatch) -> Result<Vec<usize>> {
        let InterfaceBatch { requests, actions } = batch;
        let mut without_effect = Vec::new();
        self.socket.transact_all("change interfaces", requests, |position, error| {
            let Action { name, accepted } = actions[position];
            match error {
                Error::Rejected { errno, .. } if errno == accepted => {
                    without_effect.push(position);
                    Ok(())
                }
                Error::Rejected { errno, text, offset, .. } => {
                    Err(Error::Rejected { action: name, errno, text, offset })
                }
                error => Err(error),
            }
        })?;
        Ok(without_effect)
    }
}
