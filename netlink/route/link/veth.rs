//! Creation of veth pairs.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Link, LinkPeer, MAX_NAME, MacAddress};
use crate::attribute::Writer;
use crate::error::{Error, Result};
use crate::message::{Batch, CREATE, EXCLUSIVE};
use crate::route::Rtnetlink;

/// `VETH_INFO_PEER`: `struct ifinfomsg` and attributes of the other end.
const PEER: u16 = 1;

/// One end of a veth pair that is to be created.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    /// The name.
    pub name: &'a str,
    /// The Ethernet address. Since it is given, no other program replaces it (systemd's `MACAddressPolicy=persistent` does that to
    /// addresses that the kernel chose).
    pub mac: MacAddress,
    /// The MTU; the kernel's default if 0.
    pub mtu: u32,
    /// The network namespace; that of the socket if `None`.
    pub namespace: Option<BorrowedFd<'a>>,
    /// The index of the bridge of which it becomes a port.
    pub controller: Option<u32>,
}

impl VethEnd<'_> {
    fn write(&self, message: &mut Writer<'_>) {
        message.text(libc::IFLA_IFNAME, self.name).bytes(libc::IFLA_ADDRESS, &self.mac.0);
        if self.mtu != 0 {
            message.u32(libc::IFLA_MTU, self.mtu);
        }
        if let Some(namespace) = self.namespace {
            message.u32(libc::IFLA_NET_NS_FD, namespace.as_raw_fd() as u32);
        }
        if let Some(controller) = self.controller {
            message.u32(libc::IFLA_MASTER, controller);
        }
    }
}

impl Rtnetlink {
    /// Adds a veth pair, whose ends are down, and returns the first end, which must be in the socket's network namespace, with the
    /// index of the other one.
    ///
    /// # Errors
    /// [`Error::BadName`] for names outside 1 to 15 bytes; [`Error::Rejected`]: `EEXIST` if a link with one of the names exists,
    /// `EOPNOTSUPP` if the kernel lacks the module veth.
    pub fn add_link_veth(&mut self, end: &VethEnd<'_>, peer: &VethEnd<'_>) -> Result<(Link, u32)> {
        const ACTION: &str = "add a veth pair";
        for name in [end.name, peer.name] {
            Error::check_name(ACTION, name, MAX_NAME)?;
        }
        let mut request = Batch::with_message(ACTION, libc::RTM_NEWLINK, CREATE | EXCLUSIVE, |message| {
            message.raw(&[0; super::HEADER]);
            end.write(message);
            message.nested(libc::IFLA_LINKINFO, |info| {
                info.text(libc::IFLA_INFO_KIND, "veth").nested(libc::IFLA_INFO_DATA, |data| {
                    data.nested(PEER, |message| {
                        message.raw(&[0; super::HEADER]);
                        peer.write(message);
                    });
                });
            });
        })?;
        self.socket.acknowledge(ACTION, &mut request)?;
        let link = self.link(end.name)?;
        // Another process may have deleted it again.
        let link = link.ok_or(Error::NoResponse { action: ACTION })?;
        let Some(LinkPeer { index, .. }) = link.peer else {
            return Err(Error::NoResponse { action: "look for the other end of a veth pair" });
        };
        Ok((link, index))
    }
}
