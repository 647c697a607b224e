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
        && !matches!(error.errno(), Some(libc::EPERM | libc::ENOMEM | libc::ENOBUFS))
}

fn sync_error(error: &Error) -> SyncError {
    SyncError::Kernel { what: "nf_tables".into(), reason: error.to_string() }
}
