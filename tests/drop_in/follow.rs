//! Runs a daemon through the states of cases, and compares the kernel with the recording after each.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use libtest_mimic::Trial;
use portcullis::config::ProxyMode;
use tempfile::TempDir;

use crate::api_server::ApiServer;
use crate::daemon::{Daemon, last_sync};
use crate::health_checks::check_health_check_node_ports;
use crate::recorded_objects::RecordedObjects;
use crate::services::{Case, assert_same, case_names};
use crate::states::{self, Stored};
use crate::{namespace, node, test};

/// The longest wait for a state.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// The time after which a daemon without a sync has nothing to do for a state, unless it is the first one.
const IDLE: Duration = Duration::from_secs(1);

/// Returns a test for each case of a mode, which has a daemon and a node of its own.
pub(crate) fn case_trials(mode: ProxyMode, objects: &'static [RecordedObjects]) -> Vec<Trial> {
    let trials = case_names(mode).into_iter().map(|name| {
        test(format!("{}::{name}", mode.name()), move || {
            follow_group([Case::named(&name, mode)].into_iter(), objects);
        })
    });
    trials.collect()
}

/// Runs a group of cases with one daemon for all cases with the same node and configuration, one after another: the
/// kernel's objects depend on the current state only, not on previous ones. A failed case does not stop the others.
pub(crate) fn follow_group(cases: impl Iterator<Item = Case>, objects: &[RecordedObjects]) {
    let nodes = by_node(cases).into_iter();
    let failed: Vec<String> = nodes.flat_map(|cases| failed_cases(&cases, objects)).collect();
    assert!(failed.is_empty(), "differs from the recording, see above: {failed:?}");
}

/// Runs cases on a node of their own. Returns the failed ones.
fn failed_cases(cases: &[Case], objects: &[RecordedObjects]) -> Vec<String> {
    let result = catch_unwind(AssertUnwindSafe(|| {
        namespace::inside(|| {
            node::set_up(&cases[0]);
            follow(cases, objects)
        })
    }));
    result.unwrap_or_else(|_| vec![format!("{} or the shutdown after it", cases[0].name)])
}

/// Groups cases by node and configuration.
fn by_node(cases: impl Iterator<Item = Case>) -> Vec<Vec<Case>> {
    let mut nodes: Vec<(String, Vec<Case>)> = Vec::new();
    for case in cases {
        let files = ["config.yaml", "host.yaml"].map(|file| case.folder.join(file));
        let node = files.map(|path| fs::read_to_string(path).expect("a case has its files")).concat();
        match nodes.iter_mut().find(|(other, _)| *other == node) {
            Some((_, cases)) => cases.push(case),
            None => nodes.push((node, vec![case])),
        }
    }
    nodes.into_iter().map(|(_, cases)| cases).collect()
}

/// Runs one daemon through all states of cases, one after another. Returns the failed cases.
fn follow(cases: &[Case], objects: &[RecordedObjects]) -> Vec<String> {
    let mut failed = Vec::new();
    let mut run = Run::start(&cases[0], cases[0].mode != ProxyMode::Nftables);
    for case in cases {
        let start = Instant::now();
        let states = case.states();
        let is_ok = catch_unwind(AssertUnwindSafe(|| run.follow(case, &states, objects))).is_ok();
        if !is_ok {
            failed.push(case.name.clone());
        }
        println!("{}: {} after {:.1?}", case.name, if is_ok { "ok" } else { "FAILED" }, start.elapsed());
    }
    let last = &cases[cases.len() - 1];
    if failed.is_empty() {
        run.end(last, last.states().len(), objects);
    }
    failed
}

/// Runs the first state of a case on the current node.
pub(crate) fn follow_first_state(case: &Case, objects: &[RecordedObjects]) {
    let mut run = Run::start(case, true);
    run.follow(case, &case.states()[..1], objects);
    run.end(case, 1, objects);
}

/// A daemon and its API server.
struct Run {
    daemon: Daemon,
    server: ApiServer,
    stored: Stored,
    /// The daemon has programmed a state.
    has_synced: bool,
    _folder: TempDir,
}

impl Run {
    /// Starts a daemon with the first state of a case.
    fn start(case: &Case, has_tools: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let server = ApiServer::start();
        let mut stored = Stored::new();
        states::bring(&server, &mut stored, &case.states()[0]);
        let daemon = Daemon::start(case, &server, folder.path(), has_tools);
        Run { daemon, server, stored, has_synced: false, _folder: folder }
    }

    /// Runs the daemon through states. After each, the kernel must get the recorded objects.
    fn follow(&mut self, case: &Case, states: &[PathBuf], objects: &[RecordedObjects]) {
        for (i, state) in states.iter().enumerate() {
            let step = i + 1;
            let since = SystemTime::now();
            states::bring(&self.server, &mut self.stored, state);
            self.wait_for_objects(case, step, objects, since);
            self.has_synced = true;
            check_health_check_node_ports(case, step);
        }
    }

    /// Waits until the kernel has the recorded objects. Reading them takes longer than a sync, so this first waits until the
    /// daemon has synced since `since`.
    fn wait_for_objects(&mut self, case: &Case, step: usize, objects: &[RecordedObjects], since: SystemTime) {
        let daemon = &mut self.daemon;
        let start = Instant::now();
        let recorded: Vec<String> = objects.iter().map(|objects| objects.recorded(case, step)).collect();
        // Polling slows down the start of the daemon.
        let (timeout, interval) = if self.has_synced { (IDLE, 20) } else { (TIMEOUT, 100) };
        while last_sync() < since && start.elapsed() < timeout && !daemon.has_ended() {
            std::thread::sleep(Duration::from_millis(interval));
        }
        loop {
            // Stops at the first difference, as reads are slow.
            let differing = objects
                .iter()
                .zip(&recorded)
                .find(|(objects, recorded)| objects.read(recorded) != **recorded);
            if differing.is_none() {
                return;
            }
            if start.elapsed() > TIMEOUT || daemon.has_ended() {
                for (objects, recorded) in objects.iter().zip(&recorded) {
                    let name = format!("{} step {step}: {}\n{}", case.name, objects.file, daemon.log());
                    assert_same(&name, recorded, &objects.read(recorded));
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Terminates the daemon, which must not change the kernel; checks the first kind of objects.
    fn end(mut self, case: &Case, step: usize, objects: &[RecordedObjects]) {
        assert_eq!(self.daemon.end(), Some(0), "{}: exit status after SIGTERM", case.name);
        let recorded = objects[0].recorded(case, step);
        assert_same(&format!("{} after the shutdown", case.name), &recorded, &objects[0].read(&recorded));
    }
}
