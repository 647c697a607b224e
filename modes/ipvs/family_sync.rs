//! One family: what is programmed, and which way a sync takes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use portcullis_cluster::desired::{Desired, ServiceChange, ServicePort};
use portcullis_cluster::{Family, IpvsScheduler, NamespacedName};
use portcullis_netlink::ip_vs::VirtualServer;

use super::audit::Written;
use super::ip_set::IpSet;
use super::kernel::IpvsKernel;
use super::ledger::{Delta, Ledger};
use super::renderer::Renderer;
use super::rule_sync::{RuleSync, TABLES, place};
use super::rules::Rules;
use super::service_objects::Server;
use super::termination::Terminations;
use super::write::Held;
use crate::iptables::{self, Table};
use crate::isolation::Isolations;
use crate::mode::{SyncError, SyncResult};
use crate::node_facts::NodeFacts;
use crate::options::Options;
use crate::sync_state::SyncState;

/// One family of a node that is served by IPVS.
pub(super) struct FamilySync {
    pub(super) family: Family,
    pub(super) renderer: Renderer,
    /// What takes the renderer's place at the next sync.
    next_renderer: Option<Renderer>,
    pub(super) rules: RuleSync,
    /// The rules depend on options and facts of the host, and those have changed.
    rules_outdated: bool,
    pub(super) sync_state: SyncState,
    /// Which Services are in the ledger, each as it was rendered last.
    pub(super) programmed: BTreeMap<NamespacedName, Arc<[ServicePort]>>,
    pub(super) ledger: Ledger,
    pub(super) pending: BTreeSet<NamespacedName>,
    pub(super) isolations: Isolations,
    /// Those of the isolated Services that are not served as desired, and how they are instead, if at all.
    pub(super) withheld: BTreeMap<NamespacedName, Option<Arc<[ServicePort]>>>,
    pub(super) terminations: Terminations,
    /// Virtual servers of which only the kernel knows what they are: a change was rejected, or somebody else's.
    pub(super) unsure: BTreeSet<VirtualServer>,
    /// What was undertaken since a sync last succeeded: where the kernel differs from that, nobody else is to blame.
    pub(super) undertaken: Undertaken,
    /// What was written since an audit began that is under way.
    pub(super) written: Option<Written>,
    /// Virtual servers with addresses in here belong to others.
    pub(super) exclude: Arc<[IpNet]>,
    options: Options,
    on: NodeFacts,
    scheduler: IpvsScheduler,
}

/// What a sync has done so far.
#[derive(Default)]
pub(super) struct Progress {
    /// Changes of servers, sets and addresses, and lines of rules.
    pub(super) lines: usize,
    pub(super) rules: [usize; TABLES.len()],
    pub(super) repaired: usize,
    /// Why something that belongs to no single virtual server was rejected, while all else was written.
    pub(super) rejected: Option<SyncError>,
}

/// What is to be changed in the kernel.
#[derive(Default)]
pub(super) struct Undertaken {
    /// The Services that change, as they were.
    pub(super) before: HashMap<NamespacedName, Option<Arc<[ServicePort]>>>,
    pub(super) servers: BTreeSet<VirtualServer>,
    pub(super) delta: Delta,
}

/// What a virtual server is to become.
pub(super) struct Target {
    /// The Service that is to blame if it is rejected.
    pub(super) owner: NamespacedName,
    pub(super) before: Option<Server>,
    pub(super) after: Option<Server>,
}

/// Virtual servers by what they are to become.
pub(super) type Targets = BTreeMap<VirtualServer, Target>;

impl FamilySync {
    pub(super) fn new(
        family: Family,
        kernel: Box<dyn iptables::IptablesKernel>,
        scheduler: IpvsScheduler,
        exclude: Arc<[IpNet]>,
        options: &Options,
        on: &NodeFacts,
    ) -> Self {
        FamilySync {
            family,
            renderer: Renderer::new(family, scheduler, options, on),
            next_renderer: None,
            rules: RuleSync::new(kernel),
            rules_outdated: true,
            sync_state: SyncState::NotSynced,
            programmed: BTreeMap::new(),
            ledger: Ledger::default(),
            pending: BTreeSet::new(),
            isolations: Isolations::default(),
            withheld: BTreeMap::new(),
            terminations: Terminations::default(),
            unsure: BTreeSet::new(),
            undertaken: Undertaken::default(),
            written: None,
            exclude,
            options: options.clone(),
            on: on.clone(),
            scheduler,
        }
    }

