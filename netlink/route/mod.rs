//! Rtnetlink, their addresses (listed, added, deleted), the address that the default route leaves from, and news of addresses
//! (rtnetlink).

mod address;
mod change_addresses;
mod changes;
mod default_route;
mod kept_address;
mod link;
mod local_route;

pub use address::Address;
pub use change_addresses::AddressBatch;
pub use changes::{AddressEvent, AddressMonitor, LinkMonitor};
pub use kept_address::LocalRouteBatch;
pub use link::{Link, LinkPeer};

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::Family;
use crate::attribute::{Malformed, Writer};
use crate::error::{During, Error, Result};
use crate::message::{Batch, CREATE, EXCLUSIVE, Message};
use crate::socket::{NetlinkProtocol, Socket};

/// How often a list that changes while it is read is read again. On a node that starts a hundred pods at
/// once, two or three times happen.
const ATTEMPTS: usize = 10;

/// The links, addresses and routes of one network namespace.
#[derive(Debug)]
pub struct Rtnetlink {
    socket: Socket,
}

impl Rtnetlink {
    /// Opens those of the calling thread's network namespace. Reading needs no privilege.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no route netlink.
    pub fn open() -> Result<Self> {
        Ok(Rtnetlink { socket: Socket::open(NetlinkProtocol::Route)? })
    }

