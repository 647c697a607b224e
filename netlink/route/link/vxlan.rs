//! VXLAN links.

use std::net::IpAddr;

use super::{HEADER, MacAddress};
use crate::attribute::{Attributes, Malformed};
use crate::error::{During, Error, Result};
use crate::message::{Batch, CREATE, EXCLUSIVE, Message};
use crate::route::Rtnetlink;

/// `IFLA_INFO_KIND` of VXLAN links.
const KIND: &str = "vxlan";

/// `IFLA_VXLAN_*`.
const ID: u16 = 1;
const LOCAL: u16 = 4;
const LEARNING: u16 = 7;
const PORT: u16 = 15;
const LOCAL6: u16 = 17;
const UDP_CSUM: u16 = 18;
const ZERO_CSUM6_TX: u16 = 19;
const ZERO_CSUM6_RX: u16 = 20;

/// `IFLA_INFO_DATA`.
const INFO_DATA: u16 = 2;

/// The properties of a VXLAN link without learning and without a default destination: it sends frames only to the hosts that its
/// FDB names, and floods nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VxlanLink {
    /// The VXLAN network identifier (VNI).
    pub id: u32,
    /// The UDP port.
    pub port: u16,
    /// The source address of the packets, whose family is that of the underlay.
    pub local: IpAddr,
    /// The MAC address of the link.
    pub mac: MacAddress,
    /// The MTU of the link.
    pub mtu: u32,
}

/// A VXLAN link, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingVxlan {
    /// The index.
    pub index: u32,
    /// The name.
    pub name: String,
    /// The alias.
    pub alias: String,
    /// The link is set up.
    pub is_up: bool,
    /// The properties that can be changed while the link exists are `mac` and `mtu`.
    pub properties: VxlanLink,
    /// The properties of VXLAN are those of [`VxlanLink`]: outer UDP checksums are on, learning is off, and there is no default
    /// destination.
    pub is_plain: bool,
}

impl Rtnetlink {
    /// Creates a VXLAN link, which stays down. The MAC address is set from the beginning, so that udev does not assign another one
    /// (`MACAddressPolicy=persistent` changes only addresses that no program has set).
    ///
    /// # Errors
    /// [`Error::BadName`] for names outside 1 to 15 bytes; [`Error::Rejected`]: `EEXIST` if a link has this name, or the same VNI
    /// and port; `EOPNOTSUPP` if the kernel has no VXLAN.
    pub fn add_link_vxlan(&mut self, name: &str, link: &VxlanLink) -> Result<()> {
        const ACTION: &str = "add a VXLAN link";
        Error::check_name(ACTION, name, super::MAX_NAME)?;
        let mut request = Batch::with_message(ACTION, libc::RTM_NEWLINK, CREATE | EXCLUSIVE, |message| {
            message.raw(&[0; HEADER]).text(libc::IFLA_IFNAME, name).u32(libc::IFLA_MTU, link.mtu);
            message.bytes(libc::IFLA_ADDRESS, &link.mac.0).nested(libc::IFLA_LINKINFO, |info| {
                info.text(libc::IFLA_INFO_KIND, KIND).nested(INFO_DATA, |data| {
                    let local = if link.local.is_ipv4() { LOCAL } else { LOCAL6 };
                    data.u32(ID, link.id).address(local, link.local).u8(LEARNING, 0).u16_be(PORT, link.port);
                    data.u8(UDP_CSUM, 1).u8(ZERO_CSUM6_TX, 0).u8(ZERO_CSUM6_RX, 0);
                });
            });
        })?;
        self.socket.acknowledge(ACTION, &mut request)
    }

    /// Returns all VXLAN links.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if links change faster than they can be read.
    pub fn vxlan_links(&mut self) -> Result<Vec<ExistingVxlan>> {
        const ACTION: &str = "list the VXLAN links";
        let request = || {
            Batch::with_message(ACTION, libc::RTM_GETLINK, 0, |message| {
                message.raw(&[0; HEADER]).nested(libc::IFLA_LINKINFO, |info| {
                    info.text(libc::IFLA_INFO_KIND, KIND);
                });
            })
        };
        self.dump_batches(ACTION, request, |message| ExistingVxlan::parse(message).during(ACTION))
    }
}

impl ExistingVxlan {
    pub(in crate::route) fn parse(message: &Message<'_>) -> Result<Option<Self>, Malformed> {
        if message.kind != libc::RTM_NEWLINK {
            return Ok(None);
        }
        let (header, attributes) = message.split::<HEADER>()?;
        let word =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (mut name, mut alias, mut mtu, mut mac, mut data) =
            (String::new(), String::new(), 0, MacAddress([0; 6]), None);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                libc::IFLA_IFNAME => name = attribute.text(),
                libc::IFLA_IFALIAS => alias = attribute.text(),
                libc::IFLA_MTU => mtu = attribute.u32()?,
                libc::IFLA_ADDRESS => mac = MacAddress::from_bytes(attribute.payload).unwrap_or(mac),
                libc::IFLA_LINKINFO => data = vxlan_data(attribute.nested())?,
                _ => {}
            }
        }
        let Some(data) = data else { return Ok(None) };
        let properties = VxlanLink { id: data.id, port: data.port, local: data.local, mac, mtu };
        let is_up = word(8) & libc::IFF_UP as u32 != 0;
        Ok(Some(ExistingVxlan { index: word(4), name, alias, is_up, properties, is_plain: data.is_plain }))
    }
}

struct VxlanData {
    id: u32,
    port: u16,
    local: IpAddr,
    is_plain: bool,
}

/// Reads the data of a VXLAN link; `None` for links of other kinds.
fn vxlan_data(info: Attributes<'_>) -> Result<Option<VxlanData>, Malformed> {
    let (mut is_vxlan, mut data) = (false, None);
    for attribute in info {
        let attribute = attribute?;
        match attribute.kind {
            libc::IFLA_INFO_KIND => is_vxlan = attribute.text() == KIND,
            INFO_DATA => data = Some(attribute.nested()),
            _ => {}
        }
    }
    let Some(attributes) = data.filter(|_| is_vxlan) else { return Ok(None) };
    // Without a source address the kernel reports none.
    let any = std::net::Ipv4Addr::UNSPECIFIED.into();
    let mut data = VxlanData { id: 0, port: 0, local: any, is_plain: true };
    /// `IFLA_VXLAN_GROUP` and `IFLA_VXLAN_GROUP6`: the default destination.
    const GROUPS: [u16; 2] = [2, 16];
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            ID => data.id = attribute.u32()?,
            PORT => data.port = attribute.u16_be()?,
            LOCAL | LOCAL6 => data.local = attribute.address()?,
            UDP_CSUM => data.is_plain &= attribute.u8()? != 0,
            LEARNING | ZERO_CSUM6_TX | ZERO_CSUM6_RX => data.is_plain &= attribute.u8()? == 0,
            kind if GROUPS.contains(&kind) => data.is_plain &= attribute.address()?.is_unspecified(),
            _ => {}
        }
    }
    Ok(Some(data))
}
