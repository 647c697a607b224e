//! Changes of links.

use super::{HEADER, MacAddress};
use crate::error::Result;
use crate::message::Batch;
use crate::route::Rtnetlink;

/// `IFLA_AF_SPEC`, `IFLA_INET6_ADDR_GEN_MODE` and its value for no address.
const AF_SPEC: u16 = libc::IFLA_AF_SPEC;
const ADDR_GEN_MODE: u16 = 8;
const GENERATE_NONE: u8 = 1;

/// Changes of a link; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Set the link up or down.
    pub is_up: Option<bool>,
    /// The MTU.
    pub mtu: Option<u32>,
    /// The MAC address.
    pub mac: Option<MacAddress>,
    /// The name.
    pub name: Option<String>,
    /// The alias (`IFLA_IFALIAS`), of up to 255 bytes.
    pub alias: Option<String>,
    /// The kernel generates no IPv6 link-local address when the link is set up.
    pub has_no_link_local: bool,
}

impl Rtnetlink {
    /// Changes a link.
    ///
    /// # Errors
    /// [`Error::Rejected`](crate::Error::Rejected): `ENODEV` if there is no such link, `EEXIST` if another link has the name,
    /// `EINVAL` for an MTU outside of the link's limits.
    pub fn change_link(&mut self, index: u32, change: &LinkChange) -> Result<()> {
        const ACTION: &str = "change a link";
        let mut request = Batch::with_message(ACTION, libc::RTM_NEWLINK, 0, |message| {
            let up = libc::IFF_UP as u32;
            let (flags, changed) = change.is_up.map_or((0, 0), |is_up| (if is_up { up } else { 0 }, up));
            let mut header = [0; HEADER];
            header[4..8].copy_from_slice(&index.to_ne_bytes());
            header[8..12].copy_from_slice(&flags.to_ne_bytes());
            header[12..].copy_from_slice(&changed.to_ne_bytes());
            message.raw(&header);
            if let Some(mtu) = change.mtu {
                message.u32(libc::IFLA_MTU, mtu);
            }
            if let Some(mac) = &change.mac {
                message.bytes(libc::IFLA_ADDRESS, &mac.0);
            }
            if let Some(name) = &change.name {
                message.text(libc::IFLA_IFNAME, name);
            }
            if let Some(alias) = &change.alias {
                message.bytes(libc::IFLA_IFALIAS, alias.as_bytes());
            }
            if change.has_no_link_local {
                message.nested(AF_SPEC, |families| {
                    families.nested(libc::AF_INET6 as u16, |v6| _ = v6.u8(ADDR_GEN_MODE, GENERATE_NONE));
                });
            }
        })?;
        self.socket.acknowledge(ACTION, &mut request)
    }
}
