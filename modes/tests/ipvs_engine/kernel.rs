//! A fake kernel: IPVS, ipset and the dummy interface in memory, with the errors of Linux.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use portcullis_cluster::Family;
use portcullis_modes::iptables::Table;
use portcullis_modes::ipvs::{IpSet, IpvsKernel, IpvsReader, ServerChange};
use portcullis_netlink::ip_vs::{
    RealServer, RealServerState, Statistics, VirtualServer, VirtualServerConfig,
};
use portcullis_netlink::ipset::{SetEntry, SetType};
use portcullis_netlink::{Error, Result};

/// A handle of the kernel. All handles share its state.
pub struct FakeIpvs {
    shared: Arc<Shared>,
    /// Set for the handle of an audit, whose reads are not counted.
    is_audit: bool,
}

struct Shared {
    state: Mutex<State>,
    /// Wakes a test that waits for an audit, or a paused audit.
    audit_changed: Condvar,
}

/// The objects of the kernel, the errors to return, and the log of changes.
#[derive(Default)]
pub struct State {
    pub servers: BTreeMap<VirtualServer, Server>,
    pub sets: BTreeMap<String, Set>,
    /// The addresses of the dummy interface; `None` if it is missing.
    pub link: Option<BTreeSet<IpAddr>>,

    /// Schedulers without a module.
    pub missing_schedulers: BTreeSet<&'static str>,
    /// Virtual servers whose changes the kernel rejects.
    pub rejected: BTreeSet<VirtualServer>,
    /// The kernel rejects changes of all virtual servers.
    pub rejects_servers: bool,
    /// The kernel rejects changes of all real servers.
    pub rejects_real_servers: bool,
    /// Virtual servers whose deletion the kernel rejects.
    pub undeletable: BTreeSet<VirtualServer>,
    /// Addresses that the kernel rejects.
    pub rejected_addresses: BTreeSet<IpAddr>,
    /// A set with its maximum number of entries, in both families.
    pub set_limit: Option<(IpSet, usize)>,
    /// The number of reads and changes until the next failure.
    pub fails_after: Option<usize>,

    /// The requested changes, in order.
    pub log: Vec<Call>,
    /// The number of reads, without those of audits.
    pub reads: usize,
    /// The number of reads after which an audit pauses.
    pub audit_pauses_after: Option<usize>,
    audit_reads: usize,
    audit_is_paused: bool,
    audits: usize,
}

/// A virtual server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub config: VirtualServerConfig,
    pub real: BTreeMap<SocketAddr, RealServerState>,
}

/// A set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub set_type: SetType,
    pub entries: BTreeSet<SetEntry>,
}

/// A requested change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Server(ServerChange),
    CreatedSet(IpSet, Family),
    AddedEntry(IpSet, Family, SetEntry),
    DeletedEntry(IpSet, Family, SetEntry),
    AddedAddress(IpAddr),
    DeletedAddress(IpAddr),
    WroteTable(Family, Table),
}

impl FakeIpvs {
    pub fn new() -> Self {
        FakeIpvs {
            shared: Arc::new(Shared { state: Mutex::default(), audit_changed: Condvar::new() }),
            is_audit: false,
        }
    }

