//! IP Virtual Server (ip_vs over generic netlink, linux/ip_vs.h): virtual servers, their real servers, and counters.
//!
//! ```text
//! VirtualServer ── VirtualServerConfig    protocol, address and port; scheduler, flags and timeout
//!       └───────── RealServer …           endpoints; the forwarding method is masquerading, as in kube-proxy
//! ```
//!
//! [`IpVs`] has methods for single requests and dumps. A [`ServerBatch`] collects changes, thousands per send. The kernel
//! applies the messages of a batch in order; a rejected message does not stop the rest.

mod batch;
mod real_server;
mod statistics;
mod timeouts;
mod virtual_server;
mod virtual_server_config;

pub use batch::ServerBatch;
pub use real_server::{MASQUERADING, RealServer, RealServerState};
pub use statistics::Statistics;
pub use timeouts::Timeouts;
pub use virtual_server::VirtualServer;
pub use virtual_server_config::{PERSISTENT, SCHED_1, SCHED_2, SCHED_3, VirtualServerConfig};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::attribute::{Attribute, Malformed, Writer};
use crate::error::{During, Error, Result};
use crate::family::Family;
use crate::generic;
use crate::message::{Batch, Message};
use crate::socket::{NetlinkProtocol, Socket};

const FAMILY: &str = "IPVS";
const VERSION: u8 = 1;

/// `IPVS_CMD_*`.
mod commands {
    pub(super) const NEW_SERVICE: u8 = 1;
    pub(super) const SET_SERVICE: u8 = 2;
    pub(super) const DEL_SERVICE: u8 = 3;
    pub(super) const GET_SERVICE: u8 = 4;
    pub(super) const NEW_DEST: u8 = 5;
    pub(super) const SET_DEST: u8 = 6;
    pub(super) const DEL_DEST: u8 = 7;
    pub(super) const GET_DEST: u8 = 8;
    pub(super) const SET_CONFIG: u8 = 12;
    pub(super) const GET_CONFIG: u8 = 13;
    pub(super) const FLUSH: u8 = 17;
}

/// `IPVS_CMD_ATTR_*`: the object of a message.
const IPVS_CMD_ATTR_SERVICE: u16 = 1;
const IPVS_CMD_ATTR_DEST: u16 = 2;

/// `union nf_inet_addr`: 16 bytes, of which IPv4 uses the first four.
const ADDRESS_BYTES: usize = 16;
/// The number of attempts to read a list that changes meanwhile.
const ATTEMPTS: usize = 10;

/// The virtual servers of one network namespace.
#[derive(Debug)]
pub struct IpVs {
    socket: Socket,
    family: u16,
}

impl IpVs {
    /// Opens the virtual servers of the calling thread's network namespace; `None` if ip_vs is not loaded. Does not load
    /// it.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no generic netlink.
    pub fn open() -> Result<Option<Self>> {
        let mut socket = Socket::open(NetlinkProtocol::Generic)?;
        let family = generic::loaded_family(&mut socket, FAMILY)?;
        Ok(family.map(|family| IpVs { socket, family }))
    }

    /// Returns all virtual servers except those with a packet mark, in the kernel's order.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if they change faster than they can be read; `EPERM` without CAP_NET_ADMIN.
    pub fn virtual_servers(&mut self) -> Result<Vec<(VirtualServer, VirtualServerConfig)>> {
        self.services("list the virtual servers", VirtualServerConfig::parse)
    }

    /// Returns the configuration of a virtual server; `None` if it is missing.
    ///
    /// # Errors
    /// [`Error::Rejected`], usually without CAP_NET_ADMIN.
    pub fn get(&mut self, server: &VirtualServer) -> Result<Option<VirtualServerConfig>> {
        self.read("read a virtual server", server, VirtualServerConfig::parse)
    }

    /// Returns the counters of a virtual server; `None` if it is missing. The kernel updates them every two seconds.
    ///
    /// # Errors
    /// [`Error::Rejected`], usually without CAP_NET_ADMIN.
    pub fn statistics(&mut self, server: &VirtualServer) -> Result<Option<Statistics>> {
        self.read("read the counters of a virtual server", server, Statistics::of_service)
    }

    /// Returns the counters of all virtual servers except those with a packet mark, as [`IpVs::statistics`] does.
    ///
    /// # Errors
    /// As [`IpVs::virtual_servers`].
    pub fn all_statistics(&mut self) -> Result<Vec<(VirtualServer, Statistics)>> {
        self.services("read the counters of all virtual servers", Statistics::of_service)
    }

    /// Returns the real servers of a virtual server, in the kernel's order; none if the virtual server is missing.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if they change faster than they can be read; `EPERM` without CAP_NET_ADMIN.
    pub fn real_servers(&mut self, server: &VirtualServer) -> Result<Vec<RealServerState>> {
        const ACTION: &str = "list the real servers of a virtual server";
        let family = Family::from_address(server.address);
        let fill = |message: &mut Writer<'_>| write_service(message, server);
        let listed = self.collect(ACTION, commands::GET_DEST, &fill, &|message| match inside(
            message,
            IPVS_CMD_ATTR_DEST,
        )? {
            Some(destination) => RealServerState::parse(&destination, family),
            None => Ok(None),
        });
        match listed {
            Err(error) if is_missing(&error) => Ok(Vec::new()),
            listed => listed,
        }
    }

