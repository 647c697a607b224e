//! The measurement for one number of Services: recorded once, then measured alternating with the bare batch.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

use super::bare::{Changes, Tables};
use crate::cluster_state;
use crate::daemon::{Daemon, Launch};
use crate::figures::{Measured, Run, grouped};
use crate::namespace::{Namespace, SETTLE};

const LAUNCH: Launch<'static> = Launch { mode: "nftables", path: None, more: &[] };

/// Elements that packets in flight may still need are removed one second later. That sync must not be counted as the
/// next change.
const SWEPT: Duration = Duration::from_millis(2_500);

pub(crate) struct Scenario {
    pub(crate) services: usize,
}

struct Recorded {
    first: Tables,
    endpoint: Changes,
    endpoint_back: Changes,
    added: Changes,
    deleted: Changes,
}

impl Scenario {
    pub(crate) fn run(&self, repeats: usize, changes: usize) -> Measured {
        let folder = TempDir::new().expect("a temporary folder");
        let recorded = self.record(folder.path());
        let mut run = Run::default();
        for repeat in 0..repeats {
            eprintln!("  {} of {repeats}", repeat + 1);
            self.measure(&recorded, folder.path(), repeat, changes, &mut run);
            sleep(SETTLE);
        }
        let (elements, chains) = recorded.first.counts();
        let written = format!("{} elements, {} chains", grouped(elements), grouped(chains));
        run.measured(self.services, "nftables", written, Vec::new())
    }

    /// Runs the daemon once, and reads the kernel's objects after each step.
    fn record(&self, folder: &Path) -> Recorded {
        let namespace = Namespace::new();
        let server = cluster_state::server(self.services, &namespace);
        let (mut daemon, _) = Daemon::start(&namespace, &server, LAUNCH, folder);
        let read = || {
            sleep(SWEPT);
            namespace.run(Tables::read)
        };
        let first = read();
        daemon.add_service(self.services);
        let with_added = read();
        daemon.delete_service();
        let without = read();
        daemon.move_endpoint(self.services, 0);
        let moved = read();
        drop(daemon);
        sleep(SETTLE);
        Recorded {
            endpoint: Changes::between(&without, &moved),
            endpoint_back: Changes::between(&moved, &without),
            added: Changes::between(&first, &with_added),
            deleted: Changes::between(&with_added, &without),
            first,
        }
    }

    /// Measures a first sync of both, then changes of both.
    fn measure(&self, recorded: &Recorded, folder: &Path, repeat: usize, changes: usize, run: &mut Run) {
        let (theirs, ours) = (Namespace::new(), Namespace::new());
        let server = cluster_state::server(self.services, &ours);
        let bare = |changes: &Changes| theirs.run(|| changes.carry_out());
        // Before the daemon starts: while any process on the machine subscribes to notifications, the kernel creates
        // one for each element.
        run.first.bare.push(theirs.run(|| recorded.first.write()));
        let (mut daemon, took) = Daemon::start(&ours, &server, LAUNCH, folder);
        run.first.ours.push(took);
        if repeat == 0 {
            for namespace in [&theirs, &ours] {
                let found = namespace.run(Tables::read);
                assert!(
                    found == recorded.first,
                    "not the tables that were recorded: elements and chains are {:?}, and were {:?}",
                    found.counts(),
                    recorded.first.counts()
                );
            }
        }
        for change in 0..changes {
            run.endpoint.bare.push(bare(&recorded.endpoint));
            bare(&recorded.endpoint_back);
            run.endpoint.ours.push(daemon.move_endpoint(self.services, change));
            sleep(SWEPT);
            run.added.bare.push(bare(&recorded.added));
            run.added.ours.push(daemon.add_service(self.services));
            sleep(SWEPT);
            run.deleted.bare.push(bare(&recorded.deleted));
            run.deleted.ours.push(daemon.delete_service());
            sleep(SWEPT);
        }
        run.memory.push(daemon.memory());
        run.load.push(daemon.under_load(self.services));
    }
}
