//! The table of one family as it is brought into the kernel: what changed, what others changed, and Services that the
//! kernel refuses.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, ServiceChange, ServicePort};
use portcullis_cluster::{Family, NamespacedName};
use portcullis_netlink::Error;
use portcullis_netlink::nf_tables::CommitSummary;

use super::kernel::NftablesKernel;
use super::rejected_services::WriteError;
use super::service_elements::ServiceElements;
use super::service_table::{GRACE, ServiceTable};
use super::settings::Settings;
use crate::isolation::Isolations;
use crate::mode::{SyncError, SyncResult};

/// A family's table, and what is known of the kernel's.
///
/// Between two syncs the table is what the kernel accepted last: a change that the kernel rejects, or that could not be
/// written, is taken back and waits.
pub(super) struct TableSync {
    pub(super) table: ServiceTable,
    /// Everything is to be put into the table anew: it was just made.
    unfilled: bool,
    /// The table was committed since it was made. Before that the kernel may serve more than the table has, so an
    /// incomplete table is never committed.
    pub(super) committed: bool,
    /// What clients are remembered with was not compared with what serves yet.
    unforgotten: bool,
    pub(super) isolations: Isolations,
    /// The version in the table of each Service whose wanted version is not there; empty for most of them.
    pub(super) kept: HashMap<NamespacedName, Arc<[ServicePort]>>,
    /// The versions in the table that this one replaced, of Services whose wanted version the kernel rejected.
    pub(super) last_good: HashMap<NamespacedName, Arc<[ServicePort]>>,
    /// Services whose wanted version is to be tried, in groups: what of a group the kernel rejects is found by halves.
    pub(super) waiting: VecDeque<Vec<NamespacedName>>,
    doubt: bool,
    /// The last sync failed, and the next comes by itself.
    failed: bool,
    /// A write failed since the last one that succeeded. The table has changes that the kernel does not hold, so that
    /// differences do not prove an external change.
    write_failed: bool,
}

/// A Service's ports before and after.
pub(super) struct ServiceUpdate {
    pub(super) name: NamespacedName,
    pub(super) before: Arc<[ServicePort]>,
    pub(super) after: Arc<[ServicePort]>,
}

impl TableSync {
    pub(super) fn new(settings: Settings) -> Self {
        TableSync {
            table: ServiceTable::with_settings(settings),
            unfilled: true,
            committed: false,
            unforgotten: true,
            isolations: Isolations::default(),
            kept: HashMap::new(),
            last_good: HashMap::new(),
            waiting: VecDeque::new(),
            doubt: false,
            failed: false,
            write_failed: false,
        }
    }

    pub(super) fn family(&self) -> Family {
        self.table.settings().family
    }

    /// Takes other settings. What the kernel has is then compared with the table, and only what differs is changed.
    pub(super) fn reconfigure(&mut self, settings: Settings) {
        if settings != *self.table.settings() {
            self.table = ServiceTable::with_settings(settings);
            self.last_good.extend(self.kept.drain());
            self.waiting.clear();
            (self.unfilled, self.unforgotten, self.committed) = (true, true, false);
        }
    }

    /// The kernel may hold something else than what was written.
    pub(super) fn invalidate(&mut self) {
        self.doubt = true;
    }

