//! The table of one family as it is brought into the kernel: what changed, what others changed, and Services that the
//! kernel refuses.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, ServiceChange, ServicePort};
use portcullis_cluster::{Family, NamespacedName};
use portcullis_netlink::Error;
use portcullis_netlink::nf_tables::Committed;

use super::entries::Entries;
use super::family_table::FamilyTable;
use super::kernel::Kernel;
use super::settings::Settings;
use crate::isolation::Isolations;
use crate::mode::{Report, SyncError};

/// A family's table, and what is known of the kernel's.
pub(super) struct FamilySync {
    table: FamilyTable,
    /// Everything is to be put into the table anew: it was just made.
    unfilled: bool,
    /// What clients are remembered with was not compared with what serves yet.
    unforgotten: bool,
    isolations: Isolations,
    /// What the table has of the Services of which the kernel refuses what is wanted; nothing of most.
    kept: HashMap<NamespacedName, Arc<[ServicePort]>>,
    doubt: bool,
    /// The last sync failed, and the next comes by itself.
    failed: bool,
}

/// A Service's ports before and after.
struct Step {
    name: NamespacedName,
    before: Arc<[ServicePort]>,
    after: Arc<[ServicePort]>,
}

impl FamilySync {
    pub(super) fn new(settings: Settings) -> Self {
        FamilySync {
            table: FamilyTable::new(settings),
            unfilled: true,
            unforgotten: true,
            isolations: Isolations::default(),
            kept: HashMap::new(),
            doubt: false,
            failed: false,
        }
    }

    pub(super) fn family(&self) -> Family {
        self.table.settings().family
    }

    /// Takes other settings. What the kernel has is then compared with the table, and only what differs is changed.
    pub(super) fn set(&mut self, settings: Settings) {
        if settings != *self.table.settings() {
            self.table = FamilyTable::new(settings);
            self.kept.clear();
            (self.unfilled, self.unforgotten) = (true, true);
        }
    }

    /// The kernel may hold something else than what was written.
    pub(super) fn doubt(&mut self) {
        self.doubt = true;
    }

