//! Virtual servers: the key of `struct ip_vs_service_user`.

use std::net::IpAddr;

use super::{read_address, write_address};
use crate::attribute::{Attribute, Malformed, Writer};
use crate::family::Family;

const IPVS_SVC_ATTR_AF: u16 = 1;
const IPVS_SVC_ATTR_PROTOCOL: u16 = 2;
const IPVS_SVC_ATTR_ADDR: u16 = 3;
const IPVS_SVC_ATTR_PORT: u16 = 4;

/// The key of a virtual server that has an address. Those with a packet mark are not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VirtualServer {
    /// `IPPROTO_*`: TCP, UDP or SCTP.
    pub protocol: u8,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

impl VirtualServer {
    pub(super) fn write(&self, service: &mut Writer<'_>) {
        service
            .u16(IPVS_SVC_ATTR_AF, Family::from_address(self.address).number().into())
            .u16(IPVS_SVC_ATTR_PROTOCOL, self.protocol.into())
            .u16_be(IPVS_SVC_ATTR_PORT, self.port);
        write_address(service, IPVS_SVC_ATTR_ADDR, self.address);
    }

    /// Parses a virtual server; `None` if it has a packet mark, or a family that is not IP.
    pub(super) fn parse(service: &Attribute<'_>) -> Result<Option<Self>, Malformed> {
        let (mut family, mut protocol, mut address, mut port) = (None, None, None, None);
        for attribute in service.nested() {
            let attribute = attribute?;
            match attribute.kind {
                IPVS_SVC_ATTR_AF => family = Family::from_number(attribute.u16()? as u8),
                IPVS_SVC_ATTR_PROTOCOL => protocol = Some(attribute.u16()? as u8),
                IPVS_SVC_ATTR_ADDR => address = Some(attribute),
                IPVS_SVC_ATTR_PORT => port = Some(attribute.u16_be()?),
                _ => {}
            }
        }
        let address = family.zip(address).and_then(|(family, address)| read_address(family, &address));
        let (Some(protocol), Some(address), Some(port)) = (protocol, address, port) else {
            return Ok(None);
        };
        Ok(Some(VirtualServer { protocol, address, port }))
    }
}