    /// When it wants to be called though nothing changed.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        if self.failed {
            return None;
        }
        let waiting = (!self.waiting.is_empty()).then_some(now);
        [self.table.next_removal(), self.isolations.next_retry(), waiting].into_iter().flatten().min()
    }

    pub(super) fn sync(
        &mut self,
        kernel: &mut dyn NftablesKernel,
        desired: &Desired,
        changes: &[ServiceChange],
        now: Instant,
    ) -> SyncResult {
        let start = Instant::now();
        let mut report = SyncResult {
            family: self.family(),
            is_full: false,
            duration: Duration::ZERO,
            written: 0,
            tables: Vec::new(),
            restored: 0,
            isolated: Vec::new(),
            error: None,
        };
        let repaired = self.repair(kernel, &mut report);
        // Changes are reported once only, so they are taken in even if nothing can be written now.
        let changed = self.changed(desired, changes);
        let due = self.due(desired, now);
        self.table.remove_due(now);
        let outcome = match repaired {
            Ok(()) => {
                let written = self.write(kernel, desired, [changed, due], now, &mut report);
                self.write_failed = written.is_err();
                written
            }
            Err(error) => {
                self.put_off([changed, due]);
                Err(error)
            }
        };
        let outcome = outcome.and_then(|()| Ok(self.forget(kernel, desired, now)?));
        self.failed = outcome.is_err();
        if let Err(error) = outcome {
            report.error = Some(SyncError::Kernel { what: "nf_tables".into(), reason: error.to_string() });
        } else if !self.waiting.is_empty() {
            let services = self.waiting.iter().map(Vec::len).sum::<usize>();
            let reason = format!(
                "the kernel rejects some of {services} Services; the search for them continues, and what served \
                 before still does"
            );
            report.error = Some(SyncError::Kernel { what: "nf_tables".into(), reason });
        }
        report.isolated = self.isolations.all().collect();
        report.duration = start.elapsed();
        report
    }

    /// Restores what another process changed, before anything new comes.
    fn repair(&mut self, kernel: &mut dyn NftablesKernel, report: &mut SyncResult) -> Result<(), WriteError> {
        if !std::mem::take(&mut self.doubt) {
            return Ok(());
        }
        self.table.table.invalidate();
        if !self.committed {
            return Ok(());
        }
        match kernel.commit(&mut self.table) {
            Ok(done) => {
                report.is_full = true;
                report.restored = if self.write_failed { 0 } else { done.changes.total() };
                Ok(())
            }
            Err(error) => {
                self.doubt = true;
                Err(WriteError::baseline(error))
            }
        }
    }

    /// The Services that changed; all of them for a new table.
    fn changed(&mut self, desired: &Desired, changes: &[ServiceChange]) -> Vec<ServiceUpdate> {
        if std::mem::take(&mut self.unfilled) {
            return all_of(desired);
        }
        let mut steps: Vec<ServiceUpdate> = Vec::with_capacity(changes.len());
        for change in changes {
            self.isolations.remove(&change.name);
            let before = self.kept.get(&change.name).unwrap_or(&change.before);
            let (name, after) = (change.name.clone(), Arc::clone(&change.after));
            steps.push(ServiceUpdate { before: Arc::clone(before), name, after });
        }
        if !self.waiting.is_empty() {
            let changed: HashSet<&NamespacedName> = changes.iter().map(|change| &change.name).collect();
            self.waiting.iter_mut().for_each(|group| group.retain(|name| !changed.contains(name)));
            self.waiting.retain(|group| !group.is_empty());
        }
        steps
    }

    /// The isolated Services that are to be tried again.
    fn due(&mut self, desired: &Desired, now: Instant) -> Vec<ServiceUpdate> {
        let waits = |name: &NamespacedName| self.waiting.iter().any(|group| group.contains(name));
        let due = self.isolations.due(now).into_iter().filter(|name| !waits(name));
        due.map(|name| self.step(desired, name)).collect()
    }

    /// What brings the wanted version of a Service into the table.
    pub(super) fn step(&self, desired: &Desired, name: NamespacedName) -> ServiceUpdate {
        let before = self.kept.get(&name).cloned().unwrap_or_default();
        let after = desired.services().get(&name).cloned().unwrap_or_default();
        ServiceUpdate { name, before, after }
    }

    /// Puts what comes into the table.
    pub(super) fn put(&mut self, steps: &[ServiceUpdate], desired: &Desired, now: Instant) {
        for step in steps {
            self.table.change(&step.before, &step.after, now);
            self.kept.remove(&step.name);
        }
        self.table.finish(desired, &self.kept);
    }

    /// Makes the table what it was before, without the grace in which what served would stay.
    pub(super) fn take_back(&mut self, steps: &[ServiceUpdate], desired: &Desired, now: Instant) {
        let before_grace = now.checked_sub(GRACE).unwrap_or(now);
        for step in steps {
            self.table.change(&step.after, &step.before, before_grace);
            self.kept.insert(step.name.clone(), Arc::clone(&step.before));
        }
        self.table.remove_due(now);
        self.table.finish(desired, &self.kept);
    }

    /// Has steps that are not in the table wait, each group by itself.
    fn put_off(&mut self, groups: [Vec<ServiceUpdate>; 2]) {
        for group in groups.into_iter().rev().filter(|group| !group.is_empty()) {
            let mut names = Vec::with_capacity(group.len());
            for ServiceUpdate { name, before, .. } in group {
                self.kept.insert(name.clone(), before);
                names.push(name);
            }
            self.waiting.push_front(names);
        }
    }

    /// Writes the groups together if the kernel takes them; if not, and where Services wait, finds those that it rejects.
    fn write(
        &mut self,
        kernel: &mut dyn NftablesKernel,
        desired: &Desired,
        groups: [Vec<ServiceUpdate>; 2],
        now: Instant,
        report: &mut SyncResult,
    ) -> Result<(), WriteError> {
        // A table that lacks Services which wait, and was never committed, would take what the kernel serves away.
        if !self.committed && !self.waiting.is_empty() {
            self.put_off(groups);
            return self.search(kernel, desired, now, report);
        }
        groups.iter().for_each(|group| self.put(group, desired, now));
        match self.commit_if_dirty(kernel, report) {
            Ok(()) => {
                groups.iter().flatten().for_each(|step| self.isolations.remove(&step.name));
            }
            Err(error) => {
                groups.iter().rev().for_each(|group| self.take_back(group, desired, now));
                self.put_off(groups);
                if !is_refusal(&error) {
                    return Err(error.into());
                }
            }
        }
        self.search(kernel, desired, now, report)
    }

    /// Clients stay with endpoints that serve, whoever served before this process.
    fn forget(
        &mut self,
        kernel: &mut dyn NftablesKernel,
        desired: &Desired,
        now: Instant,
    ) -> Result<(), Error> {
        if !self.committed {
            return Ok(());
        }
        if !self.unforgotten {
            return kernel.forget(&mut self.table, now);
        }
        let with_affinity =
            desired.services().values().filter(|ports| ports.iter().any(|p| p.affinity.is_some()));
        let entries = with_affinity.map(|ports| ServiceElements::new(ports, self.table.settings()));
        let valid = entries.flat_map(|entries| entries.affinity_keys).collect();
        kernel.forget_all_but(&mut self.table, &valid)?;
        self.unforgotten = false;
        Ok(())
    }

    /// Commits the table if the kernel may hold something else.
    pub(super) fn commit_if_dirty(
        &mut self,
        kernel: &mut dyn NftablesKernel,
        report: &mut SyncResult,
    ) -> Result<(), Error> {
        if !self.table.table.is_dirty() {
            return Ok(());
        }
        let CommitSummary { changes, full, .. } = kernel.commit(&mut self.table)?;
        self.committed = true;
        report.is_full |= full;
        report.written += changes.total();
        Ok(())
    }
}

