//! A daemon follows a case from state to state.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use portcullis::config::ProxyMode;

use crate::api_server::ApiServer;
use crate::daemon::Daemon;
use crate::health_checks::answers_health_checks;
use crate::held::Held;
use crate::services::{Case, assert_same, cases};
use crate::{namespace, node, states};

/// The cases of a mode are dealt out to so many tests.
const HANDS: usize = 4;

/// Names the one case to be played, for who looks into it.
const ONLY: &str = "PORTCULLIS_CASE";

/// No case waits longer for a state.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon that has not synced for so long has nothing to do for a state, unless it is the first.
const IDLE: Duration = Duration::from_secs(1);

/// Plays a hand of a mode's cases. One that fails does not hide another.
pub(crate) fn play(mode: ProxyMode, hand: usize, held: &[Held]) {
    let only = std::env::var(ONLY).ok();
    let mut failed = Vec::new();
    for case in cases(mode).into_iter().skip(hand).step_by(HANDS) {
        if only.as_ref().is_some_and(|only| *only != case.name) {
            continue;
        }
        let start = Instant::now();
        if catch_unwind(AssertUnwindSafe(|| namespace::inside(|| follow(&case, held)))).is_err() {
            failed.push(case.name.clone());
        }
        println!("{} took {:.1?}", case.name, start.elapsed());
    }
    assert!(failed.is_empty(), "as said above, not what was recorded: {failed:?}");
}

/// Plays a case on a node that it sets up in this network namespace.
fn follow(case: &Case, held: &[Held]) {
    node::set_up(case);
    follow_states(case, held, &case.states());
}

/// Plays the first state of a case on the node as it is.
pub(crate) fn follow_first_state(case: &Case, held: &[Held]) {
    follow_states(case, held, &case.states()[..1]);
}

/// Brings one daemon through states; after each, the kernel must come to hold what was recorded.
fn follow_states(case: &Case, held: &[Held], states: &[PathBuf]) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let server = ApiServer::start();
    let mut stored = BTreeMap::new();
    states::bring(&server, &mut stored, &states[0]);
    let mut daemon = Daemon::start(case, &server, folder.path());
    for (i, state) in states.iter().enumerate() {
        let step = i + 1;
        let since = SystemTime::now();
        states::bring(&server, &mut stored, state);
        wait_until_held(case, step, held, &mut daemon, since);
        answers_health_checks(case, step);
    }
    assert_eq!(daemon.end(), Some(0), "{}: SIGTERM is no failure", case.name);
    // Ended, it leaves all as it is; one thing stands for all.
    let recorded = held[0].recorded(case, states.len());
    assert_same(&format!("{} after its end", case.name), &recorded, &held[0].found(&recorded));
}

/// Waits until the kernel holds what was recorded. Most programs take longer to look than the daemon to sync, so it is
/// asked first whether it has synced since the state was brought.
fn wait_until_held(case: &Case, step: usize, held: &[Held], daemon: &mut Daemon, since: SystemTime) {
    let start = Instant::now();
    let recorded: Vec<String> = held.iter().map(|held| held.recorded(case, step)).collect();
    // It takes its time to start, and asking costs some of it.
    let (patience, pause) = if step == 1 { (PATIENCE, 100) } else { (IDLE, 20) };
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