    /// Deletes a virtual server with its real servers. Returns false if it was missing.
    ///
    /// # Errors
    /// [`Error::Rejected`], usually without CAP_NET_ADMIN.
    pub fn delete(&mut self, server: &VirtualServer) -> Result<bool> {
        const ACTION: &str = "delete a virtual server";
        let mut request = self.request(ACTION, commands::DEL_SERVICE, |message| {
            write_service(message, server);
        })?;
        match self.socket.acknowledge(ACTION, &mut request) {
            Ok(()) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes all virtual servers of the namespace, including those with a packet mark and those of other programs.
    ///
    /// # Errors
    /// [`Error::Rejected`], usually without CAP_NET_ADMIN.
    pub fn flush(&mut self) -> Result<()> {
        const ACTION: &str = "delete all virtual servers";
        let mut request = self.request(ACTION, commands::FLUSH, |_| {})?;
        self.socket.acknowledge(ACTION, &mut request)
    }

    /// Applies a batch, in as few sends as fit the socket's buffer. Calls `rejected` with the position in the batch of each
    /// change that the kernel rejects; the rest is applied. The batch can be sent again.
    ///
    /// The usual rejections: `EEXIST` to add an existing server; `ESRCH` for a missing virtual server; `ENOENT` for a missing
    /// real server, and for a scheduler that the kernel does not have (it tries to load `ip_vs_NAME`); `EPERM` without
    /// CAP_NET_ADMIN.
    ///
    /// # Errors
    /// The error of `rejected`, after which no more is sent; [`Error::Overrun`] if errors were lost.
    pub fn send(
        &mut self,
        batch: &mut ServerBatch,
        rejected: impl FnMut(usize, Error) -> Result<()>,
    ) -> Result<()> {
        let requests = batch.requests_of(self.family);
        self.socket.transact_all("change the virtual servers", requests, rejected)
    }

    fn request(
        &self,
        action: &'static str,
        command: u8,
        fill: impl FnOnce(&mut Writer<'_>),
    ) -> Result<Batch> {
        Batch::with_message(action, self.family, 0, |message| {
            fill(message.generic_header(command, VERSION));
        })
    }

    /// Reads one virtual server; `None` if it is missing.
    fn read<T>(
        &mut self,
        action: &'static str,
        server: &VirtualServer,
        parse: impl Fn(&Attribute<'_>) -> Result<T, Malformed>,
    ) -> Result<Option<T>> {
        let mut request = self.request(action, commands::GET_SERVICE, |message| {
            write_service(message, server);
        })?;
        let response = self.socket.query(action, &mut request, |message| {
            let service = inside(&message, IPVS_CMD_ATTR_SERVICE).during(action)?;
            parse(&service.ok_or(Malformed::Missing("IPVS_CMD_ATTR_SERVICE")).during(action)?).during(action)
        });
        match response {
            Ok(read) => Ok(Some(read)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns all virtual servers except those with a packet mark, each with the result of `parse`.
    fn services<T>(
        &mut self,
        action: &'static str,
        parse: impl Fn(&Attribute<'_>) -> Result<T, Malformed>,
    ) -> Result<Vec<(VirtualServer, T)>> {
        self.collect(action, commands::GET_SERVICE, &|_| {}, &|message| {
            let Some(service) = inside(message, IPVS_CMD_ATTR_SERVICE)? else { return Ok(None) };
            let Some(server) = VirtualServer::parse(&service)? else { return Ok(None) };
            Ok(Some((server, parse(&service)?)))
        })
    }

    /// Dumps a list and collects the results of `parse`; retries if the list changed meanwhile.
    fn collect<T>(
        &mut self,
        action: &'static str,
        command: u8,
        fill: &dyn Fn(&mut Writer<'_>),
        parse: &dyn Fn(&Message<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<Vec<T>> {
        let mut attempt = 1;
        loop {
            let mut collected = Vec::new();
            let mut request = self.request(action, command, fill)?;
            let outcome = self.socket.dump(action, &mut request, |message| {
                collected.extend(parse(&message).during(action)?);
                Ok(())
            });
            match outcome {
                Ok(()) => return Ok(collected),
                Err(error) if error.is_transient() && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

/// Returns true for `ESRCH`, a missing virtual server, and `ENOENT`, a missing real server.
fn is_missing(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::ESRCH | libc::ENOENT))
}

fn write_service(message: &mut Writer<'_>, server: &VirtualServer) {
    message.nested(IPVS_CMD_ATTR_SERVICE, |service| server.write(service));
}

/// Returns the attribute with the object of a message.
fn inside<'a>(message: &Message<'a>, kind: u16) -> Result<Option<Attribute<'a>>, Malformed> {
    let (_, mut attributes) = message.split::<{ generic::HEADER }>()?;
    attributes.find(|attribute| attribute.as_ref().map_or(true, |a| a.kind == kind)).transpose()
}

fn write_address(writer: &mut Writer<'_>, kind: u16, address: IpAddr) {
    let mut bytes = [0; ADDRESS_BYTES];
    match address {
        IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => bytes.copy_from_slice(&v6.octets()),
    }
    writer.bytes(kind, &bytes);
}

/// Returns `None` if there are too few bytes. The family is in another attribute.
fn read_address(family: Family, attribute: &Attribute<'_>) -> Option<IpAddr> {
    let bytes = attribute.payload.first_chunk::<ADDRESS_BYTES>()?;
    Some(match family {
        Family::V4 => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        Family::V6 => Ipv6Addr::from(*bytes).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Messages;
    use proptest::prelude::*;

    /// Builds a message with a service or a destination in the kernel's format.
    fn with_message<T>(
        kind: u16,
        fill: impl FnOnce(&mut Writer<'_>),
        read: impl FnOnce(&Attribute<'_>) -> T,
    ) -> T {
        let batch = Batch::with_message("test", 30, 0, |message| {
            message.generic_header(1, VERSION).nested(kind, fill);
        });
        let batch = batch.expect("a short message");
        let message = Messages::new(batch.bytes()).next().expect("one").expect("whole");
        read(&inside(&message, kind).expect("parses").expect("is there"))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn read_servers_equal_written_ones() {
        for address in ["10.96.0.1", "fd00::1"] {
            let server = VirtualServer { protocol: 17, address: ip(address), port: 53 };
            for config in [
                VirtualServerConfig::new("rr", Family::from_address(server.address)),
                VirtualServerConfig {
                    flags: PERSISTENT | SCHED_2,
                    timeout: 10_800,
                    ..VirtualServerConfig::new("mh", Family::from_address(server.address))
                },
                VirtualServerConfig {
                    netmask: 24,
                    ..VirtualServerConfig::new("wlc", Family::from_address(server.address))
                },
            ] {
                let fill = |service: &mut Writer<'_>| {
                    server.write(service);
                    config.write(service, Family::from_address(server.address));
                };
                let read = |service: &Attribute<'_>| {
                    (VirtualServer::parse(service), VirtualServerConfig::parse(service))
                };
                assert_eq!(
                    with_message(IPVS_CMD_ATTR_SERVICE, fill, read),
                    (Ok(Some(server)), Ok(config.clone()))
                );
            }
        }
    }

    #[test]
    fn read_real_servers_equal_written_ones() {
        for (address, weight) in [("10.244.0.7", 1), ("fd00:1::7", 0)] {
            let server = RealServer { address: ip(address), port: 8080, weight };
            let family = Family::from_address(server.address);
            let read = |destination: &Attribute<'_>| RealServerState::parse(destination, family);
            let state = with_message(IPVS_CMD_ATTR_DEST, |destination| server.write(destination), read);
            let expected = RealServerState { server, forwarding: 0, active: 0, inactive: 0, persistent: 0 };
            assert_eq!(state, Ok(Some(expected)));
        }
    }

    #[test]
    fn a_server_with_a_packet_mark_is_skipped() {
        const IPVS_SVC_ATTR_FWMARK: u16 = 5;
        let fill = |service: &mut Writer<'_>| {
            service.u16(1, 2).u32(IPVS_SVC_ATTR_FWMARK, 7);
        };
        assert_eq!(with_message(IPVS_CMD_ATTR_SERVICE, fill, VirtualServer::parse), Ok(None));
    }

    proptest! {
        #[test]
        fn noise_never_panics(payload in prop::collection::vec(any::<u8>(), 0..200), kind in 0u16..14) {
            let message = Message { kind: 30, flags: 0, sequence: 1, payload: &payload };
            let _ = Timeouts::parse(&message);
            for wanted in [IPVS_CMD_ATTR_SERVICE, IPVS_CMD_ATTR_DEST] {
                let _ = inside(&message, wanted);
            }
            // Noise where only the inner attributes are wrong, so that it reaches each decoder.
            for attribute in [
                Attribute { kind, payload: &payload },
                Attribute { kind, payload: payload.get(4..).unwrap_or_default() },
            ] {
                let _ = VirtualServer::parse(&attribute);
                let _ = VirtualServerConfig::parse(&attribute);
                let _ = Statistics::of_service(&attribute);
                let _ = RealServerState::parse(&attribute, Family::V4);
                let _ = RealServerState::parse(&attribute, Family::V6);
            }
        }

        #[test]
        fn attributes_of_any_length_never_panic(kind in 0u16..14, payload in prop::collection::vec(any::<u8>(), 0..24)) {
            let fill = |writer: &mut Writer<'_>| {
                writer.u16(1, 2).bytes(kind, &payload);
            };
            with_message(IPVS_CMD_ATTR_SERVICE, fill, |attribute| {
                let _ = VirtualServer::parse(attribute);
                let _ = VirtualServerConfig::parse(attribute);
                let _ = Statistics::of_service(attribute);
                let _ = RealServerState::parse(attribute, Family::V4);
            });
        }
    }
}
