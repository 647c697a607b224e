//! Bringing the kernel from what it holds to what is wanted.
//!
//! Everything has its order, so that no packet meets half a Service: sets name an address before it leads here;
//! virtual servers stand, with real servers behind them, before the node takes their address for its own; and
//! what goes first loses the leave to pass the packet filter, then its virtual server, then its address. Sets that
//! make an exception, such as the sources that a load balancer's address is kept for, stand behind those that they
//! are exceptions to in [`IpSet::ALL`]: they are filled first, and emptied last.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use portcullis_cluster::Family;
use portcullis_cluster::desired::Desired;
use portcullis_netlink as netlink;
use portcullis_netlink::ip_vs::{VirtualServer, VirtualServerConfig};
use portcullis_netlink::ipset::SetEntry;

use super::entries::{Entered, Entries};
use super::family_sync::{FamilySync, Progress};
use super::ip_set::IpSet;
use super::kernel::{DUMMY_INTERFACE, IpvsKernel, ServerChange};
use super::refusal::Refused;
use super::rule_sync::TABLES;
use super::server_diff::{Differ, Found};
use super::service_objects::Server;
use crate::iptables::Table;
use crate::mode::SyncError;
use crate::sync_state::SyncState;

/// Changes that are held at a time, as many as one send takes: memory does not grow with the cluster.
const CHANGES_AT_ONCE: usize = 1800;

/// What the kernel held before a sync, of the families that were not compared with it yet. Lists are of all families,
/// and what is written of one is nothing to the others, so that each list is asked for once.
#[derive(Default)]
pub(super) struct Held(Option<HeldOfAll>);

struct HeldOfAll {
    servers: Vec<(VirtualServer, VirtualServerConfig)>,
    addresses: Vec<IpAddr>,
}

impl Held {
    fn of_all(&mut self, kernel: &mut dyn IpvsKernel) -> Result<&mut HeldOfAll, SyncError> {
        Ok(match &mut self.0 {
            Some(held) => held,
            unknown => unknown.insert(HeldOfAll {
                servers: kernel.virtual_servers().map_err(asked("list the virtual servers"))?,
                addresses: kernel.addresses().map_err(asked("list the addresses of kube-ipvs0"))?,
            }),
        })
    }
}

/// What the kernel held when a comparison began.
struct Snapshot {
    servers: HashMap<VirtualServer, VirtualServerConfig>,
    addresses: HashSet<IpAddr>,
    entries: Entries,
}

impl FamilySync {
    /// Writes what changed of a kernel that is known.
    pub(super) fn incremental(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        desired: &Desired,
        now: Instant,
        progress: &mut Progress,
    ) -> Result<(), SyncError> {
        let names = self.due(desired);
        let filled = self.ledger.filled();
        let (mut targets, mut delta) = self.take_in(desired, names.clone());
        self.renderer_replaced();
        self.enter_changes(kernel, desired, &mut targets, &mut delta, now, progress)?;
        let mut rejected = Refused::default();
        let mut changes = Vec::new();
        let (gone, served): (Vec<_>, Vec<_>) = targets.into_iter().partition(|(_, t)| t.after.is_none());
        for (key, target) in &served {
            let Some(after) = &target.after else { continue };
            match self.unsure.remove(key) {
                true => self.compare(kernel, key, Some(after), now, &mut changes)?,
                false => self.differ(&mut changes, now).between(key, target.before.as_ref(), Some(after)),
            }
        }
        progress.lines += self.apply(kernel, &mut changes, &mut rejected)?;
        progress.repaired += self.settle_unsure(kernel, now, &mut rejected)?;
        self.update_rules(Some(&delta), filled);
        self.write_rules(&TABLES, progress)?;
        let (bound, unbound) = self.ledger.changed_addresses(&delta);
        self.change_addresses(kernel, &bound, &[], progress)?;
        self.close(kernel, |family, set| family.ledger.changed_entries(set, &delta).1, progress)?;
        for (key, target) in &gone {
            self.unsure.remove(key);
            self.differ(&mut changes, now).between(key, target.before.as_ref(), None);
        }
        progress.lines += self.apply(kernel, &mut changes, &mut rejected)?;
        self.change_addresses(kernel, &[], &unbound, progress)?;
        let (_, left) = self.ledger.changed_entries(IpSet::IpvsIps, &delta);
        self.leave(kernel, IpSet::IpvsIps, &left, progress)?;
        self.judge_refused(kernel, names, rejected, now)
    }

