//! A daemon follows cases from state to state.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use portcullis::config::ProxyMode;
use tempfile::TempDir;

use crate::api_server::ApiServer;
use crate::daemon::Daemon;
use crate::health_checks::answers_health_checks;
use crate::held::Held;
use crate::services::{Case, assert_same, cases};
use crate::states::{self, Stored};
use crate::{namespace, node};

/// The cases of a mode are dealt out to so many tests.
const HANDS: usize = 4;

/// Names the one case to be played, for who looks into it.
const ONLY: &str = "PORTCULLIS_CASE";

/// No case waits longer for a state.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon that has not synced for so long has nothing to do for a state, unless it is the first.
const IDLE: Duration = Duration::from_secs(1);

/// How often a daemon starts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Daemons {
    /// For each case, on a node of its own.
    OnePerCase,
    /// For all cases of the same node and configuration, which it plays one after another: what the kernel holds
    /// follows from a state, and not from those before.
    OnePerNode,
}

/// Plays a hand of a mode's cases. One that fails does not hide another.
pub(crate) fn play(mode: ProxyMode, hand: usize, daemons: Daemons, held: &[Held]) {
    let only = std::env::var(ONLY).ok();
    let mut failed = Vec::new();
    let is_wanted = |case: &Case| only.as_ref().is_none_or(|only| *only == case.name);
    let dealt = cases(mode).into_iter().skip(hand).step_by(HANDS).filter(is_wanted);
    for node in by_node(dealt, daemons) {
        let played = catch_unwind(AssertUnwindSafe(|| {
            namespace::inside(|| {
                node::set_up(&node[0]);
                follow(&node, held)
            })
        }));
        failed.extend(played.unwrap_or_else(|_| vec![format!("{} or its end", node[0].name)]));
    }
    assert!(failed.is_empty(), "as said above, not what was recorded: {failed:?}");
}

/// Cases that one daemon is to play.
fn by_node(cases: impl Iterator<Item = Case>, daemons: Daemons) -> Vec<Vec<Case>> {
    let mut nodes: Vec<(String, Vec<Case>)> = Vec::new();
    for case in cases {
        let files = ["config.yaml", "host.yaml"].map(|file| case.folder.join(file));
        let node = files.map(|path| fs::read_to_string(path).expect("a case has its files")).concat();
        match nodes.iter_mut().find(|(known, _)| *known == node && daemons == Daemons::OnePerNode) {
            Some((_, cases)) => cases.push(case),
            None => nodes.push((node, vec![case])),
        }
    }
    nodes.into_iter().map(|(_, cases)| cases).collect()
}

/// Brings one daemon through all states of cases, one after another; says which went wrong.
fn follow(cases: &[Case], held: &[Held]) -> Vec<String> {
    let mut failed = Vec::new();
    let mut run = Run::start(&cases[0], cases[0].mode != ProxyMode::Nftables);
    for case in cases {
        let start = Instant::now();
        let states = case.states();
        if catch_unwind(AssertUnwindSafe(|| run.follow(case, &states, held))).is_err() {
            failed.push(case.name.clone());
        }
        println!("{} took {:.1?}", case.name, start.elapsed());
    }
    let last = &cases[cases.len() - 1];
    if failed.is_empty() {
        run.end(last, last.states().len(), held);
    }
    failed
}

/// Plays the first state of a case on the node as it is.
pub(crate) fn follow_first_state(case: &Case, held: &[Held]) {
    let mut run = Run::start(case, true);
    run.follow(case, &case.states()[..1], held);
    run.end(case, 1, held);
}

/// A daemon, and the API server that it listens to.
struct Run {
    daemon: Daemon,
    server: ApiServer,
    stored: Stored,
    /// The daemon has followed a state.
    warm: bool,
    _folder: TempDir,
}

impl Run {
    /// Starts with the first state of a case.
    fn start(case: &Case, tools: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let server = ApiServer::start();
        let mut stored = Stored::new();
        states::bring(&server, &mut stored, &case.states()[0]);
        let daemon = Daemon::start(case, &server, folder.path(), tools);
        Run { daemon, server, stored, warm: false, _folder: folder }
    }

    /// Brings the daemon through states; after each, the kernel must come to hold what was recorded.
    fn follow(&mut self, case: &Case, states: &[PathBuf], held: &[Held]) {
        for (i, state) in states.iter().enumerate() {
            let step = i + 1;
            let since = SystemTime::now();
            states::bring(&self.server, &mut self.stored, state);
            self.wait_until_held(case, step, held, since);
            self.warm = true;
            answers_health_checks(case, step);
        }
    }

    /// Waits until the kernel holds what was recorded. Most programs take longer to look than the daemon to sync, so
    /// it is asked first whether it has synced since the state was brought.
    fn wait_until_held(&mut self, case: &Case, step: usize, held: &[Held], since: SystemTime) {
        let daemon = &mut self.daemon;
        let start = Instant::now();
        let recorded: Vec<String> = held.iter().map(|held| held.recorded(case, step)).collect();
        // It takes its time to start, and asking costs some of it.
        let (patience, pause) = if self.warm { (IDLE, 20) } else { (PATIENCE, 100) };
        while daemon.last_sync() < since && start.elapsed() < patience && !daemon.has_ended() {
            std::thread::sleep(Duration::from_millis(pause));
        }
        loop {
            // Read one by one: what follows a difference is not looked at.
            let differing =
                held.iter().zip(&recorded).find(|(held, recorded)| held.found(recorded) != **recorded);
            if differing.is_none() {
                return;
            }
            if start.elapsed() > PATIENCE || daemon.has_ended() {
                for (held, recorded) in held.iter().zip(&recorded) {
                    let what = format!("{} step {step}: {}\n{}", case.name, held.file, daemon.log());
                    assert_same(&what, recorded, &held.found(recorded));
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends the daemon, which must leave all as it is; one thing stands for all.
    fn end(mut self, case: &Case, step: usize, held: &[Held]) {
        assert_eq!(self.daemon.end(), Some(0), "{}: SIGTERM is no failure", case.name);
        let recorded = held[0].recorded(case, step);
        assert_same(&format!("{} after its end", case.name), &recorded, &held[0].found(&recorded));
    }
}