    /// Takes new options or facts of the host; what they change is written at the next sync.
    pub(super) fn reconfigure(&mut self, options: &Options, on: &NodeFacts) {
        let renderer = Renderer::new(self.family, self.scheduler, options, on);
        self.next_renderer = Some(renderer).filter(|next| *next != self.renderer);
        (self.options, self.on) = (options.clone(), on.clone());
        self.rules_outdated = true;
    }

    /// Makes the next sync compare everything with the kernel.
    pub(super) fn suspect(&mut self) {
        if self.sync_state == SyncState::InSync {
            self.sync_state = SyncState::Unverified;
        }
    }

    /// When it wants to be called though nothing changed.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.terminations.next().into_iter().chain(self.isolations.next_retry()).min()
    }

    pub(super) fn sync(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        held: &mut Held,
        desired: &Desired,
        changes: &[ServiceChange],
        now: Instant,
    ) -> SyncResult {
        let start = Instant::now();
        for change in changes {
            if !self.same(&change.before, &change.after) {
                self.isolations.remove(&change.name);
                self.withheld.remove(&change.name);
                self.pending.insert(change.name.clone());
            }
        }
        for name in self.isolations.due(now) {
            self.withheld.remove(&name);
            self.pending.insert(name);
        }
        let mut progress = Progress::default();
        let full = self.sync_state != SyncState::InSync;
        let result = match full {
            true => self.reconcile(kernel, held, desired, now, &mut progress),
            false => self.incremental(kernel, desired, now, &mut progress),
        };
        let result = result.and_then(|()| self.drain(kernel, now, &mut progress));
        let result = result.and_then(|()| progress.rejected.take().map_or(Ok(()), Err));
        match result {
            // Part of it may be written; only the kernel knows.
            Err(_) => self.suspect(),
            Ok(()) => self.undertaken = Undertaken::default(),
        }
        SyncResult {
            family: self.family,
            is_full: full,
            duration: start.elapsed().max(Duration::from_nanos(1)),
            written: progress.lines,
            tables: self.rules.count(progress.rules),
            restored: progress.repaired,
            isolated: self.isolations.all().collect(),
            error: result.err(),
        }
    }

    /// Takes the pending Services into the ledger. Says what their virtual servers are to become, and what else
    /// changed.
    pub(super) fn take_in(&mut self, desired: &Desired, names: Vec<NamespacedName>) -> (Targets, Delta) {
        let mut targets = Targets::new();
        let mut rendered = HashMap::new();
        let next = self.next_renderer.as_ref().unwrap_or(&self.renderer);
        // First all that was, for Services may take virtual servers over from each other.
        for name in names {
            let before = self.programmed.get(&name).map(|ports| self.renderer.service(ports));
            let ports = self.wanted(desired, &name);
            let after = ports.as_ref().map(|ports| next.service(ports)).unwrap_or_default();
            let before = before.unwrap_or_default();
            for key in before.servers.iter().chain(&after.servers).map(|s| s.key) {
                let Entry::Vacant(target) = targets.entry(key) else { continue };
                let owner = self.ledger.owner(&key).cloned();
                let server = match &owner {
                    Some(owner) if *owner == name => before.server(&key).cloned(),
                    Some(owner) => self.server_of(owner, &key, &self.renderer),
                    None => None,
                };
                let owner = owner.unwrap_or_else(|| name.clone());
                target.insert(Target { owner, before: server, after: None });
            }
            rendered.insert(name, (before, after, ports));
        }
        let mut delta = Delta::default();
        let mut wanted = HashMap::new();
        for (name, (before, after, ports)) in rendered {
            self.ledger.remove(&name, &before, &mut delta);
            self.ledger.add(&name, &after, &mut delta);
            let was = match ports {
                Some(ports) => self.programmed.insert(name.clone(), ports),
                None => self.programmed.remove(&name),
            };
            if self.sync_state != SyncState::NotSynced {
                self.undertaken.before.entry(name.clone()).or_insert(was);
            }
            self.pending.remove(&name);
            wanted.insert(name, after);
        }
        let next = self.next_renderer.as_ref().unwrap_or(&self.renderer);
        for (key, target) in &mut targets {
            let Some(owner) = self.ledger.owner(key) else { continue };
            target.after = match wanted.get_mut(owner) {
                // Each key is asked for once.
                Some(objects) => {
                    objects.servers.iter().position(|s| s.key == *key).map(|i| objects.servers.swap_remove(i))
                }
                None => self.server_of(owner, key, next),
            };
            if target.owner != *owner {
                target.owner = owner.clone();
            }
        }
        if self.sync_state != SyncState::NotSynced {
            self.undertaken.servers.extend(targets.keys());
            self.undertaken.delta.extend(&delta);
        }
        (targets, delta)
    }

    /// Takes all that is desired into a new ledger, for a kernel of which nothing is known: it is compared with the
    /// whole ledger anyway.
    pub(super) fn take_in_all(&mut self, desired: &Desired) {
        self.pending.clear();
        self.withheld.clear();
        let served = desired.services().iter().filter(|(_, ports)| self.concerns(ports));
        self.programmed = served.map(|(name, ports)| (name.clone(), Arc::clone(ports))).collect();
        self.ledger = Ledger::with_room_for(self.programmed.len());
        let renderer = self.next_renderer.as_ref().unwrap_or(&self.renderer);
        for (name, ports) in &self.programmed {
            self.ledger.add(name, &renderer.service(ports), &mut Delta::default());
        }
    }

    /// The Services to be taken in. That is all of them where the renderer is to be replaced, so that all is rendered
    /// alike.
    pub(super) fn due(&mut self, desired: &Desired) -> Vec<NamespacedName> {
        if self.next_renderer.is_some() {
            self.withheld.clear();
            self.pending.extend(self.programmed.keys().cloned());
            self.pending.extend(desired.services().keys().cloned());
        }
        self.pending.iter().cloned().collect()
    }

    /// Notes that all that is programmed is as the next renderer has it.
    pub(super) fn renderer_replaced(&mut self) {
        if let Some(next) = self.next_renderer.take() {
            self.renderer = next;
        }
    }

    /// Tells the rules what they depend on.
    pub(super) fn update_rules(&mut self, delta: Option<&Delta>, filled_before: [bool; IpSet::ALL.len()]) {
        let filled = self.ledger.filled();
        if !self.rules_outdated && filled == filled_before && delta.is_some_and(|d| !d.out_filter) {
            return;
        }
        self.rules_outdated = false;
        let out_filter: Vec<&str> = self.ledger.out_filter().collect();
        self.rules.set(Rules {
            family: self.family,
            options: &self.options,
            on: &self.on,
            filled,
            out_filter: &out_filter,
        });
    }

    pub(super) fn write_rules(&mut self, tables: &[Table], progress: &mut Progress) -> Result<(), SyncError> {
        for (table, wrote) in self.rules.write(tables)? {
            progress.lines += wrote.lines;
            progress.repaired += wrote.repaired;
            progress.rules[place(table)] += wrote.lines;
        }
        Ok(())
    }

    /// A virtual server as a Service that is not being changed has it.
    pub(super) fn server_of(
        &self,
        owner: &NamespacedName,
        key: &VirtualServer,
        renderer: &Renderer,
    ) -> Option<Server> {
        let ports = self.programmed.get(owner)?;
        renderer.service(ports).server(key).cloned()
    }

    /// What is to be written of a Service: what is desired, what it is to be instead, or nothing.
    fn wanted(&self, desired: &Desired, name: &NamespacedName) -> Option<Arc<[ServicePort]>> {
        if let Some(instead) = self.withheld.get(name) {
            return instead.clone();
        }
        let ports = desired.services().get(name)?;
        self.concerns(ports).then(|| Arc::clone(ports))
    }

    /// Whether a Service is served in this family.
    fn concerns(&self, ports: &[ServicePort]) -> bool {
        ports.iter().any(|p| p.family == self.family)
    }

    /// Whether a virtual server that nobody wants is ours to delete.
    pub(super) fn may_delete(&self, server: &VirtualServer) -> bool {
        Family::from_address(server.address) == self.family
            && !self.exclude.iter().any(|net| net.contains(&server.address))
    }

    fn same(&self, a: &[ServicePort], b: &[ServicePort]) -> bool {
        let of_family = |p: &&ServicePort| p.family == self.family;
        a.iter().filter(of_family).eq(b.iter().filter(of_family))
    }
}
