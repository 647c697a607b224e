//! The mode itself: both families' tables over one socket, and Services that the kernel refuses.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, ServiceChange, ServicePort};
use portcullis_cluster::{Family, NamespacedName};
use portcullis_netlink::Error;
use portcullis_netlink::nf_tables::Committed;
use portcullis_netlink::socket::Socket;

use super::family_table::FamilyTable;
use super::settings::Settings;
use crate::iptables::{Host, Options};
use crate::isolation::Isolations;
use crate::knowledge::FULL_CHECK;
use crate::mode::{Mode, Report, SyncError};

/// Serves Services by nf_tables.
pub struct Proxier {
    options: Options,
    host: Host,
    families: Vec<FamilySync>,
    socket: Socket,
    /// Somebody else changed the tables, or may have.
    suspected: bool,
    checked: Instant,
}

struct FamilySync {
    family: Family,
    table: FamilyTable,
    /// Everything is to be put into the table anew: it was just made.
    unfilled: bool,
    isolations: Isolations,
    /// What the table has of the Services that the kernel refuses as they are now.
    kept: HashMap<NamespacedName, Arc<[ServicePort]>>,
    doubt: bool,
}

/// A Service's ports before and after.
struct Step {
    name: NamespacedName,
    before: Arc<[ServicePort]>,
    after: Arc<[ServicePort]>,
}

impl Proxier {
    /// A proxier for these families. `socket` is a netfilter one of the network namespace to serve.
    pub fn new(options: Options, host: Host, families: &[Family], socket: Socket) -> Self {
        let families = families.iter().map(|family| {
            let table = FamilyTable::new(Settings::new(*family, &options, &host));
            FamilySync {
                family: *family,
                table,
                unfilled: true,
                isolations: Isolations::default(),
                kept: HashMap::new(),
                doubt: false,
            }
        });
        let families = families.collect();
        Proxier { options, host, families, socket, suspected: false, checked: Instant::now() }
    }

    /// The socket that writes, by which events tell our own changes from those of others.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }
}

impl Mode for Proxier {
    fn name(&self) -> &'static str {
        "nftables"
    }

    fn set_facts(&mut self, options: Options, host: Host) {
        if host == self.host && options == self.options {
            return;
        }
        (self.options, self.host) = (options, host);
        for family in &mut self.families {
            let settings = Settings::new(family.family, &self.options, &self.host);
            if settings != *family.table.settings() {
                // What the kernel has is compared with it, and only what differs is changed.
                family.table = FamilyTable::new(settings);
                family.kept.clear();
                family.unfilled = true;
            }
        }
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn host(&self) -> &Host {
        &self.host
    }

    fn sync(&mut self, desired: &Desired, changes: &[ServiceChange]) -> Vec<Report> {
        let now = Instant::now();
        let socket = &mut self.socket;
        self.families.iter_mut().map(|family| family.sync(socket, desired, changes, now)).collect()
    }

    fn suspect(&mut self) {
        self.suspected = true;
    }

    fn check_drift(&mut self) -> bool {
        let suspected = std::mem::take(&mut self.suspected);
        if suspected || self.checked.elapsed() >= FULL_CHECK {
            self.checked = Instant::now();
            self.families.iter_mut().for_each(|family| family.doubt = true);
        }
        suspected
    }

    fn next_due(&self) -> Option<Instant> {
        let of = |family: &FamilySync| {
            [family.table.next_sweep(), family.isolations.next()].into_iter().flatten().min()
        };
        self.families.iter().filter_map(of).min()
    }
}

impl FamilySync {
    fn sync(
        &mut self,
        socket: &mut Socket,
        desired: &Desired,
        changes: &[ServiceChange],
        now: Instant,
    ) -> Report {
        let start = Instant::now();
        let mut report = Report {
            family: self.family,
            full: false,
            took: Duration::ZERO,
            lines: 0,
            tables: Vec::new(),
            repaired: 0,
            isolated: Vec::new(),
            error: None,
        };
        let outcome = self.repair(socket, &mut report).and_then(|()| {
            let steps = self.steps(desired, changes, now);
            self.apply(socket, desired, steps, now, &mut report)
        });
        if let Err(error) = outcome {
            report.error = Some(sync_error(&error));
        }
        report.isolated = self.isolations.all().collect();
        report.took = start.elapsed();
        report
    }

    /// Puts right what others changed, before anything new comes.
    fn repair(&mut self, socket: &mut Socket, report: &mut Report) -> Result<(), Error> {
        if !std::mem::take(&mut self.doubt) || self.unfilled {
            return Ok(());
        }
        self.table.table.doubt();
        match self.table.table.commit(socket) {
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
            let all = desired.services().iter();
            return all
                .map(|(name, after)| Step {
                    name: name.clone(),
                    before: Arc::default(),
                    after: Arc::clone(after),
                })
                .collect();
        }
        let mut steps: Vec<Step> = Vec::with_capacity(changes.len());
        for change in changes {
            self.isolations.forget(&change.name);
            let before = self.kept.remove(&change.name).unwrap_or_else(|| Arc::clone(&change.before));
            steps.push(Step { name: change.name.clone(), before, after: Arc::clone(&change.after) });
        }
        for name in self.isolations.due(now) {
            let before = self.kept.remove(&name).unwrap_or_default();
            let after = desired.services().get(&name).cloned().unwrap_or_default();
            steps.push(Step { name, before, after });
        }
        steps
    }

    fn apply(
        &mut self,
        socket: &mut Socket,
        desired: &Desired,
        steps: Vec<Step>,
        now: Instant,
        report: &mut Report,
    ) -> Result<(), Error> {
        self.table.sweep(now);
        steps.iter().for_each(|step| self.table.change(&step.before, &step.after, now));
        self.settle(desired);
        if !self.table.table.is_dirty() {
            return Ok(());
        }
        match self.commit(socket, report) {
            Err(error) if is_refusal(&error) && !steps.is_empty() => {
                // Without the new, at least what was there must hold; then the refused is found by halves.
                steps.iter().for_each(|step| self.table.change(&step.after, &step.before, now));
                self.settle(desired);
                self.commit(socket, report)?;
                self.search(socket, desired, &steps, now, report)
            }
            outcome => outcome,
        }
    }

    /// Puts steps in, all if the kernel takes them, or else by halves.
    fn search(
        &mut self,
        socket: &mut Socket,
        desired: &Desired,
        steps: &[Step],
        now: Instant,
        report: &mut Report,
    ) -> Result<(), Error> {
        steps.iter().for_each(|step| self.table.change(&step.before, &step.after, now));
        self.settle(desired);
        let refused = match self.commit(socket, report) {
            Err(error) if is_refusal(&error) => error,
            outcome => return outcome,
        };
        steps.iter().for_each(|step| self.table.change(&step.after, &step.before, now));
        self.settle(desired);
        if let [step] = steps {
            self.isolations.add(&step.name, &sync_error(&refused), now);
            self.kept.insert(step.name.clone(), Arc::clone(&step.before));
            return self.commit(socket, report);
        }
        let (first, second) = steps.split_at(steps.len() / 2);
        self.search(socket, desired, first, now, report)?;
        self.search(socket, desired, second, now, report)
    }

    fn settle(&mut self, desired: &Desired) {
        let isolations = &self.isolations;
        self.table.settle(desired, |port| !isolations.contains(&port.name.service));
    }

    fn commit(&mut self, socket: &mut Socket, report: &mut Report) -> Result<(), Error> {
        let Committed { extent, full, .. } = self.table.table.commit(socket)?;
        report.full |= full;
        report.lines += extent.total();
        Ok(())
    }
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
