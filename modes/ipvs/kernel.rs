//! What the engine needs of IPVS, ipset and route netlink, so that tests can fake them.

use std::net::IpAddr;

use portcullis_cluster::Family;
use portcullis_netlink::Result;
use portcullis_netlink::ip_vs::{
    RealServer, RealServerState, Statistics, VirtualServer, VirtualServerConfig,
};
use portcullis_netlink::ipset::SetEntry;

use super::ip_set::IpSet;

/// The link that bears the virtual addresses.
pub const DUMMY_INTERFACE: &str = "kube-ipvs0";

/// Reads what the kernel holds.
pub trait IpvsReader: Send {
    /// All virtual servers at addresses, of both families.
    ///
    /// # Errors
    /// The kernel could not be asked.
    fn virtual_servers(&mut self) -> Result<Vec<(VirtualServer, VirtualServerConfig)>>;

    /// How one virtual server balances; `None` if it is not there.
    ///
    /// # Errors
    /// The kernel could not be asked.
    fn virtual_server(&mut self, server: &VirtualServer) -> Result<Option<VirtualServerConfig>>;

    /// What each virtual server at addresses counted, of both families.
    ///
    /// # Errors
    /// The kernel could not be asked.
    fn statistics(&mut self) -> Result<Vec<(VirtualServer, Statistics)>>;

    /// What is behind a virtual server; nothing if it is not there.
    ///
    /// # Errors
    /// The kernel could not be asked.
    fn real_servers(&mut self, server: &VirtualServer) -> Result<Vec<RealServerState>>;

    /// The entries of a set; none if it is not there.
    ///
    /// # Errors
    /// The kernel could not be asked.
    fn entries(&mut self, set: IpSet, family: Family) -> Result<Vec<SetEntry>>;

    /// The addresses of [`LINK`], of both families; none if it is not there.
    ///
    /// # Errors
    /// The kernel could not be asked.
    fn addresses(&mut self) -> Result<Vec<IpAddr>>;
}

/// The kernel of one network namespace. One for both families.
pub trait IpvsKernel: IpvsReader {
    /// Another view of it, for a thread of its own.
    fn reader(&self) -> Box<dyn IpvsReader>;

    /// Makes changes in order, as few sends as possible. Each that the kernel refuses is given to `rejected` by
    /// its position, and the others are made.
    ///
    /// # Errors
    /// The kernel could not be told, so some changes may be made and others not.
    fn change_servers(
        &mut self,
        changes: &[ServerChange],
        rejected: &mut dyn FnMut(usize, portcullis_netlink::Error),
    ) -> Result<()>;

    /// Makes a set, if it is not there as it must be.
    ///
    /// # Errors
    /// The kernel refuses, or has one of this name and another type which rules refer to.
    fn ensure_set(&mut self, set: IpSet, family: Family) -> Result<()>;

    /// Adds entries to a set, and deletes others. To add one that is there, or to delete one that is not, is fine.
    ///
    /// # Errors
    /// The kernel refuses one of them, as when the set is full.
    fn change_set(
        &mut self,
        set: IpSet,
        family: Family,
        added: &[SetEntry],
        deleted: &[SetEntry],
    ) -> Result<()>;

    /// Adds addresses to [`LINK`], which is made if it is not there, and deletes others. To add one that is there,
    /// or to delete one that is not, is fine. Each that the kernel refuses is given to `rejected`, and the others are
    /// changed.
    ///
    /// # Errors
    /// The kernel could not be told, or makes no such link.
    fn change_addresses(
        &mut self,
        added: &[IpAddr],
        deleted: &[IpAddr],
        rejected: &mut dyn FnMut(IpAddr, portcullis_netlink::Error),
    ) -> Result<()>;
}

/// One change of virtual or real servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerChange {
    /// A new virtual server, with nothing behind it.
    AddServer(VirtualServer, VirtualServerConfig),
    /// Another way to balance.
    SetServer(VirtualServer, VirtualServerConfig),
    /// No virtual server, nor what is behind it.
    DeleteServer(VirtualServer),
    /// One more behind it.
    AddRealServer(VirtualServer, RealServer),
    /// Another weight.
    SetRealServer(VirtualServer, RealServer),
    /// One less behind it, by address and port.
    DeleteRealServer(VirtualServer, IpAddr, u16),
}

impl ServerChange {
    /// The virtual server that it concerns.
    pub fn server(&self) -> &VirtualServer {
        match self {
            ServerChange::AddServer(server, _)
            | ServerChange::SetServer(server, _)
            | ServerChange::DeleteServer(server)
            | ServerChange::AddRealServer(server, _)
            | ServerChange::SetRealServer(server, _)
            | ServerChange::DeleteRealServer(server, ..) => server,
        }
    }
}
