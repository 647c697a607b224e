//! Listing of addresses.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Address, ParsedAddress, all_of_family, all_of_link, all_of_peer};
use crate::Family;
use crate::error::Result;
use crate::route::{LinkPeer, Rtnetlink};

impl Rtnetlink {
    /// Returns all addresses of these families in the kernel's order: by family as given, by link, and each link's in
    /// the order in which they were added.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) if addresses change faster than they can be read.
    pub fn addresses(&mut self, families: &[Family]) -> Result<Vec<Address>> {
        let names: HashMap<u32, String> =
            self.links()?.into_iter().map(|link| (link.index, link.name)).collect();
        self.addresses_of_links(families, &names)
    }

    /// Returns the addresses of links with these names, by index.
    pub(in crate::route) fn addresses_of_links(
        &mut self,
        families: &[Family],
        names: &HashMap<u32, String>,
    ) -> Result<Vec<Address>> {
        let mut addresses = Vec::new();
        for &family in families {
            let request = all_of_family(family);
            addresses.extend(self.dump("list the addresses", libc::RTM_GETADDR, &request, |message| {
                let Some(parsed) = ParsedAddress::parse(message)? else { return Ok(None) };
                // Addresses of links that were added or removed meanwhile are skipped.
                Ok(names.get(&parsed.index).map(|name| parsed.with_name(name.clone())))
            })?);
        }
        Ok(addresses)
    }

    /// Returns the addresses of one link, IPv4 first, those of IPv4 in the order in which they were added. Empty if
    /// there is no such link.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) if addresses change faster than they can be read.
    pub fn link_addresses(&mut self, index: u32) -> Result<Vec<IpNet>> {
        let mut addresses = Vec::new();
        for family in Family::ALL {
            let request = all_of_link(family, index);
            let listed = self.dump("list the addresses of a link", libc::RTM_GETADDR, &request, |message| {
                let parsed = ParsedAddress::parse(message)?;
                Ok(parsed.filter(|parsed| parsed.index == index).map(|parsed| parsed.address))
            });
            match listed {
                Err(error) if error.errno() == Some(libc::ENODEV) => return Ok(Vec::new()),
                listed => addresses.extend(listed?),
            }
        }
        Ok(addresses)
    }

    /// Returns the addresses of a link's peer in the peer's network namespace. Empty if the peer no longer exists.
    ///
    /// # Errors
    /// [`Error::Rejected`](crate::Error::Rejected): `EPERM` without CAP_NET_ADMIN there;
    /// [`Error::Interrupted`](crate::Error::Interrupted) if addresses change faster than they can be read.
    pub fn peer_addresses(&mut self, peer: LinkPeer) -> Result<Vec<IpAddr>> {
        let mut addresses = Vec::new();
        for family in Family::ALL {
            let request = all_of_peer(family, peer);
            let action = "list the addresses of a veth peer";
            let listed = self.dump(action, libc::RTM_GETADDR, &request, |message| {
                let parsed = ParsedAddress::parse(message)?;
                Ok(parsed.filter(|parsed| parsed.index == peer.index).map(|parsed| parsed.address.addr()))
            });
            match listed {
                Err(error) if matches!(error.errno(), Some(libc::ENODEV | libc::EINVAL)) => {
                    return Ok(Vec::new());
                }
                listed => addresses.extend(listed?),
            }
        }
        Ok(addresses)
    }
}
