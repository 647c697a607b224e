//! [`IpvsKernel`] over netlink, for the network namespace of the calling thread.

use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_cluster::Family;
use portcullis_netlink::batches::SEND;
use portcullis_netlink::ip_vs::{
    IpVs, RealServerState, ServerBatch, Statistics, Timeouts, VirtualServer, VirtualServerConfig,
};
use portcullis_netlink::ipset::{Created, DEFAULT_MAXELEM, Destroyed, IpSets, SetEntry};
use portcullis_netlink::route::{AddressBatch, Rtnetlink};
use portcullis_netlink::{Error, Result};

use super::ip_set::IpSet;
use super::kernel::{DUMMY_INTERFACE, IpvsKernel, IpvsReader, ServerChange};
use super::renderer::is_link_local;
use crate::iptables::in_netlink;

/// The kernel of the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct NetlinkKernel {
    servers: IpVs,
    sets: IpSets,
    interfaces: Rtnetlink,
    /// The changes of the next send.
    batch: ServerBatch,
    /// The index of [`DUMMY_INTERFACE`], where it is known.
    link: Option<u32>,
}

impl NetlinkKernel {
    /// Opens the sockets; `None` if IPVS is not loaded.
    ///
    /// # Errors
    /// The kernel has no ipset, or could not be reached.
    pub fn open() -> Result<Option<Self>> {
        let Some(servers) = IpVs::open()? else { return Ok(None) };
        let (sets, interfaces) = (IpSets::open_or_load()?, Rtnetlink::open()?);
        let batch = ServerBatch::new();
        Ok(Some(NetlinkKernel { servers, sets, interfaces, batch, link: None }))
    }

    /// Sets the timeouts of connections.
    ///
    /// # Errors
    /// The kernel rejects them.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<()> {
        self.servers.set_timeouts(timeouts)
    }

    /// Creates [`DUMMY_INTERFACE`] if it is missing.
    ///
    /// # Errors
    /// The kernel has no dummy interfaces.
    pub fn ensure_link(&mut self) -> Result<()> {
        self.link = Some(self.interfaces.add_link_dummy(DUMMY_INTERFACE)?);
        Ok(())
    }

    /// Deletes and adds addresses of the interface with this index.
    fn change_addresses_on(
        &mut self,
        link: u32,
        added: &[IpAddr],
        deleted: &[IpAddr],
        rejected: &mut dyn FnMut(IpAddr, Error),
    ) -> Result<()> {
        let mut batch = AddressBatch::new();
        deleted.iter().for_each(|address| batch.delete(link, IpNet::from(*address)));
        added.iter().for_each(|address| batch.add(link, IpNet::from(*address)));
        self.interfaces.change_addresses(&mut batch, |position, error| {
            if error.errno() == Some(libc::ENODEV) {
                return Err(error);
            }
            rejected(*deleted.iter().chain(added).nth(position).expect("in the order of the batch"), error);
            Ok(())
        })
    }
}

impl IpvsReader for NetlinkKernel {
    fn virtual_servers(&mut self) -> Result<Vec<(VirtualServer, VirtualServerConfig)>> {
        self.servers.virtual_servers()
    }

    fn virtual_server(&mut self, server: &VirtualServer) -> Result<Option<VirtualServerConfig>> {
        self.servers.get(server)
    }

    fn statistics(&mut self) -> Result<Vec<(VirtualServer, Statistics)>> {
        self.servers.all_statistics()
    }

    fn real_servers(&mut self, server: &VirtualServer) -> Result<Vec<RealServerState>> {
        self.servers.real_servers(server)
    }

    fn entries(&mut self, set: IpSet, family: Family) -> Result<Vec<SetEntry>> {
        let mut entries = Vec::new();
        self.sets.entries(&set.name(family), |entry| {
            entries.push(entry);
            Ok(())
        })?;
        Ok(entries)
    }

    fn addresses(&mut self) -> Result<Vec<IpAddr>> {
        let Some(link) = self.interfaces.link_index(DUMMY_INTERFACE)? else { return Ok(Vec::new()) };
        let addresses = self.interfaces.link_addresses(link)?.into_iter().map(|net| net.addr());
        // The kernel adds a link-local address if another process sets the interface up.
        Ok(addresses.filter(|address| !is_link_local(*address)).collect())
    }
}

impl IpvsKernel for NetlinkKernel {
    fn reader(&self) -> Box<dyn IpvsReader> {
        // The other thread opens the sockets, so that the sync does not wait for them.
        Box::new(LazyReader(None))
    }

