//! The daemon of nftables mode is killed at random times: the kernel has the complete old or the complete new table, and the
//! next daemon continues from there.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use portcullis_netlink::nf_tables::{self, Table, TableFamily};

use crate::daemon::{end, last_sync, portcullis};
use crate::killed::cluster;
use crate::{namespace, node};

/// The lifetimes of daemons, in tenths of the time that the first one needed: before, during and after the write.
const LIFETIMES: [u32; 12] = [5, 7, 8, 9, 9, 10, 10, 10, 11, 11, 12, 20];

const TIMEOUT: Duration = Duration::from_secs(40);

pub(crate) fn a_daemon_killed_at_any_time_leaves_a_complete_table() {
    namespace::inside(|| {
        node::run("ip link set lo up");
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let write = |round| {
            fs::write(folder.path().join("cluster.yaml"), cluster(round)).expect("it can be written to")
        };
        let start = || portcullis(&["--mode=nftables"], folder.path()).spawn().expect("the binary is built");
        write(0);
        let began = Instant::now();
        let mut daemon = start();
        while table().is_none() {
            assert!(began.elapsed() < TIMEOUT, "the daemon did not write anything");
            std::thread::sleep(Duration::from_millis(1));
        }
        let took = began.elapsed();
        assert_eq!(end(&mut daemon), Some(0), "exit status after SIGTERM");
        let (mut old, mut new) = (0, 0);
        for (i, tenths) in LIFETIMES.into_iter().enumerate() {
            write(i + 1);
            let (before, lifetime) = (table(), took * tenths / 10);
            let mut daemon = start();
            std::thread::sleep(lifetime);
            daemon.kill().expect("it runs");
            daemon.wait().expect("it is our child");
            match compare(folder.path()) {
                Ok(()) => new += 1,
                Err(differs) => {
                    assert!(
                        table() == before,
                        "after {lifetime:?} the table is neither the old nor the new one:\n{differs}"
                    );
                    old += 1;
                }
            }
        }
        println!(
            "{old} of {} daemons were killed before the commit, {new} after it; the first took {took:?}",
            LIFETIMES.len()
        );
        let mut last = start();
        let start = Instant::now();
        while let Err(differs) = compare(folder.path()) {
            assert!(start.elapsed() < TIMEOUT, "not in sync within {TIMEOUT:?}:\n{differs}");
            std::thread::sleep(Duration::from_millis(50));
        }
        // The last killed daemon may have written everything; the new one handles signals once it has synced.
        while last_sync() == SystemTime::UNIX_EPOCH {
            assert!(start.elapsed() < TIMEOUT, "no sync within {TIMEOUT:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(end(&mut last), Some(0), "exit status after SIGTERM");
        let tables = crate::recorded_objects::output(&["nft", "list", "tables"]);
        assert_eq!(tables, "table ip portcullis\ntable ip6 portcullis\n");
    });
}

fn table() -> Option<Table> {
    let mut socket = nf_tables::open().expect("root").expect("nf_tables");
    nf_tables::read(&mut socket, TableFamily::Ip, "portcullis")
        .expect("it can be read")
        .map(|(table, _)| table)
}

/// Returns the output of `portcullis diff` if there are differences.
fn compare(folder: &Path) -> Result<(), String> {
    let output = portcullis(&["diff", "--mode=nftables"], folder).stdout(Stdio::piped()).output();
    let output = output.expect("the binary is built");
    match output.status.code() {
        Some(0) => Ok(()),
        _ => Err(String::from_utf8_lossy(&output.stdout).chars().take(4000).collect()),
    }
}