/// Everything, into a table that has nothing of it.
fn all_of(desired: &Desired) -> Vec<ServiceUpdate> {
    let step = |(name, after): (&NamespacedName, &Arc<[ServicePort]>)| ServiceUpdate {
        name: name.clone(),
        before: Arc::default(),
        after: Arc::clone(after),
    };
    desired.services().iter().map(step).collect()
}

/// Whether the kernel said no to something of ours, and not to everything or for a reason that passes.
pub(super) fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Object { .. } | Error::AttributeTooLong { .. })
        && !error.is_transient()
        && !error.is_privilege_or_memory_error()
}

pub(super) fn sync_error(error: &Error) -> SyncError {
    SyncError::Kernel { what: "nf_tables".into(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use portcullis_cluster::{Event, Index, Kind, Name, Object};
    use portcullis_netlink::nf_tables::{ChangeCounts, Key};
    use serde_json::json;

    use super::*;
    use crate::nftables::names::CLUSTER_IPS;
    use crate::nftables::rejected_services::MAX_ATTEMPTS;
    use crate::node_facts::NodeFacts;
    use crate::options::Options;

    /// Holds what was committed, and takes no table that has one of these cluster IPs.
    #[derive(Default)]
    struct FakeKernel {
        refused: HashSet<String>,
        /// It takes no table with a chain whose name contains this.
        refused_chains: Option<&'static str>,
        /// It takes no table at all, whatever is in it.
        refuses_all: bool,
        /// Everything fails, and not for what is asked.
        is_busy: bool,
        held: Vec<String>,
        tried: usize,
    }

    impl FakeKernel {
        fn judge(&self, table: &ServiceTable) -> Result<Vec<String>, Error> {
            let refusal = |errno| Error::Rejected { action: "write", errno, text: None, offset: None };
            if self.is_busy {
                return Err(refusal(libc::ENOMEM));
            }
            let object = |object: &str| Error::Object {
                object: object.to_owned(),
                source: Box::new(refusal(libc::EEXIST)),
            };
            if self.refuses_all {
                return Err(object("removal of chain __chain0"));
            }
            let chains = &table.table.desired().chains;
            let refused = |name: &&Arc<str>| self.refused_chains.is_some_and(|part| name.contains(part));
            if let Some(chain) = chains.keys().find(refused) {
                return Err(object(chain));
            }
            let mut ips: Vec<String> = table.table.desired().sets[CLUSTER_IPS]
                .elements
                .keys()
                .map(|key| key.bytes().iter().map(u8::to_string).collect::<Vec<_>>().join("."))
                .collect();
            ips.sort();
            match ips.iter().find(|ip| self.refused.contains(*ip)) {
                Some(ip) => Err(object(ip)),
                None => Ok(ips),
            }
        }
    }

    impl NftablesKernel for FakeKernel {
        fn commit(&mut self, table: &mut ServiceTable) -> Result<CommitSummary, Error> {
            self.held = self.judge(table)?;
            Ok(CommitSummary {
                changes: ChangeCounts { elements: 1, ..ChangeCounts::default() },
                ..CommitSummary::default()
            })
        }

        fn check_edits(&mut self, table: &ServiceTable) -> Result<(), Error> {
            self.tried += 1;
            self.judge(table).map(drop)
        }

        fn check_replacement(&mut self, table: &ServiceTable) -> Result<(), Error> {
            self.judge(table).map(drop)
        }

        fn forget(&mut self, _: &mut ServiceTable, _: Instant) -> Result<(), Error> {
            Ok(())
        }

        fn forget_all_but(&mut self, _: &mut ServiceTable, _: &HashSet<Key>) -> Result<(), Error> {
            Ok(())
        }
    }

    struct Node {
        index: Index,
        desired: Desired,
        sync: TableSync,
        kernel: FakeKernel,
    }

    impl Node {
        fn new() -> Self {
            let settings = Settings::new(Family::V4, &Options::default(), &NodeFacts::default());
            let (index, desired) = (Index::new(), Desired::new(Name::new("node-a")));
            Node { index, desired, sync: TableSync::new(settings), kernel: FakeKernel::default() }
        }

        /// Gives Services these cluster IPs, all at once.
        fn apply(&mut self, services: &[(usize, &str)], now: Instant) -> SyncResult {
            for (n, ip) in services {
                let object = json!({"metadata": {"name": format!("s{n:02}"), "namespace": "ns"},
                    "spec": {"clusterIP": ip, "ports": [{"port": 80}]}});
                let object = Object::parse(Kind::Service, object).expect("a Service").object;
                self.index.handle(Event::Applied(object));
            }
            let touched = self.index.take_dirty_services();
            let changes = self.desired.update(&self.index, touched);
            self.sync.sync(&mut self.kernel, &self.desired, &changes, now)
        }

        fn refuse(&mut self, ips: &[&str]) {
            self.kernel.refused = ips.iter().map(|ip| (*ip).to_owned()).collect();
        }
    }

    fn isolated(report: &SyncResult) -> Vec<String> {
        report.isolated.iter().map(|isolated| isolated.service.to_string()).collect()
    }

    #[test]
    fn changes_that_could_not_be_written_are_no_external_changes() {
        let (mut node, now) = (Node::new(), Instant::now());
        node.apply(&[(1, "10.96.0.1")], now);
        // Whether the sync before fails, and its changes; what the next one counts.
        type Row<'a> = (&'a str, bool, &'a [(usize, &'a str)], usize);
        let rows: [Row<'_>; 3] = [
            ("an external change", false, &[], 1),
            ("and one while a change waits", true, &[(2, "10.96.0.2")], 0),
            ("and one after that was written", false, &[], 1),
        ];
        for (what, fails, services, repaired) in rows {
            node.kernel.is_busy = fails;
            node.apply(services, now);
            node.kernel.is_busy = false;
            node.sync.invalidate();
            assert_eq!(node.apply(&[], now).restored, repaired, "{what}");
        }
    }

    #[test]
    fn what_is_refused_is_found_told_tried_again_and_costs_the_others_nothing() {
        let (mut node, start) = (Node::new(), Instant::now());
        let ips: Vec<String> = (0..64).map(|n| format!("10.96.0.{n}")).collect();
        let services: Vec<(usize, &str)> = ips.iter().map(String::as_str).enumerate().collect();
        node.refuse(&["10.96.0.7", "10.96.0.50", "10.96.1.1"]);
        let report = node.apply(&services, start);
        assert_eq!(isolated(&report), ["ns/s07", "ns/s50"]);
        assert!(report.error.is_none());
        assert_eq!(node.kernel.held.len(), 62, "at a cold start all others are served");
        assert!(node.kernel.tried < 32, "found by halves, and not one by one: {}", node.kernel.tried);

        // Changes of others go on; one that is served changes to what is refused, and keeps what it had.
        let report = node.apply(&[(3, "10.96.2.3"), (4, "10.96.1.1")], start);
        assert_eq!(isolated(&report), ["ns/s04", "ns/s07", "ns/s50"]);
        let holds = |node: &Node, ip: &str| node.kernel.held.iter().any(|held| held == ip);
        assert!(holds(&node, "10.96.2.3") && holds(&node, "10.96.0.4") && !holds(&node, "10.96.0.3"));

        // One is mended by a change, one by itself, which shows when it is tried again.
        node.refuse(&["10.96.1.1"]);
        let report = node.apply(&[(7, "10.96.2.7")], start);
        assert_eq!(isolated(&report), ["ns/s04", "ns/s50"], "not tried before its time");
        assert!(holds(&node, "10.96.2.7"));
        let due = node.sync.next_due(start).expect("something is to be tried again");
        assert!(due > start);
        let report = node.apply(&[], due);
        assert_eq!(isolated(&report), ["ns/s04"]);
        assert!(holds(&node, "10.96.0.50") && holds(&node, "10.96.0.4"));
        assert!(node.sync.next_due(due).expect("one is left") > due, "later each time");

        node.refuse(&[]);
        let report = node.apply(&[(4, "10.96.1.2")], due);
        assert!(isolated(&report).is_empty() && holds(&node, "10.96.1.2") && !holds(&node, "10.96.0.4"));
        assert_eq!(node.kernel.held.len(), 64);
    }

    #[test]
    fn no_service_is_blamed_for_what_the_kernel_rejects_without_it() {
        let (mut node, start) = (Node::new(), Instant::now());
        node.apply(&[(1, "10.96.0.1"), (2, "10.96.0.2")], start);
        node.kernel.refuses_all = true;
        let rejected = |report: SyncResult| {
            let error = report.error.expect("the sync fails").to_string();
            assert!(error.contains("so none of them is isolated: removal of chain __chain0"), "{error}");
            assert!(report.isolated.is_empty(), "{:?}", report.isolated);
        };
        node.sync.invalidate();
        rejected(node.apply(&[], start));
        rejected(node.apply(&[(3, "10.96.0.3")], start));
        rejected(node.apply(&[(1, "10.96.0.11")], start));
        assert_eq!(node.kernel.held, ["10.96.0.1", "10.96.0.2"], "what served still does");
        node.kernel.refuses_all = false;
        let report = node.apply(&[], start);
        assert_eq!((isolated(&report), report.error), (vec![], None));
        assert_eq!(node.kernel.held, ["10.96.0.11", "10.96.0.2", "10.96.0.3"]);

        // Nor at the start, when the kernel has the table of an earlier process.
        let mut node = Node::new();
        node.kernel.held = vec!["10.96.0.1".to_owned()];
        node.kernel.refuses_all = true;
        rejected(node.apply(&[(1, "10.96.0.1"), (2, "10.96.0.2")], start));
        assert_eq!(node.kernel.held, ["10.96.0.1"]);
        node.kernel.refuses_all = false;
        assert_eq!(node.apply(&[], start).error, None);
        assert_eq!(node.kernel.held, ["10.96.0.1", "10.96.0.2"]);
    }

    #[test]
    fn a_search_is_limited_continues_and_takes_nothing_away() {
        let (mut node, start) = (Node::new(), Instant::now());
        let ips: Vec<String> = (0..600).map(|n| format!("10.97.{}.{}", n / 250, n % 250)).collect();
        let services: Vec<(usize, &str)> = ips.iter().map(String::as_str).enumerate().collect();
        let bad: Vec<&str> = ips[..300].iter().map(String::as_str).collect();

        // Of a table that serves: nothing of it goes while the search lasts, and other changes are written.
        node.apply(&services[300..], start);
        node.refuse(&bad);
        let report = node.apply(&services[..300], start);
        assert!(node.kernel.tried <= MAX_ATTEMPTS, "{} trials", node.kernel.tried);
        let error = report.error.expect("the search is not over").to_string();
        assert!(error.contains("the search for them continues"), "{error}");
        assert_eq!(node.kernel.held.len(), 300);
        assert!(node.sync.next_due(start).is_some_and(|due| due <= start), "it goes on at once");
        node.apply(&[(700, "10.96.0.7")], start);
        assert!(node.kernel.held.contains(&"10.96.0.7".to_owned()));
        let mut syncs = 0;
        while node.apply(&[], start).error.is_some() {
            syncs += 1;
            assert!(syncs < 10, "the search ends");
        }
        assert_eq!(node.apply(&[], start).isolated.len(), 300);
        assert_eq!(node.kernel.held.len(), 301);

        // Of a table that another process left: it stays as it is until the search is over.
        let mut node = Node::new();
        node.refuse(&bad);
        node.kernel.held = ips.clone();
        assert!(node.apply(&services, start).error.is_some());
        assert_eq!(node.kernel.held.len(), 600);
        assert!(node.apply(&[(700, "10.96.0.7")], start).error.is_some());
        assert_eq!(node.kernel.held.len(), 600);
        while node.apply(&[], start).error.is_some() {
            syncs += 1;
            assert!(syncs < 20, "the search ends");
        }
        assert_eq!(node.kernel.held.len(), 301);
    }

    #[test]
    fn a_chain_that_is_rejected_goes_with_its_service() {
        let (mut node, start) = (Node::new(), Instant::now());
        node.kernel.refused_chains = Some("ns/s02");
        let slice = json!({"metadata": {"name": "s02-x", "namespace": "ns",
                "labels": {"kubernetes.io/service-name": "s02"}}, "addressType": "IPv4",
            "ports": [{"name": "", "port": 80, "protocol": "TCP"}], "endpoints": [{"addresses": ["10.1.1.1"]}]});
        let slice = Object::parse(Kind::EndpointSlice, slice).expect("a slice").object;
        node.index.handle(Event::Applied(slice));
        let affine = json!({"metadata": {"name": "s02", "namespace": "ns"},
            "spec": {"clusterIP": "10.96.0.2", "ports": [{"port": 80}], "sessionAffinity": "ClientIP"}});
        let affine = Object::parse(Kind::Service, affine).expect("a Service").object;
        node.index.handle(Event::Applied(affine));
        let report = node.apply(&[(1, "10.96.0.1"), (3, "10.96.0.3")], start);
        assert_eq!((isolated(&report), report.error), (vec!["ns/s02".to_owned()], None));
        assert_eq!(node.kernel.held, ["10.96.0.1", "10.96.0.3"]);
    }

    /// Settings that make a new table do not lose the version that serves of a Service whose wanted version is rejected.
    #[test]
    fn a_new_table_keeps_the_last_good_version() {
        let (mut node, start) = (Node::new(), Instant::now());
        node.apply(&[(1, "10.96.0.1"), (2, "10.96.0.2")], start);
        node.refuse(&["10.96.0.66"]);
        node.apply(&[(1, "10.96.0.66")], start);
        assert_eq!(node.kernel.held, ["10.96.0.1", "10.96.0.2"]);
        let options = Options { masquerade_all: true, ..Options::default() };
        node.sync.reconfigure(Settings::new(Family::V4, &options, &NodeFacts::default()));
        let report = node.apply(&[], start);
        assert_eq!((isolated(&report), report.error), (vec!["ns/s01".to_owned()], None));
        assert_eq!(node.kernel.held, ["10.96.0.1", "10.96.0.2"]);
    }

    #[test]
    fn what_could_not_be_written_is_written_later() {
        let (mut node, start) = (Node::new(), Instant::now());
        node.apply(&[(1, "10.96.0.1"), (2, "10.96.0.2")], start);
        node.kernel.is_busy = true;
        assert!(node.apply(&[(2, "10.96.0.3")], start).error.is_some());
        node.sync.invalidate();
        assert!(node.apply(&[(3, "10.96.0.4")], start).error.is_some(), "repairs fail, too");
        assert_eq!(node.sync.next_due(start), None, "the next try comes by itself");
        node.kernel.is_busy = false;
        // Of what came meanwhile, something is refused: it is found though nothing changes now.
        node.refuse(&["10.96.0.4"]);
        let report = node.apply(&[], start);
        assert_eq!((isolated(&report), report.error), (vec!["ns/s03".to_owned()], None));
        assert_eq!(node.kernel.held, ["10.96.0.1", "10.96.0.3"]);
    }
}
