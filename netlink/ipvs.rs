//! IP Virtual Server: virtual servers, listed and deleted (`ip_vs` by generic netlink).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::attribute::{Malformed, Writer};
use crate::error::{During, Result};
use crate::family::Family;
use crate::generic;
use crate::message::{Batch, Message};
use crate::socket::{Protocol, Socket};

const FAMILY: &str = "IPVS";
const VERSION: u8 = 1;

const IPVS_CMD_DEL_SERVICE: u8 = 3;
const IPVS_CMD_GET_SERVICE: u8 = 4;
const IPVS_CMD_ATTR_SERVICE: u16 = 1;

const IPVS_SVC_ATTR_AF: u16 = 1;
const IPVS_SVC_ATTR_PROTOCOL: u16 = 2;
const IPVS_SVC_ATTR_ADDR: u16 = 3;
const IPVS_SVC_ATTR_PORT: u16 = 4;

/// `union nf_inet_addr`: 16 bytes, of which IPv4 uses the first four.
const ADDRESS_BYTES: usize = 16;
const ATTEMPTS: usize = 10;

/// A virtual server at an address. Those by packet mark are never listed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VirtualServer {
    /// `IPPROTO_*`.
    pub protocol: u8,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

/// The virtual servers of one network namespace.
#[derive(Debug)]
pub struct VirtualServers {
    socket: Socket,
    family: u16,
}

impl VirtualServers {
    /// Opens those of the calling thread's network namespace; `None` on a kernel that has not loaded ip_vs,
    /// which is not made to.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if there is no generic netlink.
    pub fn open() -> Result<Option<Self>> {
        let mut socket = Socket::open(Protocol::Generic)?;
        let family = generic::loaded_family(&mut socket, FAMILY)?;
        Ok(family.map(|family| VirtualServers { socket, family }))
    }

    /// All of them.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`] if they change faster than they can be read.
    pub fn list(&mut self) -> Result<Vec<VirtualServer>> {
        const ACTION: &str = "list the virtual servers";
        let mut attempt = 1;
        loop {
            let mut servers = Vec::new();
            let mut request = Batch::of(ACTION, self.family, 0, |message| {
                message.generic_header(IPVS_CMD_GET_SERVICE, VERSION);
            })?;
            let outcome = self.socket.dump(ACTION, &mut request, |message| {
                servers.extend(parse(&message).during(ACTION)?);
                Ok(())
            });
            match outcome {
                Ok(()) => return Ok(servers),
                Err(error) if error.is_transient() && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Deletes one, with its real servers. Says whether it was there.
    ///
    /// # Errors
    /// [`crate::Error::Refused`], as a rule for want of privilege.
    pub fn delete(&mut self, server: &VirtualServer) -> Result<bool> {
        const ACTION: &str = "delete a virtual server";
        let mut request = Batch::of(ACTION, self.family, 0, |message| {
            message
                .generic_header(IPVS_CMD_DEL_SERVICE, VERSION)
                .nested(IPVS_CMD_ATTR_SERVICE, |service| server.write(service));
        })?;
        match self.socket.acknowledge(ACTION, &mut request) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.errno(), Some(libc::ESRCH | libc::ENOENT)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl VirtualServer {
    fn write(&self, service: &mut Writer<'_>) {
        let mut address = [0; ADDRESS_BYTES];
        match self.address {
            IpAddr::V4(v4) => address[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => address.copy_from_slice(&v6.octets()),
        }
        service
            .u16(IPVS_SVC_ATTR_AF, Family::of(self.address).number().into())
            .u16(IPVS_SVC_ATTR_PROTOCOL, self.protocol.into())
            .bytes(IPVS_SVC_ATTR_ADDR, &address)
            .u16_be(IPVS_SVC_ATTR_PORT, self.port);
    }
}

/// `None` for a virtual server by packet mark, and for one of a family that is not IP.
fn parse(message: &Message<'_>) -> Result<Option<VirtualServer>, Malformed> {
    let (_, attributes) = message.split::<{ generic::HEADER }>()?;
    let (mut family, mut protocol, mut address, mut port) = (None, None, None, None);
    for service in attributes {
        let service = service?;
        if service.kind != IPVS_CMD_ATTR_SERVICE {
            continue;
        }
        for attribute in service.nested() {
            let attribute = attribute?;
            match attribute.kind {
                IPVS_SVC_ATTR_AF => family = Family::from_number(attribute.u16()? as u8),
                IPVS_SVC_ATTR_PROTOCOL => protocol = Some(attribute.u16()? as u8),
                IPVS_SVC_ATTR_ADDR => address = attribute.payload.first_chunk::<ADDRESS_BYTES>(),
                IPVS_SVC_ATTR_PORT => port = Some(attribute.u16_be()?),
                _ => {}
            }
        }
    }
    let (Some(family), Some(protocol), Some(address), Some(port)) = (family, protocol, address, port) else {
        return Ok(None);
    };
    let address = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(address[0], address[1], address[2], address[3])),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(*address)),
    };
    Ok(Some(VirtualServer { protocol, address, port }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Messages;

    /// As the kernel lists them: what is written for a deletion reads as the same server.
    #[test]
    fn a_server_is_read_as_it_is_written() {
        for address in ["10.96.0.1", "fd00::1"] {
            let server = VirtualServer { protocol: 17, address: address.parse().expect(address), port: 53 };
            let batch = Batch::of("test", 30, 0, |message| {
                message.generic_header(1, VERSION).nested(IPVS_CMD_ATTR_SERVICE, |service| {
                    server.write(service);
                });
            });
            let batch = batch.expect("a short message");
            let message = Messages::new(batch.bytes()).next().expect("one").expect("whole");
            assert_eq!(parse(&message), Ok(Some(server)));
        }
    }

    #[test]
    fn a_server_by_mark_is_nobodys() {
        const IPVS_SVC_ATTR_FWMARK: u16 = 5;
        let batch = Batch::of("test", 30, 0, |message| {
            message.generic_header(1, VERSION).nested(IPVS_CMD_ATTR_SERVICE, |service| {
                service.u16(IPVS_SVC_ATTR_AF, 2).u32(IPVS_SVC_ATTR_FWMARK, 7);
            });
        });
        let batch = batch.expect("a short message");
        let message = Messages::new(batch.bytes()).next().expect("one").expect("whole");
        assert_eq!(parse(&message), Ok(None));
    }
}
