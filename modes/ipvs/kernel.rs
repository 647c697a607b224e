//! The kernel interfaces of IPVS mode as traits, so that tests can replace them: ip_vs, ipset and rtnetlink.

use std::net::{IpAddr, SocketAddr};

use portcullis_cluster::Family;
use portcullis_netlink::Result;
use portcullis_netlink::ip_vs::{
    RealServer, RealServerState, Statistics, VirtualServer, VirtualServerConfig,
};
use portcullis_netlink::ipset::SetEntry;

use super::ip_set::IpSet;

/// The dummy interface with the addresses of Services, which makes the node accept their packets.
pub const DUMMY_INTERFACE: &str = "kube-ipvs0";

/// Reads the objects of IPVS mode from the kernel.
pub trait IpvsReader: Send {
    /// Returns all virtual servers that have an address, of both families.
    ///
    /// # Errors
    /// The kernel could not be read.
    fn virtual_servers(&mut self) -> Result<Vec<(VirtualServer, VirtualServerConfig)>>;

    /// Returns the configuration of a virtual server; `None` if it is missing.
    ///
    /// # Errors
    /// The kernel could not be read.
    fn virtual_server(&mut self, server: &VirtualServer) -> Result<Option<VirtualServerConfig>>;

    /// Returns the counters of all virtual servers that have an address, of both families.
    ///
    /// # Errors
    /// The kernel could not be read.
    fn statistics(&mut self) -> Result<Vec<(VirtualServer, Statistics)>>;

    /// Returns the real servers of a virtual server; none if it is missing.
    ///
    /// # Errors
    /// The kernel could not be read.
    fn real_servers(&mut self, server: &VirtualServer) -> Result<Vec<RealServerState>>;

    /// Returns the entries of a set; none if it is missing.
    ///
    /// # Errors
    /// The kernel could not be read.
    fn entries(&mut self, set: IpSet, family: Family) -> Result<Vec<SetEntry>>;

    /// Returns the addresses of [`DUMMY_INTERFACE`], of both families; none if it is missing.
    ///
    /// # Errors
    /// The kernel could not be read.
    fn addresses(&mut self) -> Result<Vec<IpAddr>>;
}

/// The kernel of one network namespace, for both families.
pub trait IpvsKernel: IpvsReader {
    /// Returns a reader for another thread.
    fn reader(&self) -> Box<dyn IpvsReader>;

    /// Applies changes in order, in as few sends as possible. Calls `rejected` with the position of each change that
    /// the kernel rejects; the rest is applied.
    ///
    /// # Errors
    /// The kernel could not be reached. Some of the changes may be applied.
    fn change_servers(
        &mut self,
        changes: &[ServerChange],
        rejected: &mut dyn FnMut(usize, portcullis_netlink::Error),
    ) -> Result<()>;

    /// Creates a set if it is missing or has another type.
    ///
    /// # Errors
    /// The kernel rejects it, or has a set of this name and another type that rules refer to.
    fn ensure_set(&mut self, set: IpSet, family: Family) -> Result<()>;

    /// Deletes entries from a set and adds others. Adding an entry that exists or deleting a missing one is no error.
    ///
    /// # Errors
    /// The kernel rejects an entry, for example because the set is full.
    fn change_set(
        &mut self,
        set: IpSet,
        family: Family,
        added: &[SetEntry],
        deleted: &[SetEntry],
    ) -> Result<()>;

    /// Deletes addresses of [`DUMMY_INTERFACE`] and adds others; creates the interface if it is missing. Adding an
    /// address that exists or deleting a missing one is no error. Calls `rejected` for each address that the kernel
    /// rejects; the rest is changed.
    ///
    /// # Errors
    /// The kernel could not be reached, or cannot create the interface.
    fn change_addresses(
        &mut self,
        added: &[IpAddr],
        deleted: &[IpAddr],
        rejected: &mut dyn FnMut(IpAddr, portcullis_netlink::Error),
    ) -> Result<()>;
}

/// A change of a virtual server or one of its real servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerChange {
    /// Adds a virtual server without real servers.
    AddServer(VirtualServer, VirtualServerConfig),
    /// Changes the configuration of a virtual server.
    SetServer(VirtualServer, VirtualServerConfig),
    /// Deletes a virtual server with its real servers.
    DeleteServer(VirtualServer),
    /// Adds a real server.
    AddRealServer(VirtualServer, RealServer),
    /// Changes the weight of a real server.
    SetRealServer(VirtualServer, RealServer),
    /// Deletes a real server.
    DeleteRealServer(VirtualServer, SocketAddr),
}

impl ServerChange {
    /// Returns the virtual server that is changed.
    pub fn server(&self) -> &VirtualServer {
        match self {
            ServerChange::AddServer(server, _)
            | ServerChange::SetServer(server, _)
            | ServerChange::DeleteServer(server)
            | ServerChange::AddRealServer(server, _)
            | ServerChange::SetRealServer(server, _)
            | ServerChange::DeleteRealServer(server, _) => server,
        }
    }
}
