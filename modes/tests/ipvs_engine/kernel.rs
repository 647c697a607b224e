//! IPVS, ipset and the dummy link in memory, with the real kernel's refusals.

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

/// A view of the kernel. All views share it.
pub struct FakeIpvs {
    shared: Arc<Shared>,
    /// It is the view of an audit, whose reads cost the sync nothing.
    audit: bool,
}

struct Shared {
    state: Mutex<State>,
    /// Somebody waits for an audit, or the audit for somebody.
    turn: Condvar,
}

/// What the kernel holds, what it is to refuse, and what it was asked.
#[derive(Default)]
pub struct State {
    pub servers: BTreeMap<VirtualServer, Server>,
    pub sets: BTreeMap<String, Set>,
    /// The addresses of the link; `None` if it is not there.
    pub link: Option<BTreeSet<IpAddr>>,

    /// Schedulers that it does not have.
    pub no_schedulers: BTreeSet<&'static str>,
    /// Virtual servers that it does not take.
    pub rejected: BTreeSet<VirtualServer>,
    /// Virtual servers that it does not let go.
    pub kept: BTreeSet<VirtualServer>,
    /// Addresses that it does not let the link bear.
    pub no_addresses: BTreeSet<IpAddr>,
    /// How many entries one of the sets may have, in either family.
    pub set_most: Option<(IpSet, usize)>,
    /// So many more reads and changes are answered, and the next is not.
    pub fails_after: Option<usize>,

    /// What was asked to be changed, in order.
    pub log: Vec<Call>,
    /// How often it was read, audits left out.
    pub reads: usize,
    /// An audit waits once it has read so often.
    pub audit_stops_after: Option<usize>,
    audit_reads: usize,
    audit_waits: bool,
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

/// One thing that was asked to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Server(ServerChange),
    MadeSet(IpSet, Family),
    Entered(IpSet, Family, SetEntry),
    Left(IpSet, Family, SetEntry),
    Bound(IpAddr),
    Unbound(IpAddr),
    Restored(Family, Table),
}

impl FakeIpvs {
    pub fn new() -> Self {
        FakeIpvs { shared: Arc::new(Shared { state: Mutex::default(), turn: Condvar::new() }), audit: false }
    }

    /// Another view for the test, or for the proxier of the next process.
    pub fn view(&self) -> Self {
        FakeIpvs { shared: Arc::clone(&self.shared), audit: false }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        // A test that fails while it looks must not hide why.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no audit reads any more, or until one has read as often as it may.
    pub fn wait_for_audit(&self) {
        let mut state = self.state();
        while state.audits > 0 && !state.audit_waits {
            state = self.shared.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets an audit that waits read on.
    pub fn let_audit_go_on(&self) {
        let mut state = self.state();
        (state.audit_stops_after, state.audit_waits) = (None, false);
        drop(state);
        self.shared.turn.notify_all();
    }

    fn read(&self, action: &'static str) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        if !self.audit {
            state.reads += 1;
            state.attempt(action)?;
            return Ok(state);
        }
        while state.audit_stops_after.is_some_and(|most| state.audit_reads >= most) {
            state.audit_waits = true;
            self.shared.turn.notify_all();
            state = self.shared.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.audit_waits = false;
        state.audit_reads += 1;
        Ok(state)
    }
}

impl Drop for FakeIpvs {
    fn drop(&mut self) {
        if self.audit {
            self.state().audits -= 1;
            self.shared.turn.notify_all();
        }
    }
}

impl State {
    /// Answers, unless it is time for a failure.
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

    /// The changes of virtual and real servers that were asked for.
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

    /// Gives a real server connections.
    pub fn connect(&mut self, server: &VirtualServer, real: SocketAddr, active: u32, inactive: u32) {
        let real = self.servers.get_mut(server).and_then(|s| s.real.get_mut(&real)).expect("it is there");
        (real.active, real.inactive) = (active, inactive);
    }

    /// Adds a virtual server as somebody else.
    pub fn put(&mut self, key: VirtualServer, config: VirtualServerConfig, real: &[RealServer]) {
        let real = real.iter().map(|real| (real.socket_address(), new_real_server(*real))).collect();
        self.servers.insert(key, Server { config, real });
    }

    /// What `ip_vs_ctl.c` answers.
    fn change_server(&mut self, change: &ServerChange) -> Result<(), i32> {
        if self.rejected.contains(change.server()) {
            return Err(libc::EINVAL);
        }
        match change {
            ServerChange::AddServer(_, config) | ServerChange::SetServer(_, config)
                if self.no_schedulers.contains(&*config.scheduler) =>
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
            ServerChange::DeleteServer(key) if self.kept.contains(key) => return Err(libc::EBUSY),
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
            ServerChange::AddServer(..) | ServerChange::DeleteServer(_) => unreachable!("done above"),
        }
        Ok(())
    }

    fn enter(&mut self, set: IpSet, family: Family, entry: SetEntry) -> Result<()> {
        const ACTION: &str = "add to an ipset";
        self.attempt(ACTION)?;
        self.log.push(Call::Entered(set, family, entry));
        let most = self.set_most.filter(|(limited, _)| *limited == set).map(|(_, most)| most);
        let name = set.name(family);
        let Some(held) = self.sets.get_mut(&name) else { return Err(set_refusal(name, None, libc::ENOENT)) };
        assert!(fits(held.set_type, family, &entry), "{name} cannot hold {entry}");
        if most.is_some_and(|most| held.entries.len() >= most) && !held.entries.contains(&entry) {
            // IPSET_ERR_HASH_FULL
            return Err(set_refusal(name, Some(entry), 4352));
        }
        held.entries.insert(entry);
        Ok(())
    }

    fn leave(&mut self, set: IpSet, family: Family, entry: SetEntry) -> Result<()> {
        self.attempt("delete from an ipset")?;
        self.log.push(Call::Left(set, family, entry));
        let name = set.name(family);
        let Some(held) = self.sets.get_mut(&name) else { return Err(set_refusal(name, None, libc::ENOENT)) };
        held.entries.remove(&entry);
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

    /// A connection for each real server.
    fn statistics(&mut self) -> Result<Vec<(VirtualServer, Statistics)>> {
        let state = self.read("read what virtual servers counted")?;
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
        Box::new(FakeIpvs { shared: Arc::clone(&self.shared), audit: true })
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
            state.log.push(Call::MadeSet(set, family));
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
        deleted.iter().try_for_each(|entry| state.leave(set, family, *entry))?;
        added.iter().try_for_each(|entry| state.enter(set, family, *entry))
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
            state.log.push(Call::Unbound(*address));
            state.link.get_or_insert_default().remove(address);
        }
        for address in added {
            state.attempt(ACTION)?;
            if state.no_addresses.contains(address) {
                let errno = libc::EADDRNOTAVAIL;
                rejected(*address, Error::Rejected { action: ACTION, errno, text: None, offset: None });
                continue;
            }
            state.log.push(Call::Bound(*address));
            state.link.get_or_insert_default().insert(*address);
        }
        Ok(())
    }
}

fn new_real_server(server: RealServer) -> RealServerState {
    RealServerState { server, forwarding: 0, active: 0, inactive: 0, persistent: 0 }
}

fn set_refusal(set: String, entry: Option<SetEntry>, errno: i32) -> Error {
    let source = Error::Rejected { action: "change an ipset", errno, text: None, offset: None };
    Error::Set { set, entry, source: Box::new(source) }
}

/// Whether a set of this type and family takes an entry, and lists it as it was given.
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
