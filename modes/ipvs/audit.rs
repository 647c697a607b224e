//! The audit: a comparison of the kernel's objects with those that were written, in the background.
//!
//! Reading 10,000 virtual servers takes a while, and a change must not wait for it. So a thread reads them, and keeps a
//! hash for each. Objects that are written during an audit are left to the next one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::{Duration, Instant};

use portcullis_cluster::Family;
use portcullis_netlink as netlink;
use portcullis_netlink::ip_vs::{MASQUERADING, RealServer, VirtualServer, VirtualServerConfig};
use portcullis_netlink::ipset::SetEntry;

use super::ip_set::IpSet;
use super::kernel::IpvsReader;
use super::programmed::Programmed;
use super::termination::Terminations;

/// The interval at which a running audit is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The inverse of the largest share of one thread's time that audits take: after a long one, the next one waits.
const INVERSE_SHARE: u32 = 10;

/// The objects of the kernel as read by an audit.
pub(super) struct AuditSnapshot {
    servers: HashMap<VirtualServer, ServerSnapshot>,
    addresses: HashSet<IpAddr>,
    entries: HashMap<(IpSet, Family), HashSet<SetEntry>>,
}

struct ServerSnapshot {
    /// The hash of the virtual server and its real servers with a weight.
    hash: u64,
    /// The real servers with weight 0.
    drained: Box<[SocketAddr]>,
}

/// The objects that another process changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Drift {
    pub(super) servers: BTreeSet<VirtualServer>,
    /// Entries or addresses are missing, or there are unknown ones.
    pub(super) entries_or_addresses: bool,
}

/// The objects written since an audit began, which may have read their previous state.
#[derive(Debug, Default)]
pub(super) struct AuditWrites {
    pub(super) servers: HashSet<VirtualServer>,
    pub(super) entries_or_addresses: bool,
}

/// Runs one audit at a time, with pauses between them.
pub(super) struct AuditSchedule {
    running: Option<Audit>,
    /// The earliest begin of the next audit.
    next_at: Instant,
}

struct Audit {
    result: Receiver<netlink::Result<AuditSnapshot>>,
    began_at: Instant,
    poll_at: Instant,
}

impl AuditSchedule {
    pub(super) fn new(now: Instant) -> Self {
        AuditSchedule { running: None, next_at: now }
    }

    /// Returns true if an audit may begin.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.running.is_none() && now >= self.next_at
    }

    /// Returns the time at which the running audit must be polled.
    pub(super) fn next_poll(&self) -> Option<Instant> {
        self.running.as_ref().map(|audit| audit.poll_at)
    }

    /// Begins an audit on a thread, which is in the network namespace of the caller.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub(super) fn begin(
        &mut self,
        mut reader: Box<dyn IpvsReader>,
        families: Vec<Family>,
        now: Instant,
    ) -> std::io::Result<()> {
        let (sender, result) = mpsc::channel();
        // The receiver is gone when the program ends.
        let read = move || drop(sender.send(AuditSnapshot::read(&mut *reader, &families)));
        std::thread::Builder::new().name("audit".into()).spawn(read)?;
        self.running = Some(Audit { result, began_at: now, poll_at: now + POLL_INTERVAL });
        Ok(())
    }

    /// Returns the result of the running audit once it has ended.
    pub(super) fn poll(&mut self, now: Instant) -> Option<netlink::Result<AuditSnapshot>> {
        let audit = self.running.as_mut()?;
        audit.poll_at = now + POLL_INTERVAL;
        let result = match audit.result.try_recv() {
            Ok(result) => result,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => {
                let action = "look at the virtual servers in the background";
                Err(netlink::Error::NoResponse { action })
            }
        };
        self.next_at = now + (now - audit.began_at) * INVERSE_SHARE;
        self.running = None;
        Some(result)
    }
}

