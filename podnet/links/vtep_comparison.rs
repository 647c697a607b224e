//! Comparison of the VXLAN links in the kernel with the wanted ones, without changes.

use portcullis_netlink::Result;
use portcullis_netlink::route::{ExistingVxlan, Rtnetlink, VxlanLink};

use super::vtep_links::{VTEP_LINKS, VtepLink, VtepLinks, existing, fits, is_kept_address, is_vtep};

/// The VXLAN links in the kernel, compared with the wanted ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VtepComparison {
    /// The indexes of the existing links over IPv4 and IPv6 that are wanted.
    pub indexes: [Option<u32>; 2],
    /// The links that differ.
    pub differences: Vec<VtepDifference>,
}

/// A VXLAN link that differs, as lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VtepDifference {
    /// The name of the wanted link.
    pub name: &'static str,
    /// The links in the kernel; empty if there is none.
    pub found: Vec<String>,
    /// The wanted link; empty if none is wanted.
    pub wanted: Vec<String>,
}

impl VtepLinks {
    /// Compares the links in the kernel with the wanted ones.
    ///
    /// # Errors
    /// [`Error::Interrupted`](portcullis_netlink::Error::Interrupted) if links change faster than they can be read.
    pub fn compare(&self, rtnetlink: &mut Rtnetlink) -> Result<VtepComparison> {
        let existing = existing(rtnetlink)?;
        let mut comparison = VtepComparison::default();
        for (at, (vtep, wanted)) in VTEP_LINKS.iter().zip(&self.links).enumerate() {
            let mut found = Vec::new();
            for link in existing.iter().filter(|link| is_vtep(vtep, link)) {
                found.extend(self.found_lines(rtnetlink, link)?);
                if wanted.as_ref().is_some_and(|wanted| fits(wanted, link)) {
                    comparison.indexes[at].get_or_insert(link.index);
                }
            }
            let wanted = wanted.as_ref().map(|wanted| self.wanted_lines(vtep, wanted)).unwrap_or_default();
            if found != wanted {
                comparison.differences.push(VtepDifference { name: vtep.name, found, wanted });
            }
        }
        Ok(comparison)
    }

    fn wanted_lines(&self, vtep: &VtepLink, link: &VxlanLink) -> Vec<String> {
        let mut lines = lines(vtep.name, vtep.alias, true, true, link);
        let mut addresses: Vec<String> =
            self.addresses.iter().map(|address| format!("address {address}")).collect();
        addresses.sort_unstable();
        lines.append(&mut addresses);
        lines
    }

    fn found_lines(&self, rtnetlink: &mut Rtnetlink, link: &ExistingVxlan) -> Result<Vec<String>> {
        let mut lines = lines(&link.name, &link.alias, link.is_up, link.is_plain, &link.properties);
        let found = rtnetlink.link_addresses(link.index)?;
        let relevant = found.iter().filter(|address| !is_kept_address(address));
        let mut addresses: Vec<String> = relevant.map(|address| format!("address {address}")).collect();
        addresses.sort_unstable();
        lines.append(&mut addresses);
        Ok(lines)
    }
}

/// Returns the lines of a link, in the words of `ip link`.
fn lines(name: &str, alias: &str, is_up: bool, is_plain: bool, link: &VxlanLink) -> Vec<String> {
    let VxlanLink { id, port, local, mac, mtu } = link;
    let mut lines = vec![
        format!("name {name}"),
        format!("alias {alias}"),
        format!("state {}", if is_up { "up" } else { "down" }),
        format!("vxlan id {id} dstport {port} local {local}"),
        format!("mac {mac}"),
        format!("mtu {mtu}"),
    ];
    if !is_plain {
        lines.push("learning, a default destination, or no outer UDP checksums".to_owned());
    }
    lines
}
