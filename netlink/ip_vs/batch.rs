//! A batch of changes of virtual and real servers.

use std::net::IpAddr;

use super::real_server::{RealServer, write_key};
use super::virtual_server::VirtualServer;
use super::virtual_server_config::VirtualServerConfig;
use super::{IPVS_CMD_ATTR_DEST, IPVS_CMD_ATTR_SERVICE, VERSION, commands, write_service};
use crate::attribute::Writer;
use crate::batches::Batches;
use crate::error::Result;
use crate::family::Family;

/// The type of a message until it is sent: the kernel numbers the family when ip_vs is loaded.
const UNKNOWN: u16 = 0;

/// Changes of virtual and real servers for [`IpVs::send`](super::IpVs::send), which applies them in order. Building it needs
/// no kernel. The methods fail only with [`AttributeTooLong`](crate::Error::AttributeTooLong), for a scheduler's name of 64
/// KiB.
#[derive(Debug, Default)]
pub struct ServerBatch {
    requests: Batches,
}

impl ServerBatch {
    /// Returns an empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a virtual server without real servers. Rejected with `EEXIST` if it exists, and with `ENOENT` if
    /// the kernel has no such scheduler.
    ///
    /// # Errors
    /// See the type.
    pub fn add_virtual_server(&mut self, server: &VirtualServer, config: &VirtualServerConfig) -> Result<()> {
        self.virtual_server("add a virtual server", commands::NEW_SERVICE, server, Some(config))
    }

    /// Changes the configuration of a virtual server; its connections and real servers stay. Rejected with `ESRCH` if
    /// it is missing, and with `ENOENT` if the kernel has no such scheduler.
    ///
    /// # Errors
    /// See the type.
    pub fn set_virtual_server(&mut self, server: &VirtualServer, config: &VirtualServerConfig) -> Result<()> {
        self.virtual_server("change a virtual server", commands::SET_SERVICE, server, Some(config))
    }

    /// Deletes a virtual server with its real servers. Rejected with `ESRCH` if it is missing.
    ///
    /// # Errors
    /// See the type.
    pub fn delete_virtual_server(&mut self, server: &VirtualServer) -> Result<()> {
        self.virtual_server("delete a virtual server", commands::DEL_SERVICE, server, None)
    }

    /// Adds a real server to a virtual server. Rejected with `EEXIST` if it exists, and with `ESRCH` if the
    /// virtual server is missing.
    ///
    /// # Errors
    /// See the type.
    pub fn add_real_server(&mut self, server: &VirtualServer, real: &RealServer) -> Result<()> {
        self.real_server("add a real server", commands::NEW_DEST, server, |writer| real.write(writer))
    }

    /// Changes the weight of a real server. Rejected with `ENOENT` if it is missing, and with `ESRCH` if the
    /// virtual server is.
    ///
    /// # Errors
    /// See the type.
    pub fn set_real_server(&mut self, server: &VirtualServer, real: &RealServer) -> Result<()> {
        self.real_server("change a real server", commands::SET_DEST, server, |writer| real.write(writer))
    }

    /// Deletes a real server. Rejected with `ENOENT` if it is missing, and with `ESRCH` if the virtual server
    /// is. `net.ipv4.vs.expire_nodest_conn` determines whether its connections end.
    ///
    /// # Errors
    /// See the type.
    pub fn delete_real_server(&mut self, server: &VirtualServer, address: IpAddr, port: u16) -> Result<()> {
        self.real_server("delete a real server", commands::DEL_DEST, server, |writer| {
            write_key(writer, address, port);
        })
    }

    /// Returns the number of changes.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Returns true if there are no changes.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Returns the size of the requests in bytes.
    pub fn size(&self) -> usize {
        self.requests.size()
    }

    /// Removes all changes, and keeps the memory of one send.
    pub fn clear(&mut self) {
        self.requests.clear();
    }

    /// Returns the requests, with the kernel's number of the generic netlink family.
    pub(super) fn requests_of(&mut self, family: u16) -> &mut Batches {
        self.requests.sends().for_each(|send| send.set_kind(family));
        &mut self.requests
    }

    fn virtual_server(
        &mut self,
        action: &'static str,
        command: u8,
        server: &VirtualServer,
        config: Option<&VirtualServerConfig>,
    ) -> Result<()> {
        self.requests.push(action, UNKNOWN, 0, |message| {
            message.generic_header(command, VERSION).nested(IPVS_CMD_ATTR_SERVICE, |service| {
                server.write(service);
                if let Some(config) = config {
                    config.write(service, Family::from_address(server.address));
                }
            });
        })
    }

    fn real_server(
        &mut self,
        action: &'static str,
        command: u8,
        server: &VirtualServer,
        real: impl FnOnce(&mut Writer<'_>),
    ) -> Result<()> {
        self.requests.push(action, UNKNOWN, 0, |message| {
            write_service(message.generic_header(command, VERSION), server);
            message.nested(IPVS_CMD_ATTR_DEST, real);
        })
    }
}
