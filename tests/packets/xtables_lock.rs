//! Somebody holds the xtables lock for longer than the tool waits for it: the daemon lives on, and tries again.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use portcullis_lab::Vantage;

use crate::bed::{PATIENCE, Setup};
use crate::expectation::{only, spread};
use crate::row::{client, cluster_ip, row};
use crate::tools::{self, Flavour};

/// Longer than the five seconds that a restore waits.
const HELD: Duration = Duration::from_millis(6500);

#[test]
fn a_lock_that_is_held_delays_and_breaks_nothing() {
    let mut bed = Setup::of("web.yaml").flavour(Flavour::Legacy).up();
    let pid = bed.lab.daemon_pid("node-1").unwrap();
    let lock = File::open(bed.lab.folder().join("node-1.xtables.lock")).unwrap();
    // SAFETY: the descriptor is open for the whole call.
    assert_eq!(
        unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) },
        0,
        "nobody else has it"
    );
    let since = Instant::now();
    bed.lab.set_ready("b", false).unwrap();
    bed.lab.set_ready("c", false).unwrap();
    let failures = |bed: &crate::bed::Bed| bed.metric("node-1", "portcullis_sync_failures_total", "");
    bed.wait_until("the sync that got no lock is counted", PATIENCE, |bed| failures(bed) > 0.0);
    let health = |bed: &crate::bed::Bed| {
        let netns = bed.lab.netns(&Vantage::node("node-1")).unwrap();
        tools::http_get(&netns, "127.0.0.1:10256", "/healthz").unwrap()
    };
    let answer = health(&bed);
    assert!(answer.contains(" 503 ") && answer.contains("xtables lock"), "{answer}");
    std::thread::sleep(HELD.saturating_sub(since.elapsed()));
    bed.check(&[
        row("the last good rules stay", client(1), cluster_ip("web", 80), spread(&["a", "b", "c"]).kept()),
        row("a node whose lock is free follows", client(2), cluster_ip("web", 80), only("a").kept()),
    ]);
    drop(lock);
    bed.synced();
    assert!(health(&bed).contains(" 200 "));
    assert_eq!(bed.lab.daemon_pid("node-1"), Some(pid));
    bed.lab.check_daemons().unwrap();
    bed.check(&[row("it is made good", client(1), cluster_ip("web", 80), only("a").kept())]);
    assert_eq!(bed.metric("node-1", "portcullis_service_sync_errors", ""), 0.0, "no Service is to blame");
}