    /// Compares everything with the kernel, and writes what differs.
    pub(super) fn reconcile(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        held: &mut Held,
        desired: &Desired,
        now: Instant,
        progress: &mut Progress,
    ) -> Result<(), SyncError> {
        let first = self.sync_state == SyncState::NotSynced;
        let mut found = self.read(kernel, held)?;
        if first {
            self.take_in_all(desired);
        } else {
            let names = self.due(desired);
            self.take_in(desired, names);
        }
        self.renderer_replaced();
        let mut entered = Entered::default();
        let new = |family: &Self, set: IpSet| {
            let missing = |entry: &&SetEntry| !found.entries[set.at()].contains(*entry);
            let mut new: Vec<SetEntry> = family.ledger.entries(set).filter(missing).copied().collect();
            new.sort_unstable();
            new
        };
        while let Some(missing) = self.enter(kernel, new, &mut entered, progress)? {
            self.withhold(desired, missing, now)?;
            self.leave_unneeded(kernel, &mut entered, progress)?;
        }
        let mut repaired = self.damaged_entries(&entered);
        let mut rejected = Refused::default();
        repaired += self.compare_servers(kernel, &mut found, now, &mut rejected, progress)?;
        self.update_rules(None, [false; IpSet::ALL.len()]);
        // What another mode left in the table of addresses serves until those lead here. Without that, both tables go
        // at once: to start the tool takes longer than all it does.
        let at_once = first && self.rules.is_new(Table::Nat)?;
        self.write_rules(if at_once { &TABLES } else { &[Table::Filter] }, progress)?;
        let missing = |address: &&IpAddr| !found.addresses.contains(*address);
        let mut bound: Vec<IpAddr> = self.ledger.addresses().filter(missing).copied().collect();
        bound.sort_unstable();
        self.change_addresses(kernel, &bound, &[], progress)?;
        repaired += self.damaged_addresses(&bound);
        self.write_rules(&TABLES, progress)?;
        let unwanted: Entered = IpSet::ALL.map(|set| {
            let unwanted = |entry: &&SetEntry| !self.ledger.needs_entry(set, entry);
            found.entries[set.at()].iter().filter(unwanted).copied().collect()
        });
        repaired += self.damaged_entries(&unwanted);
        self.close(kernel, |_, set| unwanted[set.at()].clone(), progress)?;
        found.servers.retain(|key, _| self.may_delete(key));
        let mut changes = Vec::new();
        found.servers.keys().for_each(|key| self.differ(&mut changes, now).delete(key));
        repaired += found.servers.keys().filter(|key| !self.undertaken.servers.contains(key)).count();
        progress.lines += self.apply(kernel, &mut changes, &mut rejected)?;
        let unwanted_address = |address: &&IpAddr| !self.ledger.needs_address(address);
        let unbound: Vec<IpAddr> = found.addresses.iter().filter(unwanted_address).copied().collect();
        self.change_addresses(kernel, &[], &unbound, progress)?;
        repaired += self.damaged_addresses(&unbound);
        self.leave(kernel, IpSet::IpvsIps, &unwanted[IpSet::IpvsIps.at()], progress)?;
        if !first {
            progress.repaired += repaired;
        }
        self.unsure.clear();
        let tried = self.isolations.all().map(|isolated| isolated.service).collect();
        self.judge_refused(kernel, tried, rejected, now)?;
        self.sync_state = SyncState::InSync;
        Ok(())
    }

    /// How many of these addresses somebody else deleted or added.
    fn damaged_addresses(&self, addresses: &[IpAddr]) -> usize {
        addresses.iter().filter(|address| !self.undertaken.delta.touches_address(address)).count()
    }

    /// Deletes the real servers whose connections have ended.
    pub(super) fn drain(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        now: Instant,
        progress: &mut Progress,
    ) -> Result<(), SyncError> {
        let mut ended = Vec::new();
        for server in self.terminations.due(now) {
            let found =
                kernel.real_servers(&server).map_err(asked("count the connections of real servers"))?;
            let real = self.terminations.counted(&server, &found, now);
            ended.extend(real.into_iter().map(|real| (server, real)));
        }
        let mut changes = Vec::new();
        for (server, (address, port)) in ended {
            self.terminations.end(&server, (address, port));
            changes.push(ServerChange::DeleteRealServer(server, address, port));
        }
        let mut rejected = Refused::default();
        progress.lines += self.apply(kernel, &mut changes, &mut rejected)?;
        self.judge_refused(kernel, Vec::new(), rejected, now)
    }

    fn read(&self, kernel: &mut dyn IpvsKernel, held: &mut Held) -> Result<Snapshot, SyncError> {
        let mut entries = Entries::default();
        for set in IpSet::ALL {
            let what = || format!("make the ipset {}", set.name(self.family));
            kernel.ensure_set(set, self.family).map_err(|e| said(what(), e))?;
            let found = kernel.entries(set, self.family).map_err(asked("list an ipset"))?;
            entries[set.at()] = found.into_iter().collect();
        }
        let held = held.of_all(kernel)?;
        let of_family = |address: &IpAddr| Family::from_address(*address) == self.family;
        Ok(Snapshot {
            servers: held.servers.extract_if(.., |(key, _)| of_family(&key.address)).collect(),
            addresses: held.addresses.extract_if(.., |address| of_family(address)).collect(),
            entries,
        })
    }