impl AuditSnapshot {
    fn read(reader: &mut dyn IpvsReader, families: &[Family]) -> netlink::Result<AuditSnapshot> {
        let mut entries = HashMap::new();
        for family in families {
            for set in IpSet::ALL {
                entries.insert((set, *family), reader.entries(set, *family)?.into_iter().collect());
            }
        }
        let addresses = reader.addresses()?.into_iter().collect();
        let mut servers = HashMap::new();
        for (server, config) in reader.virtual_servers()? {
            let found = reader.real_servers(&server)?;
            let (serving, drained): (Vec<_>, Vec<_>) = found.into_iter().partition(|s| s.server.weight > 0);
            // A real server with another forwarding method is not one of this mode's.
            let hash = hash(&config, serving.iter().map(|s| (s.server, s.forwarding)));
            let drained = drained.iter().map(|s| s.server.socket_address()).collect();
            servers.insert(server, ServerSnapshot { hash, drained });
        }
        Ok(AuditSnapshot { servers, addresses, entries })
    }
}

/// Hashes a virtual server with its real servers and their forwarding methods.
fn hash(config: &VirtualServerConfig, real_servers: impl Iterator<Item = (RealServer, u32)>) -> u64 {
    let mut hasher = DefaultHasher::new();
    config.hash(&mut hasher);
    let mut real_servers: Vec<(RealServer, u32)> = real_servers.collect();
    real_servers.sort_unstable();
    real_servers.hash(&mut hasher);
    hasher.finish()
}

/// Compares a snapshot with the programmed objects of one family, but for those in `writes`.
pub(super) fn compare(
    snapshot: &AuditSnapshot,
    programmed: &Programmed,
    terminations: &Terminations,
    writes: &AuditWrites,
) -> Drift {
    let mut drift = Drift::default();
    let mut desired = HashSet::new();
    for (name, ports) in programmed.services() {
        for (server, spec) in programmed.owned_servers(name, ports) {
            desired.insert(server);
            let expected = hash(&spec.config, spec.real_servers.iter().map(|real| (*real, MASQUERADING)));
            let is_draining = |real: &SocketAddr| terminations.is_draining(&server, *real);
            let is_as_written =
                |found: &ServerSnapshot| found.hash == expected && found.drained.iter().all(is_draining);
            if !snapshot.servers.get(&server).is_some_and(is_as_written) {
                drift.servers.insert(server);
            }
        }
    }
    let is_unknown = |server: &&VirtualServer| !desired.contains(*server) && programmed.may_delete(server);
    drift.servers.extend(snapshot.servers.keys().filter(is_unknown));
    drift.servers.retain(|server| !writes.servers.contains(server));
    drift.entries_or_addresses =
        !writes.entries_or_addresses && entries_or_addresses_differ(snapshot, programmed);
    drift
}

fn entries_or_addresses_differ(snapshot: &AuditSnapshot, programmed: &Programmed) -> bool {
    let (family, references) = (programmed.family(), programmed.references());
    let is_in_family = |address: &&IpAddr| Family::from_address(**address) == family;
    let found = snapshot.addresses.iter().filter(is_in_family).count();
    if found != references.addresses().count()
        || !references.addresses().all(|address| snapshot.addresses.contains(address))
    {
        return true;
    }
    let empty = HashSet::new();
    IpSet::ALL.into_iter().any(|set| {
        let found = snapshot.entries.get(&(set, family)).unwrap_or(&empty);
        found.len() != references.entries(set).count()
            || !references.entries(set).all(|entry| found.contains(entry))
    })
}

#[cfg(test)]
mod tests {
    use portcullis_netlink::ip_vs::RealServerState;

    use super::super::test_services::programmed;
    use super::*;

    /// The kernel of a node that has programmed one Service, after a change.
    struct ChangedKernel {
        servers: Vec<(VirtualServer, VirtualServerConfig, Vec<RealServerState>)>,
        entries: HashMap<IpSet, Vec<SetEntry>>,
        addresses: Vec<IpAddr>,
    }

    impl ChangedKernel {
        fn new(programmed: &Programmed, change: impl FnOnce(&mut Self)) -> Self {
            let state =
                |server| RealServerState { server, forwarding: 0, active: 0, inactive: 0, persistent: 0 };
            let services = programmed.services().iter();
            let servers = services.flat_map(|(name, ports)| programmed.owned_servers(name, ports));
            let servers = servers.map(|(server, spec)| {
                (server, spec.config, spec.real_servers.into_iter().map(state).collect())
            });
            let references = programmed.references();
            let mut kernel = ChangedKernel {
                servers: servers.collect(),
                entries: IpSet::ALL.map(|set| (set, references.entries(set).copied().collect())).into(),
                addresses: references.addresses().copied().collect(),
            };
            change(&mut kernel);
            kernel
        }
    }

