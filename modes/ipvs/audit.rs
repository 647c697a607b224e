//! Looks in the background whether the kernel still holds what we wrote.
//!
//! Reading ten thousand virtual servers takes a while, and a change must not wait for it. So a thread reads, and
//! remembers one number a virtual server; what we wrote meanwhile it cannot judge, and leaves for the next time.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::mpsc::{self, Receiver, TryRecvError};

use portcullis_cluster::Family;
use portcullis_netlink::Result;
use portcullis_netlink::ip_vs::{MASQUERADING, RealServer, VirtualServer, VirtualServerConfig};
use portcullis_netlink::ipset::SetEntry;

use super::family_sync::FamilySync;
use super::ip_set::IpSet;
use super::kernel::IpvsReader;
use super::server_diff::place;

/// What the kernel held.
pub(super) struct Sight {
    servers: HashMap<VirtualServer, SeenServer>,
    addresses: HashSet<IpAddr>,
    entries: HashMap<(IpSet, Family), HashSet<SetEntry>>,
}

struct SeenServer {
    /// What it and the real servers that take connections hash to.
    number: u64,
    /// Those that take none.
    idle: Box<[(IpAddr, u16)]>,
}

/// What an audit found to be otherwise than we wrote it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) servers: BTreeSet<VirtualServer>,
    /// Entries or addresses are missing, or are there and should not be.
    pub(super) sets_or_addresses: bool,
}

/// What we wrote to since an audit began: of that it may have seen what was before.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) servers: HashSet<VirtualServer>,
    pub(super) sets_or_addresses: bool,
}

/// An audit under way.
pub(super) struct Audit(Receiver<Result<Sight>>);

impl Audit {
    /// Begins to read. The thread is in the network namespace of the caller.
    ///
    /// # Errors
    /// The system has no thread to spare.
    pub(super) fn begin(mut reader: Box<dyn IpvsReader>, families: Vec<Family>) -> std::io::Result<Self> {
        let (sink, result) = mpsc::channel();
        let look = move || {
            // Nobody waits any more once the program ends.
            drop(sink.send(Sight::take(&mut *reader, &families)));
        };
        std::thread::Builder::new().name("audit".into()).spawn(look)?;
        Ok(Audit(result))
    }

    /// What was seen, once it is done; `None` before.
    pub(super) fn finished(&self) -> Option<Result<Sight>> {
        match self.0.try_recv() {
            Ok(sight) => Some(sight),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                let action = "look at the virtual servers in the background";
                Some(Err(portcullis_netlink::Error::NoResponse { action }))
            }
        }
    }
}

impl Sight {
    fn take(reader: &mut dyn IpvsReader, families: &[Family]) -> Result<Sight> {
        let mut entries = HashMap::new();
        for family in families {
            for set in IpSet::ALL {
                entries.insert((set, *family), reader.entries(set, *family)?.into_iter().collect());
            }
        }
        let addresses = reader.addresses()?.into_iter().collect();
        let mut servers = HashMap::new();
        for (key, config) in reader.virtual_servers()? {
            let found = reader.real_servers(&key)?;
            let (working, idle): (Vec<_>, Vec<_>) = found.into_iter().partition(|s| s.server.weight > 0);
            let mut hasher = DefaultHasher::new();
            // Another forwarding is none of ours, whatever its weight.
            let real = working.iter().map(|s| (s.server, s.forwarding));
            number(&config, real, &mut hasher);
            let idle = idle.iter().map(|s| place(&s.server)).collect();
            servers.insert(key, SeenServer { number: hasher.finish(), idle });
        }
        Ok(Sight { servers, addresses, entries })
    }
}

fn number(
    config: &VirtualServerConfig,
    real: impl Iterator<Item = (RealServer, u32)>,
    hasher: &mut DefaultHasher,
) {
    config.hash(hasher);
    let mut real: Vec<(RealServer, u32)> = real.collect();
    real.sort_unstable();
    real.hash(hasher);
}

impl FamilySync {
    /// Compares what was seen with what was written last, `since` the audit began left out.
    pub(super) fn judge(&self, sight: &Sight, since: &Written) -> Findings {
        let mut findings = Findings::default();
        let mut wanted = HashSet::new();
        for (name, ports) in &self.programmed {
            let objects = self.renderer.service(ports);
            for server in objects.servers.iter().filter(|s| self.ledger.owner(&s.key) == Some(name)) {
                wanted.insert(server.key);
                let mut hasher = DefaultHasher::new();
                number(&server.config, server.real.iter().map(|real| (*real, MASQUERADING)), &mut hasher);
                let number = hasher.finish();
                let idle = |at: &(IpAddr, u16)| self.terminations.holds(&server.key, *at);
                let right = |seen: &SeenServer| seen.number == number && seen.idle.iter().all(idle);
                if !sight.servers.get(&server.key).is_some_and(right) {
                    findings.servers.insert(server.key);
                }
            }
        }
        let foreign = sight.servers.keys().filter(|key| !wanted.contains(*key) && self.may_delete(key));
        findings.servers.extend(foreign);
        findings.servers.retain(|key| !since.servers.contains(key) && !self.unsure.contains(key));
        findings.sets_or_addresses = !since.sets_or_addresses && self.sets_or_addresses_differ(sight);
        findings
    }

    fn sets_or_addresses_differ(&self, sight: &Sight) -> bool {
        let of_family = |address: &&IpAddr| Family::from_address(**address) == self.family;
        let bound = sight.addresses.iter().filter(of_family).count();
        let needed = self.ledger.addresses().count();
        let all_bound = self.ledger.addresses().all(|address| sight.addresses.contains(address));
        let nothing = HashSet::new();
        let differs = |set: IpSet| {
            let seen = sight.entries.get(&(set, self.family)).unwrap_or(&nothing);
            seen.len() != self.ledger.entries(set).count()
                || !self.ledger.entries(set).all(|e| seen.contains(e))
        };
        bound != needed || !all_bound || IpSet::ALL.into_iter().any(differs)
    }
}