    /// All links, in the kernel's order (by index).
    ///
    /// # Errors
    /// [`Error::Interrupted`] if links change faster than they can be read.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        self.collect("list the links", libc::RTM_GETLINK, &link::request(), Link::parse)
    }

    /// Deletes a link. Says whether it was there.
    ///
    /// # Errors
    /// [`Error::Rejected`]: `EPERM` without CAP_NET_ADMIN, `EOPNOTSUPP` for hardware.
    pub fn delete_link(&mut self, index: u32) -> Result<bool> {
        const ACTION: &str = "delete a link";
        let mut request = Batch::with_message(ACTION, libc::RTM_DELLINK, 0, |message| {
            message.raw(&link::request_for(index));
        })?;
        match self.socket.acknowledge(ACTION, &mut request) {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The index of the link of this name; `None` if there is no such link.
    ///
    /// # Errors
    /// [`Error::BadName`] for names outside 1 to 15 bytes.
    pub fn link_index(&mut self, name: &str) -> Result<Option<u32>> {
        const ACTION: &str = "look for a link";
        let mut request = self.about_link(ACTION, libc::RTM_GETLINK, 0, name, None)?;
        let link = self.socket.query(ACTION, &mut request, |message| Link::parse(&message).during(ACTION));
        match link {
            Ok(link) => Ok(link.map(|link| link.index)),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes sure that there is a link of this name, and returns its index. A new one is of the kind "dummy",
    /// which drops what is sent to it, and is left down: its addresses are the node's all the same. One that is
    /// there stays as it is, whatever its kind.
    ///
    /// # Errors
    /// [`Error::BadName`] for names outside 1 to 15 bytes; [`Error::Rejected`] with `EOPNOTSUPP` if the kernel
    /// has no module dummy.
    pub fn add_link_dummy(&mut self, name: &str) -> Result<u32> {
        const ACTION: &str = "add a dummy link";
        let flags = CREATE | EXCLUSIVE;
        let mut request = self.about_link(ACTION, libc::RTM_NEWLINK, flags, name, Some("dummy"))?;
        match self.socket.acknowledge(ACTION, &mut request) {
            Err(error) if error.errno() != Some(libc::EEXIST) => return Err(error),
            _ => {}
        }
        // Someone else may have deleted it at once.
        self.link_index(name)?.ok_or(Error::NoResponse { action: ACTION })
    }

    fn about_link(
        &self,
        action: &'static str,
        message: u16,
        flags: u16,
        name: &str,
        kind: Option<&str>,
    ) -> Result<Batch> {
        Error::check_name(action, name, link::NAME_MOST)?;
        Batch::with_message(action, message, flags, |message| {
            link::write_named(message, name);
            if let Some(kind) = kind {
                link::write_kind(message, kind);
            }
        })
    }

    /// The addresses of one link, IPv4 first, each family's in the order in which they were added (IPv6: in
    /// the kernel's). None if there is no such link.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if addresses change faster than they can be read.
    pub fn link_addresses(&mut self, index: u32) -> Result<Vec<IpNet>> {
        let mut addresses = Vec::new();
        for family in Family::ALL {
            let request = address::request_of(family, index);
            let listed =
                self.collect("list the addresses of a link", libc::RTM_GETADDR, &request, |message| {
                    let parsed = address::ParsedAddress::parse(message)?;
                    Ok(parsed.filter(|parsed| parsed.index == index).map(|parsed| parsed.address))
                });
            match listed {
                Err(error) if error.errno() == Some(libc::ENODEV) => return Ok(Vec::new()),
                listed => addresses.extend(listed?),
            }
        }
        Ok(addresses)
    }

    /// The addresses of the other end of a link, in its network namespace. None if that has gone.
    ///
    /// # Errors
    /// [`Error::Rejected`]: `EPERM` without CAP_NET_ADMIN there; [`Error::Interrupted`] if addresses change faster than
    /// they can be read.
    pub fn peer_addresses(&mut self, peer: LinkPeer) -> Result<Vec<IpAddr>> {
        let mut addresses = Vec::new();
        for family in Family::ALL {
            let listed = self.collect_by(
                "list the addresses of a veth peer",
                libc::RTM_GETADDR,
                |message| address::write_of_peer(message, family, peer),
                |message| {
                    let parsed = address::ParsedAddress::parse(message)?;
                    Ok(parsed.filter(|parsed| parsed.index == peer.index).map(|parsed| parsed.address.addr()))
                },
            );
            match listed {
                Err(error) if matches!(error.errno(), Some(libc::ENODEV | libc::EINVAL)) => {
                    return Ok(Vec::new());
                }
                listed => addresses.extend(listed?),
            }
        }
        Ok(addresses)
    }

    /// All addresses of these families, in the kernel's order: by family as given, by link, and each link's
    /// in the order in which they were added.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if addresses change faster than they can be read.
    pub fn addresses(&mut self, families: &[Family]) -> Result<Vec<Address>> {
        let names: HashMap<u32, String> =
            self.links()?.into_iter().map(|link| (link.index, link.name)).collect();
        self.addresses_on(families, &names)
    }

    /// The address by which this node is known, as Kubernetes picks it (`ResolveBindAddress` in
    /// k8s.io/apimachinery): the first global unicast address of `family` on the link of the default route;
    /// with several default routes, that of the most preferred one which has such an address. If no such link
    /// has one, the loopback's counts (unnumbered links, RFC 5549). `None` without default route, or if there
    /// is no address of that kind.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if links, addresses or routes change faster than they can be read.
    pub fn default_route_source(&mut self, family: Family) -> Result<Option<IpAddr>> {
        let request = default_route::request(family);
        let routes = self.collect("list the routes", libc::RTM_GETROUTE, &request, |message| {
            default_route::parse(message, family)
        });
        let routes = no_table_is_empty(routes)?;
        if routes.is_empty() {
            return Ok(None);
        }
        let links = self.links()?;
        let names = links.iter().map(|link| (link.index, link.name.clone())).collect();
        let addresses = self.addresses_on(&[family], &names)?;
        Ok(default_route::source(routes, &links, &addresses))
    }

    fn addresses_on(&mut self, families: &[Family], names: &HashMap<u32, String>) -> Result<Vec<Address>> {
        let mut addresses = Vec::new();
        for &family in families {
            let request = address::request(family);
            addresses.extend(self.collect("list the addresses", libc::RTM_GETADDR, &request, |message| {
                let Some(parsed) = address::ParsedAddress::parse(message)? else { return Ok(None) };
                // A link that came or went since the links were read takes its addresses with it.
                Ok(names.get(&parsed.index).map(|name| parsed.named(name.clone())))
            })?);
        }
        Ok(addresses)
    }

    /// Dumps and keeps what `parse` makes of the messages, again if the list changed meanwhile.
    fn collect<T>(
        &mut self,
        action: &'static str,
        kind: u16,
        header: &[u8],
        parse: impl Fn(&Message<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<Vec<T>> {
        self.collect_by(action, kind, |message| _ = message.raw(header), parse)
    }

    /// The same with a request that has attributes, which `fill` writes.
    fn collect_by<T>(
        &mut self,
        action: &'static str,
        kind: u16,
        fill: impl Fn(&mut Writer<'_>),
        parse: impl Fn(&Message<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<Vec<T>> {
        let mut attempt = 1;
        loop {
            let mut collected = Vec::new();
            let mut request = Batch::with_message(action, kind, 0, &fill)?;
            let outcome = self.socket.dump(action, &mut request, |message| {
                collected.extend(parse(&message).during(action)?);
                Ok(())
            });
            match outcome {
                Ok(()) => return Ok(collected),
                Err(Error::Interrupted { .. } | Error::Truncated { .. }) if attempt < ATTEMPTS => {
                    attempt += 1
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The routes that were listed. A strict listing of a table that no route has made yet is refused: `FIB table does not
/// exist`.
fn no_table_is_empty<T>(routes: Result<Vec<T>>) -> Result<Vec<T>> {
    match routes {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
        routes => routes,
    }
}

/// Four bytes in host order out of a fixed header.
fn u32_at(header: &[u8], at: usize) -> u32 {
    let bytes = header[at..at + 4].try_into().expect("four bytes were sliced");
    u32::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn noise_never_panics(payload in prop::collection::vec(any::<u8>(), 0..200), family in any::<bool>()) {
            let family = if family { Family::V6 } else { Family::V4 };
            for kind in [libc::RTM_NEWLINK, libc::RTM_NEWADDR, libc::RTM_NEWROUTE] {
                // A plausible header, so that the noise reaches the attributes.
                let mut payload = payload.clone();
                if let [first, destination_length, ..] = &mut payload[..] {
                    (*first, *destination_length) = (family.number(), 0);
                }
                if let Some(route_type) = payload.get_mut(7) {
                    *route_type = libc::RTN_UNICAST;
                }
                let message = Message { kind, flags: 0, sequence: 1, payload: &payload };
                let _ = Link::parse(&message);
                let _ = address::ParsedAddress::parse(&message);
                let _ = default_route::parse(&message, family);
                let _ = kept_address::parse(&message, family);
            }
        }
    }
}