    impl IpvsReader for ChangedKernel {
        fn virtual_servers(&mut self) -> netlink::Result<Vec<(VirtualServer, VirtualServerConfig)>> {
            Ok(self.servers.iter().map(|(server, config, _)| (*server, config.clone())).collect())
        }

        fn virtual_server(&mut self, _: &VirtualServer) -> netlink::Result<Option<VirtualServerConfig>> {
            unreachable!("audits read lists")
        }

        fn statistics(&mut self) -> netlink::Result<Vec<(VirtualServer, netlink::ip_vs::Statistics)>> {
            unreachable!("audits read no statistics")
        }

        fn real_servers(&mut self, server: &VirtualServer) -> netlink::Result<Vec<RealServerState>> {
            Ok(self.servers.iter().find(|(key, ..)| key == server).map(|s| s.2.clone()).unwrap_or_default())
        }

        fn entries(&mut self, set: IpSet, _: Family) -> netlink::Result<Vec<SetEntry>> {
            Ok(self.entries[&set].clone())
        }

        fn addresses(&mut self) -> netlink::Result<Vec<IpAddr>> {
            Ok(self.addresses.clone())
        }
    }

    fn server(address: [u8; 4]) -> VirtualServer {
        VirtualServer { protocol: 6, address: IpAddr::from(address), port: 80 }
    }

    /// A change of the kernel, and the objects that the proxier wrote during the audit.
    type Change = fn(&mut ChangedKernel, &mut AuditWrites);

    #[test]
    fn differences_are_drift_unless_written_during_the_audit() {
        const OURS: [u8; 4] = [10, 96, 0, 1];
        #[rustfmt::skip]
        let rows: [(&str, Change, bool, bool); 11] = [
            // name; change; has drift of servers; has drift of entries or addresses
            ("no change", |_, _| (), false, false),
            ("a changed scheduler", |kernel, _| kernel.servers[0].1.scheduler = "lc".into(), true, false),
            ("a changed weight", |kernel, _| kernel.servers[0].2[0].server.weight = 7, true, false),
            ("an unknown drained real server", |kernel, _| kernel.servers[0].2[0].server.weight = 0, true, false),
            ("another forwarding method", |kernel, _| kernel.servers[0].2[0].forwarding = 3, true, false),
            ("a deleted virtual server", |kernel, _| kernel.servers.clear(), true, false),
            ("a deleted virtual server that was written", |kernel, writes| {
                kernel.servers.clear();
                writes.servers.insert(server(OURS));
            }, false, false),
            ("an excluded virtual server", |kernel, _| {
                let config = kernel.servers[0].1.clone();
                kernel.servers.push((server([10, 99, 0, 1]), config, Vec::new()));
            }, false, false),
            ("a deleted address", |kernel, _| kernel.addresses.clear(), false, true),
            ("an unknown entry", |kernel, _| {
                kernel.entries.insert(IpSet::NodePortTcp, vec![SetEntry::Port(7)]);
            }, false, true),
            ("a deleted address that was written", |kernel, writes| {
                kernel.addresses.clear();
                writes.entries_or_addresses = true;
            }, false, false),
        ];
        for (name, change, servers, entries_or_addresses) in rows {
            let programmed = programmed(&[("a", OURS[3], &[1])]);
            let mut writes = AuditWrites::default();
            let mut kernel = ChangedKernel::new(&programmed, |kernel| change(kernel, &mut writes));
            let snapshot = AuditSnapshot::read(&mut kernel, &[Family::V4]).expect("the kernel can be read");
            let drift = compare(&snapshot, &programmed, &Terminations::default(), &writes);
            assert_eq!(!drift.servers.is_empty(), servers, "{name}");
            assert_eq!(drift.entries_or_addresses, entries_or_addresses, "{name}");
        }
    }
}
