//! The measurement for one number of Services: recorded once, then measured alternating with the bare loop.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

use super::bare::Writes;
use super::objects::Objects;
use super::rules::Rules;
use crate::cluster_state;
use crate::daemon::{Daemon, Launch};
use crate::figures::{Measured, Row, Run, Spent, grouped};
use crate::namespace::{Namespace, SETTLE};

const LAUNCH: Launch<'static> = Launch { mode: "ipvs", path: None, more: &[] };

/// A removed real server is deleted one second after its last connection. That sync must not be counted as the next
/// change.
const DRAINED: Duration = Duration::from_millis(1_500);

pub(crate) struct Scenario {
    pub(crate) services: usize,
}

/// The writes of the daemon.
struct Recorded {
    first: Writes,
    endpoint: Writes,
    /// The writes that undo them, to repeat the measurement.
    endpoint_back: Writes,
    added: Writes,
    deleted: Writes,
    /// The kernel's objects after the first sync.
    objects: Objects,
    rules: Rules,
}

impl Scenario {
    /// Measures in this machine, whose kernel must have IPVS.
    pub(crate) fn run(&self, repeats: usize, changes: usize) -> Measured {
        let folder = TempDir::new().expect("a temporary folder");
        let recorded = self.record(folder.path());
        let (mut run, mut rules) = (Run::default(), Vec::new());
        for repeat in 0..repeats {
            self.measure(&recorded, folder.path(), repeat, changes, &mut run, &mut rules);
            sleep(SETTLE);
        }
        let [servers, real, entries, addresses] = recorded.objects.counts().map(grouped);
        let written = format!(
            "{servers} virtual servers, {real} real servers, {entries} entries, {addresses} addresses"
        );
        let rules = Row::new("the rules in it", &rules, &[]);
        run.measured(self.services, "IPVS", written, vec![rules])
    }

    /// Runs the daemon once, and reads the kernel's objects after each step.
    fn record(&self, folder: &Path) -> Recorded {
        let namespace = Namespace::new();
        let server = cluster_state::server(self.services, &namespace);
        let (mut daemon, _) = Daemon::start(&namespace, &server, LAUNCH, folder);
        let read = || namespace.run(Objects::read).unwrap_or_else(|error| panic!("cannot read: {error}"));
        let objects = read();
        let rules = namespace.run(Rules::read);
        daemon.add_service(self.services);
        let with_added = read();
        daemon.delete_service();
        daemon.move_endpoint(self.services, 0);
        let moved = read();
        assert!(rules == namespace.run(Rules::read), "no change of these is one of rules");
        drop(daemon);
        sleep(SETTLE);
        Recorded {
            first: Writes::between(&Objects::default(), &objects),
            endpoint: Writes::between(&objects, &moved),
            endpoint_back: Writes::between(&moved, &objects),
            added: Writes::between(&objects, &with_added),
            deleted: Writes::between(&with_added, &objects),
            objects,
            rules,
        }
    }

    /// Measures a first sync of both, in alternating order, then changes of both.
    fn measure(
        &self,
        recorded: &Recorded,
        folder: &Path,
        repeat: usize,
        changes: usize,
        run: &mut Run,
        rules: &mut Vec<Spent>,
    ) {
        let (theirs, ours) = (Namespace::new(), Namespace::new());
        let server = cluster_state::server(self.services, &ours);
        let bare = |writes: &Writes| theirs.run(|| writes.carry_out());
        let mut bare_first = |run: &mut Run| {
            let objects = bare(&recorded.first);
            rules.push(theirs.run(|| recorded.rules.restore()));
            run.first.bare.push(objects + rules[rules.len() - 1]);
        };
        if repeat.is_multiple_of(2) {
            bare_first(run);
        }
        let (mut daemon, took) = Daemon::start(&ours, &server, LAUNCH, folder);
        run.first.ours.push(took);
        if !repeat.is_multiple_of(2) {
            bare_first(run);
        }
        if repeat == 0 {
            for namespace in [&theirs, &ours] {
                let found = namespace.run(Objects::read).expect("as before");
                assert!(found == recorded.objects, "not the objects that were recorded");
                assert!(namespace.run(Rules::read) == recorded.rules, "not the rules that were recorded");
            }
        }
        for change in 0..changes {
            run.endpoint.bare.push(bare(&recorded.endpoint));
            bare(&recorded.endpoint_back);
            run.endpoint.ours.push(daemon.move_endpoint(self.services, change));
            sleep(DRAINED);
            run.added.bare.push(bare(&recorded.added));
            run.added.ours.push(daemon.add_service(self.services));
            run.deleted.bare.push(bare(&recorded.deleted));
            run.deleted.ours.push(daemon.delete_service());
        }
        run.memory.push(daemon.memory());
    }
}
