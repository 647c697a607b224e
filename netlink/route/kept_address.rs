//! Addresses that are this machine's by a route alone: packets to them are delivered, and connections that this
//! machine opens to them leave from another address.

use std::net::IpAddr;

use super::{Rtnetlink, no_table_is_empty};
use crate::attribute::Malformed;
use crate::batches::Batches;
use crate::error::Result;
use crate::family::Family;
use crate::message::{CREATE, Message};

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;
const RT_TABLE_LOCAL: u8 = 255;
const RT_SCOPE_HOST: u8 = 254;
const RTN_LOCAL: u8 = 2;

/// Who made a route, so that ours are found again: a number that `/etc/iproute2/rt_protos` gives to nobody.
const PROTOCOL: u8 = 0x70;

/// `struct rtmsg`.
const HEADER: usize = 12;

/// The link that routes of local addresses may always name, as it is always up.
const LOOPBACK: &str = "lo";

/// Addresses to keep and to let go of, carried out in order by [`Rtnetlink::change_local_routes`].
#[derive(Debug)]
pub struct LocalRouteBatch {
    requests: Batches,
    loopback: u32,
}

impl LocalRouteBatch {
    /// Has packets to `address` delivered here, and connections to it that leave no choice leave from `source`, which
    /// is to be an address of this machine: `ip route prepend local ADDRESS dev lo src SOURCE`.
    pub fn add(&mut self, address: IpAddr, source: IpAddr) {
        self.push("keep an address by a route", libc::RTM_NEWROUTE, CREATE, address, Some(source));
    }

    /// Deletes that route.
    pub fn remove(&mut self, address: IpAddr) {
        self.push("delete the route of an address", libc::RTM_DELROUTE, 0, address, None);
    }

    fn push(&mut self, action: &'static str, kind: u16, flags: u16, address: IpAddr, source: Option<IpAddr>) {
        let (family, length) = match address {
            IpAddr::V4(_) => (Family::V4.number(), 32),
            IpAddr::V6(_) => (Family::V6.number(), 128),
        };
        // Family, lengths of destination and source, TOS, table, protocol, scope, type, u32 flags.
        let header = [family, length, 0, 0, RT_TABLE_LOCAL, PROTOCOL, RT_SCOPE_HOST, RTN_LOCAL, 0, 0, 0, 0];
        let loopback = self.loopback;
        let pushed = self.requests.push(action, kind, flags, |message| {
            message.raw(&header).address(RTA_DST, address).u32(RTA_OIF, loopback);
            if let Some(source) = source {
                message.address(RTA_PREFSRC, source);
            }
        });
        pushed.expect("attributes of 16 bytes are short");
    }
}

impl Rtnetlink {
    /// An empty batch.
    ///
    /// # Errors
    /// [`Error::Rejected`](crate::Error::Rejected), as a rule for want of privilege.
    pub fn local_route_batch(&mut self) -> Result<LocalRouteBatch> {
        let loopback = self.link_index(LOOPBACK)?.unwrap_or(1);
        Ok(LocalRouteBatch { requests: Batches::new(), loopback })
    }

    /// Carries out a batch. To keep what is kept, and to let go of what is not, are no errors.
    ///
    /// # Errors
    /// The kernel's first refusal: `EINVAL` for a source that is no address of this machine, `EPERM` without
    /// CAP_NET_ADMIN.
    pub fn change_local_routes(&mut self, batch: &mut LocalRouteBatch) -> Result<()> {
        self.socket.transact_all("keep addresses by routes", &mut batch.requests, |_, error| {
            match error.errno() {
                Some(libc::EEXIST | libc::ESRCH) => Ok(()),
                _ => Err(error),
            }
        })
    }

    /// The addresses that are kept by routes of [`LocalRouteBatch`], whoever made them.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) if routes change faster than they can be read.
    pub fn local_route_addresses(&mut self) -> Result<Vec<IpAddr>> {
        let mut kept = Vec::new();
        for family in Family::ALL {
            let mut header = [0; HEADER];
            header[0] = family.number();
            header[4] = RT_TABLE_LOCAL;
            let routes = self
                .collect("list the routes", libc::RTM_GETROUTE, &header, |message| parse(message, family));
            kept.extend(no_table_is_empty(routes)?);
        }
        Ok(kept)
    }
}

/// The address of a route of ours.
pub(super) fn parse(message: &Message<'_>, family: Family) -> Result<Option<IpAddr>, Malformed> {
    if message.kind != libc::RTM_NEWROUTE {
        return Ok(None);
    }
    let (header, attributes) = message.split::<HEADER>()?;
    if header[0] != family.number() || header[5] != PROTOCOL || header[7] != RTN_LOCAL {
        return Ok(None);
    }
    let (mut address, mut table) = (None, u32::from(header[4]));
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            RTA_DST => address = Some(attribute.address()?),
            RTA_TABLE => table = attribute.u32()?,
            _ => {}
        }
    }
    Ok(address.filter(|_| table == u32::from(RT_TABLE_LOCAL)))
}
