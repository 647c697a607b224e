//! The VXLAN links.

use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_cluster::Family;
use portcullis_netlink::route::{ExistingVxlan, LinkChange, MacAddress, Rtnetlink, VxlanLink};
use portcullis_netlink::{Error, Result};

use super::uplinks::{OwnLinks, vtep_mtu};
use crate::mode::Vxlan;

/// The name and alias of a VXLAN link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VtepLink {
    /// The family of the underlay.
    pub underlay: Family,
    /// The name.
    pub name: &'static str,
    /// The alias, by which the link is found if another process renames it.
    pub alias: &'static str,
}

/// The start of their names, which no interface of a pod has.
pub const VTEP_PREFIX: &str = "pc-";

/// The VXLAN links of this program. A VXLAN has one underlay, so there is one link of each family.
pub const VTEP_LINKS: [VtepLink; 2] = [
    VtepLink { underlay: Family::V4, name: "pc-vxlan", alias: "portcullis overlay IPv4" },
    VtepLink { underlay: Family::V6, name: "pc-vxlan6", alias: "portcullis overlay IPv6" },
];

/// The wanted VXLAN links of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VtepLinks {
    /// The properties of the links over IPv4 and IPv6; `None` for one that is not needed.
    pub links: [Option<VxlanLink>; 2],
    /// The addresses of the links: the first of each pod CIDR of the node. The node's own packets to pods of other nodes come from them.
    pub addresses: Vec<IpNet>,
}

/// What was done to the VXLAN links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VtepRepairs {
    /// Links that were created, replaced or deleted.
    pub links: usize,
    /// Properties and addresses of existing links that were changed.
    pub properties: usize,
}

impl VtepRepairs {
    /// Returns the number of all changes.
    pub fn total(self) -> usize {
        self.links + self.properties
    }
}

impl VtepLinks {
    /// Returns the links of a node with these uplinks. `underlays`: the families over which other nodes are reached.
    pub fn new(
        vxlan: Vxlan,
        mac: MacAddress,
        own: &OwnLinks,
        underlays: [bool; 2],
        pod_cidrs: &[IpNet],
    ) -> Self {
        let mut links = [None, None];
        for (at, link) in links.iter_mut().enumerate() {
            let Some(uplink) = own.uplinks[at].as_ref().filter(|_| underlays[at]) else { continue };
            let Vxlan { id, port } = vxlan;
            *link = Some(VxlanLink { id, port, local: uplink.address, mac, mtu: vtep_mtu(uplink) });
        }
        let first = |cidr: &IpNet| IpNet::from(cidr.network());
        VtepLinks { links, addresses: pod_cidrs.iter().map(first).collect() }
    }

    /// Creates, changes and deletes links so that the kernel has the wanted ones. Returns their indexes, and what was changed.
    ///
    /// # Errors
    /// The kernel's rejection: `EEXIST` if another program has a link with one of the names, or with the same VNI and port; `EOPNOTSUPP`
    /// if the kernel has no VXLAN.
    pub fn ensure(&self, rtnetlink: &mut Rtnetlink) -> Result<([Option<u32>; 2], VtepRepairs)> {
        let mut repairs = VtepRepairs::default();
        let mut indexes = [None, None];
        let existing = existing(rtnetlink)?;
        for (at, (vtep, wanted)) in VTEP_LINKS.iter().zip(&self.links).enumerate() {
            let mut found = existing.iter().filter(|link| is_vtep(vtep, link));
            let kept = found.next();
            // Another process may have made a copy.
            for other in
                found.chain(kept.filter(|kept| !wanted.as_ref().is_some_and(|link| fits(link, kept))))
            {
                repairs.links += usize::from(rtnetlink.delete_link(other.index)?);
            }
            let Some(wanted) = wanted else { continue };
            let kept = match kept.filter(|kept| fits(wanted, kept)) {
                Some(kept) => kept.clone(),
                None => {
                    repairs.links += 1;
                    create(rtnetlink, vtep, wanted)?
                }
            };
            repairs.properties += self.repair(rtnetlink, vtep, wanted, &kept)?;
            indexes[at] = Some(kept.index);
        }
        Ok((indexes, repairs))
    }