    /// Brings all wanted virtual servers from what was found to what they must be. What was found and is not wanted
    /// remains in `found`. Says how many changes nobody asked for.
    fn compare_servers(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        found: &mut Snapshot,
        now: Instant,
        rejected: &mut Refused,
        progress: &mut Progress,
    ) -> Result<usize, SyncError> {
        let services: Vec<_> =
            self.programmed.iter().map(|(n, ports)| (n.clone(), Arc::clone(ports))).collect();
        let (mut changes, mut repaired) = (Vec::new(), 0);
        for (name, ports) in &services {
            let objects = self.renderer.service(ports);
            for server in &objects.servers {
                if self.ledger.owner(&server.key) != Some(name) {
                    continue;
                }
                let before = changes.len();
                let there = match found.servers.remove(&server.key) {
                    Some(config) => Some(Found { config, real: real_servers(kernel, &server.key)? }),
                    None => None,
                };
                self.differ(&mut changes, now).correct(&server.key, there.as_ref(), Some(server));
                if !self.undertaken.servers.contains(&server.key) && !self.isolations.contains(name) {
                    repaired += changes.len() - before;
                }
            }
            if changes.len() >= CHANGES_AT_ONCE {
                progress.lines += self.apply(kernel, &mut changes, rejected)?;
            }
        }
        progress.lines += self.apply(kernel, &mut changes, rejected)?;
        Ok(repaired)
    }

    /// Puts virtual servers right of which only the kernel knows what they are. Says how many changes that took.
    fn settle_unsure(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        now: Instant,
        rejected: &mut Refused,
    ) -> Result<usize, SyncError> {
        let mut changes = Vec::new();
        for key in std::mem::take(&mut self.unsure) {
            let owner = self.ledger.owner(&key).cloned();
            match owner {
                Some(owner)
                    if self.isolations.is_held_back(&owner, now) && !self.withheld.contains_key(&owner) =>
                {
                    self.unsure.insert(key);
                }
                Some(owner) => {
                    let wanted = self.server_of(&owner, &key, &self.renderer);
                    self.compare(kernel, &key, wanted.as_ref(), now, &mut changes)?;
                }
                None if self.may_delete(&key) => self.compare(kernel, &key, None, now, &mut changes)?,
                None => {}
            }
        }
        self.apply(kernel, &mut changes, rejected)
    }

    /// Asks the kernel for one virtual server, and finds what must change of it.
    pub(super) fn compare(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        key: &VirtualServer,
        wanted: Option<&Server>,
        now: Instant,
        changes: &mut Vec<ServerChange>,
    ) -> Result<(), SyncError> {
        let config = kernel.virtual_server(key).map_err(asked("look at a virtual server"))?;
        let found = match config {
            Some(config) => Some(Found { config, real: real_servers(kernel, key)? }),
            None => None,
        };
        self.differ(changes, now).correct(key, found.as_ref(), wanted);
        Ok(())
    }

    fn differ<'a>(&'a mut self, changes: &'a mut Vec<ServerChange>, now: Instant) -> Differ<'a> {
        Differ { changes, terminations: &mut self.terminations, now }
    }

    /// Makes changes, notes which virtual servers are not as they should be, and empties the list. Says how many
    /// there were.
    pub(super) fn apply(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        changes: &mut Vec<ServerChange>,
        rejected: &mut Refused,
    ) -> Result<usize, SyncError> {
        let count = changes.len();
        if count > 0 {
            if let Some(written) = &mut self.written {
                written.servers.extend(changes.iter().map(|change| *change.server()));
            }
            let result = kernel.change_servers(changes, &mut |position, error| {
                // The first says why; that nothing can be put behind what is not there is no news.
                rejected.0.entry(*changes[position].server()).or_insert((changes[position].clone(), error));
            });
            result.map_err(asked("change the virtual servers"))?;
            changes.clear();
        }
        Ok(count)
    }

    fn change_addresses(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        added: &[IpAddr],
        deleted: &[IpAddr],
        progress: &mut Progress,
    ) -> Result<(), SyncError> {
        if added.is_empty() && deleted.is_empty() && self.sync_state == SyncState::InSync {
            return Ok(());
        }
        self.note_written();
        let result = kernel.change_addresses(added, deleted, &mut |address, error| {
            // All others are served. The sync as a whole has failed, so that it shows, and is tried again.
            let what = || format!("change the address {address} of {DUMMY_INTERFACE}");
            progress.rejected.get_or_insert_with(|| said(what(), error));
            self.undertaken.delta.touch_address(address);
        });
        result.map_err(asked("change the addresses of kube-ipvs0"))?;
        progress.lines += added.len() + deleted.len();
        Ok(())
    }
}

impl FamilySync {
    /// Notes for an audit under way that sets or addresses are being written.
    pub(super) fn note_written(&mut self) {
        if let Some(written) = &mut self.written {
            written.sets_or_addresses = true;
        }
    }
}

fn real_servers(
    kernel: &mut dyn IpvsKernel,
    key: &VirtualServer,
) -> Result<Vec<netlink::ip_vs::RealServerState>, SyncError> {
    kernel.real_servers(key).map_err(asked("list the real servers"))
}

pub(super) fn asked(what: &'static str) -> impl Fn(netlink::Error) -> SyncError {
    move |error| said(what.to_owned(), error)
}

pub(super) fn said(what: String, error: netlink::Error) -> SyncError {
    SyncError::Kernel { what: format!("cannot {what}"), reason: error.to_string() }
}
