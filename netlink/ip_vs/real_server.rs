//! Real servers: the endpoints of a virtual server, `struct ip_vs_dest_user`.

use std::net::{IpAddr, SocketAddr};

use super::{read_address, write_address};
use crate::attribute::{Attribute, Malformed, Writer};
use crate::family::Family;

const IPVS_DEST_ATTR_ADDR: u16 = 1;
const IPVS_DEST_ATTR_PORT: u16 = 2;
const IPVS_DEST_ATTR_FWD_METHOD: u16 = 3;
const IPVS_DEST_ATTR_WEIGHT: u16 = 4;
const IPVS_DEST_ATTR_U_THRESH: u16 = 5;
const IPVS_DEST_ATTR_L_THRESH: u16 = 6;
const IPVS_DEST_ATTR_ACTIVE_CONNS: u16 = 7;
const IPVS_DEST_ATTR_INACT_CONNS: u16 = 8;
const IPVS_DEST_ATTR_PERSIST_CONNS: u16 = 9;
const IPVS_DEST_ATTR_ADDR_FAMILY: u16 = 11;

/// `IP_VS_CONN_F_MASQ`: the forwarding method that rewrites addresses, as in kube-proxy.
pub const MASQUERADING: u32 = 0;

/// A real server as written: with masquerading, and without connection thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RealServer {
    /// Its address, of its virtual server's family.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its weight, for weighted schedulers. With 0 it gets no new connections and keeps existing ones.
    pub weight: u32,
}

/// A real server as read from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealServerState {
    /// The real server as written.
    pub server: RealServer,
    /// The forwarding method, `IP_VS_CONN_F_*`; [`MASQUERADING`] for all that [`super::ServerBatch`] writes.
    pub forwarding: u32,
    /// The number of established connections.
    pub active: u32,
    /// The number of connections in other states.
    pub inactive: u32,
    /// The number of clients with persistence to this server.
    pub persistent: u32,
}

impl RealServer {
    /// Returns the address and port, by which its virtual server identifies it.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    pub(super) fn write(&self, destination: &mut Writer<'_>) {
        write_key(destination, self.address, self.port);
        destination
            .u32(IPVS_DEST_ATTR_FWD_METHOD, MASQUERADING)
            .u32(IPVS_DEST_ATTR_WEIGHT, self.weight)
            .u32(IPVS_DEST_ATTR_U_THRESH, 0)
            .u32(IPVS_DEST_ATTR_L_THRESH, 0);
    }
}

/// Writes the attributes that identify a real server.
pub(super) fn write_key(destination: &mut Writer<'_>, address: IpAddr, port: u16) {
    write_address(destination, IPVS_DEST_ATTR_ADDR, address);
    destination
        .u16_be(IPVS_DEST_ATTR_PORT, port)
        .u16(IPVS_DEST_ATTR_ADDR_FAMILY, Family::from_address(address).number().into());
}

impl RealServerState {
    /// Parses a real server of a virtual server of `family`. Since Linux 3.18 a real server may have another family. Returns
    /// `None` for a family that is not IP.
    pub(super) fn parse(destination: &Attribute<'_>, family: Family) -> Result<Option<Self>, Malformed> {
        let mut family = Some(family);
        let (mut address, mut port, mut weight) = (None, None, None);
        let (mut forwarding, mut active, mut inactive, mut persistent) = (0, 0, 0, 0);
        for attribute in destination.nested() {
            let attribute = attribute?;
            match attribute.kind {
                IPVS_DEST_ATTR_ADDR_FAMILY => family = Family::from_number(attribute.u16()? as u8),
                IPVS_DEST_ATTR_ADDR => address = Some(attribute),
                IPVS_DEST_ATTR_PORT => port = Some(attribute.u16_be()?),
                IPVS_DEST_ATTR_WEIGHT => weight = Some(attribute.u32()?),
                IPVS_DEST_ATTR_FWD_METHOD => forwarding = attribute.u32()?,
                IPVS_DEST_ATTR_ACTIVE_CONNS => active = attribute.u32()?,
                IPVS_DEST_ATTR_INACT_CONNS => inactive = attribute.u32()?,
                IPVS_DEST_ATTR_PERSIST_CONNS => persistent = attribute.u32()?,
                _ => {}
            }
        }
        let Some(family) = family else { return Ok(None) };
        let address = address
            .and_then(|address| read_address(family, &address))
            .ok_or(Malformed::Missing("IPVS_DEST_ATTR_ADDR"))?;
        let server = RealServer {
            address,
            port: port.ok_or(Malformed::Missing("IPVS_DEST_ATTR_PORT"))?,
            weight: weight.ok_or(Malformed::Missing("IPVS_DEST_ATTR_WEIGHT"))?,
        };
        Ok(Some(RealServerState { server, forwarding, active, inactive, persistent }))
    }
}