    /// When it wants to be called though nothing changed.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let next = || [self.table.next_sweep(), self.isolations.next()].into_iter().flatten().min();
        if self.failed { None } else { next() }
    }

    pub(super) fn sync(
        &mut self,
        kernel: &mut dyn Kernel,
        desired: &Desired,
        changes: &[ServiceChange],
        now: Instant,
    ) -> Report {
        let start = Instant::now();
        let mut report = Report {
            family: self.family(),
            full: false,
            took: Duration::ZERO,
            lines: 0,
            tables: Vec::new(),
            repaired: 0,
            isolated: Vec::new(),
            error: None,
        };
        let repaired = if self.unfilled { Ok(()) } else { self.repair(kernel, &mut report) };
        // What is refused is searched for with the changes.
        let repaired = repaired.or_else(|error| if is_refusal(&error) { Ok(()) } else { Err(error) });
        // Whatever has failed, changes are told once only: they go into the table, and the next commit has them.
        let steps = self.steps(desired, changes, now);
        self.table.sweep(now);
        self.put(&steps, desired, now);
        let outcome = repaired
            .and_then(|()| self.commit_or_isolate(kernel, desired, &steps, now, &mut report))
            .and_then(|()| self.forget(kernel, desired, now));
        for step in steps.iter().filter(|step| !self.kept.contains_key(&step.name)) {
            self.isolations.forget(&step.name);
        }
        self.failed = outcome.is_err();
        if let Err(error) = outcome {
            report.error = Some(sync_error(&error));
        }
        report.isolated = self.isolations.all().collect();
        report.took = start.elapsed();
        report
    }

    /// Puts right what others changed, before anything new comes.
    fn repair(&mut self, kernel: &mut dyn Kernel, report: &mut Report) -> Result<(), Error> {
        if !std::mem::take(&mut self.doubt) {
            return Ok(());
        }
        self.table.table.doubt();
        match kernel.commit(&mut self.table) {
            Ok(done) => {
                report.full = true;
                report.repaired = done.extent.total();
                Ok(())
            }
            Err(error) => {
                self.doubt = true;
                Err(error)
            }
        }
    }

    /// What is to be done: everything, or what changed and what is to be tried again.
    fn steps(&mut self, desired: &Desired, changes: &[ServiceChange], now: Instant) -> Vec<Step> {
        if std::mem::take(&mut self.unfilled) {
            return all_of(desired);
        }
        let mut steps: Vec<Step> = Vec::with_capacity(changes.len());
        for change in changes {
            self.isolations.forget(&change.name);
            let before = self.kept.get(&change.name).unwrap_or(&change.before);
            let (name, after) = (change.name.clone(), Arc::clone(&change.after));
            steps.push(Step { before: Arc::clone(before), name, after });
        }
        for name in self.isolations.due(now) {
            let before = self.kept.get(&name).cloned().unwrap_or_default();
            let after = desired.services().get(&name).cloned().unwrap_or_default();
            steps.push(Step { name, before, after });
        }
        steps
    }

    /// Puts what comes into the table.
    fn put(&mut self, steps: &[Step], desired: &Desired, now: Instant) {
        for step in steps {
            self.table.change(&step.before, &step.after, now);
            self.kept.remove(&step.name);
        }
        self.table.settle(desired, &self.kept);
    }

    /// Makes the table what it was before.
    fn take_back(&mut self, steps: &[Step], desired: &Desired, now: Instant) {
        for step in steps {
            self.table.change(&step.after, &step.before, now);
            self.kept.insert(step.name.clone(), Arc::clone(&step.before));
        }
        self.table.settle(desired, &self.kept);
    }

    /// Commits the table, without what the kernel refuses of these.
    fn commit_or_isolate(
        &mut self,
        kernel: &mut dyn Kernel,
        desired: &Desired,
        steps: &[Step],
        now: Instant,
        report: &mut Report,
    ) -> Result<(), Error> {
        if !self.table.table.is_dirty() {
            return Ok(());
        }
        match self.commit(kernel, report) {
            Err(error) if is_refusal(&error) => {
                self.isolate(kernel, desired, steps, now)?;
                self.commit(kernel, report)
            }
            outcome => outcome,
        }
    }

    /// Takes out what the kernel refuses. Until all of it is found the kernel only tries, and goes on serving what it
    /// has.
    fn isolate(
        &mut self,
        kernel: &mut dyn Kernel,
        desired: &Desired,
        steps: &[Step],
        now: Instant,
    ) -> Result<(), Error> {
        self.take_back(steps, desired, now);
        match kernel.try_out(&self.table) {
            Err(error) if is_refusal(&error) => {
                // It is none of these, but something that was there or came when nothing could be written.
                self.table = FamilyTable::new(self.table.settings().clone());
                self.kept.clear();
                self.search(kernel, desired, &all_of(desired), now)
            }
            _ => self.search(kernel, desired, steps, now),
        }
    }

    /// Puts steps in, all if the kernel would take them, or else by halves. After a failure of another kind they are in.
    fn search(
        &mut self,
        kernel: &mut dyn Kernel,
        desired: &Desired,
        steps: &[Step],
        now: Instant,
    ) -> Result<(), Error> {
        self.put(steps, desired, now);
        let refused = match kernel.try_out(&self.table) {
            Err(error) if is_refusal(&error) => error,
            outcome => return outcome,
        };
        match steps {
            [] => Err(refused),
            [step] => {
                self.take_back(steps, desired, now);
                self.isolations.add(&step.name, &sync_error(&refused), now);
                Ok(())
            }
            _ => {
                self.take_back(steps, desired, now);
                let (first, second) = steps.split_at(steps.len() / 2);
                let found = self.search(kernel, desired, first, now);
                if found.is_err() {
                    self.put(second, desired, now);
                    return found;
                }
                self.search(kernel, desired, second, now)
            }
        }
    }

    /// Clients stay with endpoints that serve, whoever served before this process.
    fn forget(&mut self, kernel: &mut dyn Kernel, desired: &Desired, now: Instant) -> Result<(), Error> {
        if !self.unforgotten {
            return kernel.forget(&mut self.table, now);
        }
        let with_affinity =
            desired.services().values().filter(|ports| ports.iter().any(|p| p.affinity.is_some()));
        let entries = with_affinity.map(|ports| Entries::of(ports, self.table.settings()));
        let valid = entries.flat_map(|entries| entries.affinities).collect();
        kernel.forget_all_but(&mut self.table, &valid)?;
        self.unforgotten = false;
        Ok(())
    }

    fn commit(&mut self, kernel: &mut dyn Kernel, report: &mut Report) -> Result<(), Error> {
        let Committed { extent, full, .. } = kernel.commit(&mut self.table)?;
        report.full |= full;
        report.lines += extent.total();
        Ok(())
    }
}

/// Everything, into a table that has nothing of it.
fn all_of(desired: &Desired) -> Vec<Step> {
    let step = |(name, after): (&NamespacedName, &Arc<[ServicePort]>)| Step {
        name: name.clone(),
        before: Arc::default(),
        after: Arc::clone(after),
    };
    desired.services().iter().map(step).collect()
}

/// Whether the kernel said no to something of ours, and not to everything or for a reason that passes.
fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Object { .. } | Error::AttributeTooLong { .. })
        && !error.is_transient()
        && !error.lacks_means()
}