    /// Returns another handle for the test, or for the proxier after a restart.
    pub fn view(&self) -> Self {
        FakeIpvs { shared: Arc::clone(&self.shared), is_audit: false }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        // A failed assertion with the lock held must not hide its message.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the running audit ends or pauses.
    pub fn wait_for_audit(&self) {
        let mut state = self.state();
        while state.audits > 0 && !state.audit_is_paused {
            state = self.shared.audit_changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Resumes a paused audit.
    pub fn resume_audit(&self) {
        let mut state = self.state();
        (state.audit_pauses_after, state.audit_is_paused) = (None, false);
        drop(state);
        self.shared.audit_changed.notify_all();
    }

    fn read(&self, action: &'static str) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        if !self.is_audit {
            state.reads += 1;
            state.attempt(action)?;
            return Ok(state);
        }
        while state.audit_pauses_after.is_some_and(|most| state.audit_reads >= most) {
            state.audit_is_paused = true;
            self.shared.audit_changed.notify_all();
            state = self.shared.audit_changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.audit_is_paused = false;
        state.audit_reads += 1;
        Ok(state)
    }
}

impl Drop for FakeIpvs {
    fn drop(&mut self) {
        if self.is_audit {
            self.state().audits -= 1;
            self.shared.audit_changed.notify_all();
        }
    }
}

impl State {
    /// Fails if it is time for a failure.
    pub fn attempt(&mut self, action: &'static str) -> Result<()> {
        match &mut self.fails_after {
            Some(0) => {
                self.fails_after = None;
                Err(Error::NoResponse { action })
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Returns the requested changes of virtual and real servers.
    pub fn server_changes(&self) -> Vec<ServerChange> {
        let change = |call: &Call| match call {
            Call::Server(change) => Some(change.clone()),
            _ => None,
        };
        self.log.iter().filter_map(change).collect()
    }

    pub fn entries(&self, set: IpSet, family: Family) -> impl Iterator<Item = &SetEntry> {
        self.sets.get(&set.name(family)).into_iter().flat_map(|set| &set.entries)
    }

    /// Sets the connections of a real server.
    pub fn connect(&mut self, server: &VirtualServer, real: SocketAddr, active: u32, inactive: u32) {
        let real = self.servers.get_mut(server).and_then(|s| s.real.get_mut(&real)).expect("it is there");
        (real.active, real.inactive) = (active, inactive);
    }

    /// Adds a virtual server as another process.
    pub fn put(&mut self, key: VirtualServer, config: VirtualServerConfig, real: &[RealServer]) {
        let real = real.iter().map(|real| (real.socket_address(), new_real_server(*real))).collect();
        self.servers.insert(key, Server { config, real });
    }

    /// Changes a virtual server, with the errors of `ip_vs_ctl.c`.
    fn change_server(&mut self, change: &ServerChange) -> Result<(), i32> {
        let is_rejected = match change {
            ServerChange::AddServer(..) | ServerChange::SetServer(..) | ServerChange::DeleteServer(_) => {
                self.rejects_servers
            }
            _ => self.rejects_real_servers,
        };
        if is_rejected || self.rejected.contains(change.server()) {
            return Err(libc::EINVAL);
        }
        match change {
            ServerChange::AddServer(_, config) | ServerChange::SetServer(_, config)
                if self.missing_schedulers.contains(&*config.scheduler) =>
            {
                return Err(libc::ENOENT);
            }
            ServerChange::AddServer(key, config) => {
                if self.servers.contains_key(key) {
                    return Err(libc::EEXIST);
                }
                self.put(*key, config.clone(), &[]);
                return Ok(());
            }
            ServerChange::DeleteServer(key) if self.undeletable.contains(key) => return Err(libc::EBUSY),
            ServerChange::DeleteServer(key) => return self.servers.remove(key).map(drop).ok_or(libc::ESRCH),
            _ => {}
        }
        let server = self.servers.get_mut(change.server()).ok_or(libc::ESRCH)?;
        match change {
            ServerChange::SetServer(_, config) => server.config = config.clone(),
            ServerChange::AddRealServer(_, real) => {
                let place = real.socket_address();
                if server.real.contains_key(&place) {
                    return Err(libc::EEXIST);
                }
                server.real.insert(place, new_real_server(*real));
            }
            ServerChange::SetRealServer(_, real) => {
                let state = server.real.get_mut(&real.socket_address()).ok_or(libc::ENOENT)?;
                (state.server, state.forwarding) = (*real, 0);
            }
            ServerChange::DeleteRealServer(_, address) => {
                return server.real.remove(address).map(drop).ok_or(libc::ENOENT);
            }
            ServerChange::AddServer(..) | ServerChange::DeleteServer(_) => unreachable!("handled above"),
        }
        Ok(())
    }

    fn add_entry(&mut self, set: IpSet, family: Family, entry: SetEntry) -> Result<()> {
        const ACTION: &str = "add to an ipset";
        self.attempt(ACTION)?;
        self.log.push(Call::AddedEntry(set, family, entry));
        let most = self.set_limit.filter(|(limited, _)| *limited == set).map(|(_, most)| most);
        let name = set.name(family);
        let Some(content) = self.sets.get_mut(&name) else {
            return Err(set_rejection(name, None, libc::ENOENT));
        };
        assert!(fits(content.set_type, family, &entry), "{name} cannot hold {entry}");
        if most.is_some_and(|most| content.entries.len() >= most) && !content.entries.contains(&entry) {
            // IPSET_ERR_HASH_FULL
            return Err(set_rejection(name, Some(entry), 4352));
        }
        content.entries.insert(entry);
        Ok(())
    }

    fn delete_entry(&mut self, set: IpSet, family: Family, entry: SetEntry) -> Result<()> {
        self.attempt("delete from an ipset")?;
        self.log.push(Call::DeletedEntry(set, family, entry));
        let name = set.name(family);
        let Some(content) = self.sets.get_mut(&name) else {
            return Err(set_rejection(name, None, libc::ENOENT));
        };
        content.entries.remove(&entry);
        Ok(())
    }
}

impl IpvsReader for FakeIpvs {
    fn virtual_servers(&mut self) -> Result<Vec<(VirtualServer, VirtualServerConfig)>> {
        let state = self.read("list the virtual servers")?;
        Ok(state.servers.iter().map(|(key, server)| (*key, server.config.clone())).collect())
    }

    fn virtual_server(&mut self, server: &VirtualServer) -> Result<Option<VirtualServerConfig>> {
        let state = self.read("read a virtual server")?;
        Ok(state.servers.get(server).map(|server| server.config.clone()))
    }

    /// Returns as many connections as there are real servers.
    fn statistics(&mut self) -> Result<Vec<(VirtualServer, Statistics)>> {
        let state = self.read("read the counters of virtual servers")?;
        let counted = |connections| Statistics { connections, packets_in: 10, ..Statistics::default() };
        Ok(state.servers.iter().map(|(key, server)| (*key, counted(server.real.len() as u64))).collect())
    }

    fn real_servers(&mut self, server: &VirtualServer) -> Result<Vec<RealServerState>> {
        let state = self.read("list the real servers")?;
        Ok(state.servers.get(server).map(|s| s.real.values().copied().collect()).unwrap_or_default())
    }

    fn entries(&mut self, set: IpSet, family: Family) -> Result<Vec<SetEntry>> {
        let state = self.read("list an ipset")?;
        Ok(state.entries(set, family).copied().collect())
    }

    fn addresses(&mut self) -> Result<Vec<IpAddr>> {
        let state = self.read("list the addresses")?;
        Ok(state.link.iter().flatten().copied().collect())
    }
}

impl IpvsKernel for FakeIpvs {
    fn reader(&self) -> Box<dyn IpvsReader> {
        let mut state = self.state();
        state.audits += 1;
        state.audit_reads = 0;
        Box::new(FakeIpvs { shared: Arc::clone(&self.shared), is_audit: true })
    }

    fn change_servers(
        &mut self,
        changes: &[ServerChange],
        rejected: &mut dyn FnMut(usize, Error),
    ) -> Result<()> {
        const ACTION: &str = "change the virtual servers";
        for (position, change) in changes.iter().enumerate() {
            let mut state = self.state();
            state.attempt(ACTION)?;
            state.log.push(Call::Server(change.clone()));
            if let Err(errno) = state.change_server(change) {
                drop(state);
                rejected(position, Error::Rejected { action: ACTION, errno, text: None, offset: None });
            }
        }
        Ok(())
    }

    fn ensure_set(&mut self, set: IpSet, family: Family) -> Result<()> {
        let mut state = self.state();
        state.attempt("make an ipset")?;
        if !state.sets.contains_key(&set.name(family)) {
            state.log.push(Call::CreatedSet(set, family));
            let made = Set { set_type: set.set_type(), entries: BTreeSet::new() };
            state.sets.insert(set.name(family), made);
        }
        Ok(())
    }

    fn change_set(
        &mut self,
        set: IpSet,
        family: Family,
        added: &[SetEntry],
        deleted: &[SetEntry],
    ) -> Result<()> {
        let mut state = self.state();
        deleted.iter().try_for_each(|entry| state.delete_entry(set, family, *entry))?;
        added.iter().try_for_each(|entry| state.add_entry(set, family, *entry))
    }

    fn change_addresses(
        &mut self,
        added: &[IpAddr],
        deleted: &[IpAddr],
        rejected: &mut dyn FnMut(IpAddr, Error),
    ) -> Result<()> {
        const ACTION: &str = "change the addresses";
        let mut state = self.state();
        state.link.get_or_insert_default();
        for address in deleted {
            state.attempt(ACTION)?;
            state.log.push(Call::DeletedAddress(*address));
            state.link.get_or_insert_default().remove(address);
        }
        for address in added {
            state.attempt(ACTION)?;
            if state.rejected_addresses.contains(address) {
                let errno = libc::EADDRNOTAVAIL;
                rejected(*address, Error::Rejected { action: ACTION, errno, text: None, offset: None });
                continue;
            }
            state.log.push(Call::AddedAddress(*address));
            state.link.get_or_insert_default().insert(*address);
        }
        Ok(())
    }
}

fn new_real_server(server: RealServer) -> RealServerState {
    RealServerState { server, forwarding: 0, active: 0, inactive: 0, persistent: 0 }
}

fn set_rejection(set: String, entry: Option<SetEntry>, errno: i32) -> Error {
    let source = Error::Rejected { action: "change an ipset", errno, text: None, offset: None };
    Error::Set { set, entry, source: Box::new(source) }
}

/// Returns true if a set of this type and family takes an entry, and lists it unchanged.
fn fits(set_type: SetType, family: Family, entry: &SetEntry) -> bool {
    let of = |ip: &IpAddr| Family::from_address(*ip) == family && !ip.is_unspecified();
    match (set_type, entry) {
        (SetType::HashIp, SetEntry::Ip(ip)) | (SetType::HashIpPort, SetEntry::IpPort { ip, .. }) => of(ip),
        (SetType::HashIpPortIp, SetEntry::IpPortIp { ip, ip2, .. }) => of(ip) && of(ip2),
        (SetType::HashIpPortNet, SetEntry::IpPortNet { ip, net, .. }) => {
            of(ip) && Family::from_net(net) == family && net.prefix_len() > 0 && net.trunc() == *net
        }
        (SetType::BitmapPort, SetEntry::Port(_)) => true,
        _ => false,
    }
}
