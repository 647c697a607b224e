//! Another process holds the xtables lock for longer than the tool waits: the sync fails and is retried.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use portcullis_lab::Vantage;

use crate::expectation::{only, spread};
use crate::row::{client, cluster_ip, row};
use crate::testbed::{PATIENCE, Setup};
use crate::tools::{self, Flavour};

/// Longer than the five seconds that a restore waits.
const HELD: Duration = Duration::from_millis(6500);

#[test]
fn a_lock_that_is_held_delays_and_breaks_nothing() {
    let mut testbed = Setup::new("web.yaml").flavour(Flavour::Legacy).up();
    let pid = testbed.lab.daemon_pid("node-1").unwrap();
    let lock = File::open(testbed.lab.folder().join("node-1.xtables.lock")).unwrap();
    // SAFETY: the descriptor is open for the whole call.
    assert_eq!(
        unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) },
        0,
        "the lock is free"
    );
    let since = Instant::now();
    testbed.lab.set_ready("b", false).unwrap();
    testbed.lab.set_ready("c", false).unwrap();
    let failures =
        |testbed: &crate::testbed::Testbed| testbed.metric("node-1", "portcullis_sync_failures_total", "");
    testbed.wait_until("the failed sync is counted", PATIENCE, |testbed| failures(testbed) > 0.0);
    let health = |testbed: &crate::testbed::Testbed| {
        let netns = testbed.lab.netns(&Vantage::node("node-1")).unwrap();
        tools::http_get(&netns, "127.0.0.1:10256", "/healthz").unwrap()
    };
    let answer = health(&testbed);
    assert!(answer.contains(" 503 ") && answer.contains("xtables lock"), "{answer}");
    std::thread::sleep(HELD.saturating_sub(since.elapsed()));
    testbed.check(&[
        row("the previous rules stay", client(1), cluster_ip("web", 80), spread(&["a", "b", "c"]).kept()),
        row("a node whose lock is free follows", client(2), cluster_ip("web", 80), only("a").kept()),
    ]);
    drop(lock);
    testbed.synced();
    assert!(health(&testbed).contains(" 200 "));
    assert_eq!(testbed.lab.daemon_pid("node-1"), Some(pid));
    testbed.lab.check_daemons().unwrap();
    testbed.check(&[row("the changes are applied", client(1), cluster_ip("web", 80), only("a").kept())]);
    assert_eq!(testbed.metric("node-1", "portcullis_service_sync_errors", ""), 0.0, "no Service is isolated");
}