    fn change_servers(
        &mut self,
        changes: &[ServerChange],
        rejected: &mut dyn FnMut(usize, Error),
    ) -> Result<()> {
        let batch = &mut self.batch;
        batch.clear();
        let mut sent = 0;
        for (i, change) in changes.iter().enumerate() {
            match change {
                ServerChange::AddServer(server, config) => batch.add_virtual_server(server, config)?,
                ServerChange::SetServer(server, config) => batch.set_virtual_server(server, config)?,
                ServerChange::DeleteServer(server) => batch.delete_virtual_server(server)?,
                ServerChange::AddRealServer(server, real) => batch.add_real_server(server, real)?,
                ServerChange::SetRealServer(server, real) => batch.set_real_server(server, real)?,
                ServerChange::DeleteRealServer(server, address) => {
                    batch.delete_real_server(server, address.ip(), address.port())?;
                }
            }
            if batch.size() >= SEND || i + 1 == changes.len() {
                self.servers.send(batch, |position, error| {
                    rejected(sent + position, error);
                    Ok(())
                })?;
                batch.clear();
                sent = i + 1;
            }
        }
        Ok(())
    }

    fn ensure_set(&mut self, set: IpSet, family: Family) -> Result<()> {
        let name = set.name(family);
        let mut create = || self.sets.create(&name, set.set_type(), in_netlink(family), DEFAULT_MAXELEM);
        if create()? != Created::Different {
            return Ok(());
        }
        // A set of this name is one of kube-proxy's or ours, so it is replaced unless rules still use it.
        const ACTION: &str = "replace the ipset of this name, which has another type, while rules use it";
        match self.sets.destroy(&name)? {
            Destroyed::InUse => {
                Err(Error::Rejected { action: ACTION, errno: libc::EBUSY, text: None, offset: None })
            }
            Destroyed::Yes | Destroyed::Missing => {
                self.sets.create(&name, set.set_type(), in_netlink(family), DEFAULT_MAXELEM).map(drop)
            }
        }
    }

    fn change_set(
        &mut self,
        set: IpSet,
        family: Family,
        added: &[SetEntry],
        deleted: &[SetEntry],
    ) -> Result<()> {
        let name = set.name(family);
        let result = self.sets.change(&name, added.iter().copied(), deleted.iter().copied());
        match result {
            Err(error) if error.is_set_full() => {
                // kube-proxy stops here, and the Services beyond the limit do not work.
                let header = self.sets.header(&name)?;
                let held = header.and_then(|header| header.maxelem).unwrap_or(DEFAULT_MAXELEM);
                let needed = u32::try_from(added.len()).unwrap_or(u32::MAX).saturating_add(held);
                let maxelem = needed.checked_next_power_of_two().unwrap_or(u32::MAX);
                self.sets.enlarge(&name, set.set_type(), in_netlink(family), maxelem)?;
                tracing::warn!(set = name, maxelem, "ipset was full; increased its maximum size");
                self.sets.change(&name, added.iter().copied(), deleted.iter().copied())
            }
            result => result,
        }
    }

    fn change_addresses(
        &mut self,
        added: &[IpAddr],
        deleted: &[IpAddr],
        rejected: &mut dyn FnMut(IpAddr, Error),
    ) -> Result<()> {
        let link = match self.link {
            Some(link) => link,
            None => *self.link.insert(self.interfaces.add_link_dummy(DUMMY_INTERFACE)?),
        };
        match self.change_addresses_on(link, added, deleted, rejected) {
            // Another process deleted the interface.
            Err(error) if error.errno() == Some(libc::ENODEV) => {
                let link = *self.link.insert(self.interfaces.add_link_dummy(DUMMY_INTERFACE)?);
                self.change_addresses_on(link, added, deleted, rejected)
            }
            result => result,
        }
    }
}

/// A reader that opens its sockets at the first read.
struct LazyReader(Option<NetlinkKernel>);

impl LazyReader {
    fn kernel(&mut self) -> Result<&mut NetlinkKernel> {
        const ACTION: &str = "read the virtual servers: IPVS is no longer loaded";
        if self.0.is_none() {
            self.0 = NetlinkKernel::open()?;
        }
        self.0.as_mut().ok_or(Error::NoResponse { action: ACTION })
    }
}

impl IpvsReader for LazyReader {
    fn virtual_servers(&mut self) -> Result<Vec<(VirtualServer, VirtualServerConfig)>> {
        self.kernel()?.virtual_servers()
    }

    fn virtual_server(&mut self, server: &VirtualServer) -> Result<Option<VirtualServerConfig>> {
        self.kernel()?.virtual_server(server)
    }

    fn statistics(&mut self) -> Result<Vec<(VirtualServer, Statistics)>> {
        self.kernel()?.statistics()
    }

    fn real_servers(&mut self, server: &VirtualServer) -> Result<Vec<RealServerState>> {
        self.kernel()?.real_servers(server)
    }

    fn entries(&mut self, set: IpSet, family: Family) -> Result<Vec<SetEntry>> {
        self.kernel()?.entries(set, family)
    }

    fn addresses(&mut self) -> Result<Vec<IpAddr>> {
        self.kernel()?.addresses()
    }
}