fn sync_error(error: &Error) -> SyncError {
    SyncError::Kernel { what: "nf_tables".into(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use portcullis_cluster::{Event, Index, Kind, Name, Object};
    use portcullis_netlink::nf_tables::{Extent, Key};
    use serde_json::json;

    use super::*;
    use crate::iptables::{Host, Options};
    use crate::nftables::names::CLUSTER_IPS;

    /// Holds what was committed, and takes no table that has one of these cluster IPs.
    #[derive(Default)]
    struct Picky {
        refused: HashSet<String>,
        /// Everything fails, and not for what is asked.
        is_busy: bool,
        held: Vec<String>,
        tried: usize,
    }

    impl Picky {
        fn judge(&self, table: &FamilyTable) -> Result<Vec<String>, Error> {
            let refusal = |errno| Error::Refused { action: "write", errno, text: None, offset: None };
            if self.is_busy {
                return Err(refusal(libc::ENOMEM));
            }
            let mut ips: Vec<String> = table.table.desired().sets[CLUSTER_IPS]
                .elements
                .keys()
                .map(|key| key.bytes().iter().map(u8::to_string).collect::<Vec<_>>().join("."))
                .collect();
            ips.sort();
            match ips.iter().find(|ip| self.refused.contains(*ip)) {
                Some(ip) => {
                    Err(Error::Object { object: ip.clone(), source: Box::new(refusal(libc::EEXIST)) })
                }
                None => Ok(ips),
            }
        }
    }

    impl Kernel for Picky {
        fn commit(&mut self, table: &mut FamilyTable) -> Result<Committed, Error> {
            self.held = self.judge(table)?;
            Ok(Committed { extent: Extent::default(), ..Committed::default() })
        }

        fn try_out(&mut self, table: &FamilyTable) -> Result<(), Error> {
            self.tried += 1;
            self.judge(table).map(drop)
        }

        fn forget(&mut self, _: &mut FamilyTable, _: Instant) -> Result<(), Error> {
            Ok(())
        }

        fn forget_all_but(&mut self, _: &mut FamilyTable, _: &HashSet<Key>) -> Result<(), Error> {
            Ok(())
        }
    }

    struct Node {
        index: Index,
        desired: Desired,
        sync: FamilySync,
        kernel: Picky,
    }

    impl Node {
        fn new() -> Self {
            let settings = Settings::new(Family::V4, &Options::default(), &Host::default());
            let (index, desired) = (Index::new(), Desired::new(Name::new("node-a")));
            Node { index, desired, sync: FamilySync::new(settings), kernel: Picky::default() }
        }

        /// Gives Services these cluster IPs, all at once.
        fn apply(&mut self, services: &[(usize, &str)], now: Instant) -> Report {
            for (n, ip) in services {
                let object = json!({"metadata": {"name": format!("s{n:02}"), "namespace": "ns"},
                    "spec": {"clusterIP": ip, "ports": [{"port": 80}]}});
                let object = Object::parse(Kind::Service, object).expect("a Service").object;
                self.index.handle(Event::Applied(object));
            }
            let touched = self.index.take_touched();
            let changes = self.desired.update(&self.index, touched);
            self.sync.sync(&mut self.kernel, &self.desired, &changes, now)
        }

        fn refuse(&mut self, ips: &[&str]) {
            self.kernel.refused = ips.iter().map(|ip| (*ip).to_owned()).collect();
        }
    }

    fn isolated(report: &Report) -> Vec<String> {
        report.isolated.iter().map(|isolated| isolated.service.to_string()).collect()
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
        let due = node.sync.next_due().expect("something is to be tried again");
        assert!(due > start);
        let report = node.apply(&[], due);
        assert_eq!(isolated(&report), ["ns/s04"]);
        assert!(holds(&node, "10.96.0.50") && holds(&node, "10.96.0.4"));
        assert!(node.sync.next_due().expect("one is left") > due, "later each time");

        node.refuse(&[]);
        let report = node.apply(&[(4, "10.96.1.2")], due);
        assert!(isolated(&report).is_empty() && holds(&node, "10.96.1.2") && !holds(&node, "10.96.0.4"));
        assert_eq!(node.kernel.held.len(), 64);
    }

    #[test]
    fn what_could_not_be_written_is_written_later() {
        let (mut node, start) = (Node::new(), Instant::now());
        node.apply(&[(1, "10.96.0.1"), (2, "10.96.0.2")], start);
        node.kernel.is_busy = true;
        assert!(node.apply(&[(2, "10.96.0.3")], start).error.is_some());
        node.sync.doubt();
        assert!(node.apply(&[(3, "10.96.0.4")], start).error.is_some(), "repairs fail, too");
        assert_eq!(node.sync.next_due(), None, "the next try comes by itself");
        node.kernel.is_busy = false;
        // Of what came meanwhile, something is refused: it is found though nothing changes now.
        node.refuse(&["10.96.0.4"]);
        let report = node.apply(&[], start);
        assert_eq!((isolated(&report), report.error), (vec!["ns/s03".to_owned()], None));
        assert_eq!(node.kernel.held, ["10.96.0.1", "10.96.0.3"]);
    }
}