    /// Changes what differs of an existing link. Returns the number of changes.
    fn repair(
        &self,
        rtnetlink: &mut Rtnetlink,
        vtep: &VtepLink,
        wanted: &VxlanLink,
        link: &ExistingVxlan,
    ) -> Result<usize> {
        let is_new = link.alias.is_empty();
        let properties = &link.properties;
        let mut change = LinkChange {
            mtu: (properties.mtu != wanted.mtu).then_some(wanted.mtu),
            mac: (properties.mac != wanted.mac).then_some(wanted.mac),
            name: (link.name != vtep.name).then(|| vtep.name.to_owned()),
            alias: (link.alias != vtep.alias).then(|| vtep.alias.to_owned()),
            // Before the link is set up, as the kernel generates the address then.
            has_no_link_local: is_new && self.addresses.iter().any(|address| address.addr().is_ipv6()),
            is_up: None,
        };
        let mut changes = usize::from(change != LinkChange::default());
        if change.name.is_some() {
            // Older kernels rename only links that are down.
            rtnetlink.change_link(link.index, &LinkChange { is_up: Some(false), ..LinkChange::default() })?;
        }
        if change != LinkChange::default() {
            let changed = rtnetlink.change_link(link.index, &change);
            // Without IPv6 in the kernel, no address is generated.
            if matches!(&changed, Err(error) if change.has_no_link_local && error.errno() == Some(libc::EAFNOSUPPORT))
            {
                change.has_no_link_local = false;
                rtnetlink.change_link(link.index, &change)?;
            } else {
                changed?;
            }
        }
        if !link.is_up || change.name.is_some() {
            changes += 1;
            rtnetlink.change_link(link.index, &LinkChange { is_up: Some(true), ..LinkChange::default() })?;
        }
        Ok(if is_new { 0 } else { changes } + self.repair_addresses(rtnetlink, vtep, link.index, is_new)?)
    }

    fn repair_addresses(
        &self,
        rtnetlink: &mut Rtnetlink,
        vtep: &VtepLink,
        index: u32,
        is_new: bool,
    ) -> Result<usize> {
        let found = rtnetlink.link_addresses(index)?;
        let mut changes = 0;
        for address in &self.addresses {
            if found.contains(address) {
                continue;
            }
            changes += usize::from(!is_new);
            match rtnetlink.add_address(index, *address) {
                // IPv6 is disabled on new links (`net.ipv6.conf.default.disable_ipv6`).
                Err(error) if error.errno() == Some(libc::EACCES) && address.addr().is_ipv6() => {
                    let path = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", vtep.name);
                    std::fs::write(path, "0").map_err(|_| error)?;
                    rtnetlink.add_address(index, *address)?;
                }
                added => _ = added?,
            }
        }
        for address in found {
            if !self.addresses.contains(&address) && !is_kept_address(&address) {
                rtnetlink.delete_address(index, address)?;
                changes += 1;
            }
        }
        Ok(changes)
    }
}

/// Returns the VXLAN links of this program, also if they were renamed.
pub(super) fn existing(rtnetlink: &mut Rtnetlink) -> Result<Vec<ExistingVxlan>> {
    let mut links = rtnetlink.vxlan_links()?;
    links.retain(|link| VTEP_LINKS.iter().any(|vtep| is_vtep(vtep, link)));
    Ok(links)
}

/// Returns true for addresses that the kernel assigns, which stay.
pub(super) fn is_kept_address(address: &IpNet) -> bool {
    matches!(address.addr(), IpAddr::V6(address) if address.is_unicast_link_local())
}

/// Returns true for a link of this program, also if another process has changed its name or its alias.
pub(super) fn is_vtep(vtep: &VtepLink, link: &ExistingVxlan) -> bool {
    link.alias == vtep.alias || link.name == vtep.name
}

/// Returns true if the link can be kept: properties that cannot be changed are as wanted.
pub(super) fn fits(wanted: &VxlanLink, link: &ExistingVxlan) -> bool {
    let found = &link.properties;
    link.is_plain && (found.id, found.port, found.local) == (wanted.id, wanted.port, wanted.local)
}

fn create(rtnetlink: &mut Rtnetlink, vtep: &VtepLink, wanted: &VxlanLink) -> Result<ExistingVxlan> {
    rtnetlink.add_link_vxlan(vtep.name, wanted)?;
    let created = rtnetlink.vxlan_links()?.into_iter().find(|link| link.name == vtep.name);
    created.ok_or(Error::NoResponse { action: "add a VXLAN link" })
}
