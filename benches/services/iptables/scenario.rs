//! The measurement for one number of Services with one flavour: recorded once, then measured alternating with the bare
//! tool.

use std::path::Path;
use std::thread::sleep;

use tempfile::TempDir;

use super::bare::{self, Restore};
use super::flavour::Flavour;
use crate::cluster_state;
use crate::daemon::{Daemon, Launch};
use crate::figures::{Measured, Row, Run, grouped};
use crate::namespace::{Namespace, SETTLE};

/// The nft tool's time grows faster than its input: above this size, a single file would take minutes.
const ONE_FILE_WITH_NFT: usize = 1_000;

pub(crate) struct Scenario {
    pub(crate) services: usize,
    pub(crate) flavour: Flavour,
}

/// The input that the daemon gave the tool, and the resulting rules.
struct Recorded {
    first: Vec<Restore>,
    endpoint: Vec<Restore>,
    added: Vec<Restore>,
    deleted: Vec<Restore>,
    dump: String,
}

impl Scenario {
    pub(crate) fn run(&self, repeats: usize, changes: usize) -> Measured {
        let folder = TempDir::new().expect("a temporary folder");
        let tools = folder.path().join("tools");
        self.flavour.link_tools(&tools);
        let recorded = self.record(folder.path());
        let one_file = bare::in_one_file(&recorded.dump, folder.path());
        let (mut run, mut in_one_file) = (Run::default(), Vec::new());
        for repeat in 0..repeats {
            eprintln!("  {} of {repeats}", repeat + 1);
            if self.flavour == Flavour::Legacy || self.services <= ONE_FILE_WITH_NFT {
                let namespace = Namespace::new();
                in_one_file.push(namespace.run(|| bare::restore(self.flavour, &one_file)));
                drop(namespace);
                sleep(SETTLE);
            }
            self.measure(&recorded, &tools, folder.path(), repeat, changes, &mut run);
            sleep(SETTLE);
        }
        let lines = grouped(recorded.first.iter().map(Restore::lines).sum());
        let written = format!("{lines} lines, restores: {}", recorded.first.len());
        let one_file =
            (!in_one_file.is_empty()).then(|| Row::new("the same rules in one file", &in_one_file, &[]));
        let way = format!("{} tool", self.flavour.name());
        run.measured(self.services, &way, written, one_file.into_iter().collect())
    }

    /// Runs the daemon once with tools that record their input.
    fn record(&self, folder: &Path) -> Recorded {
        let (tools, records) = (folder.join("recording-tools"), folder.join("records"));
        self.flavour.link_recording_tools(&tools, &records);
        let namespace = Namespace::new();
        let server = cluster_state::server(self.services, &namespace);
        let (mut daemon, _) = Daemon::start(&namespace, &server, launch(&tools), folder);
        let take = |what: &str| bare::take_recorded(&records, &folder.join(what));
        let first = take("first");
        let dump = namespace.run(|| bare::dump(self.flavour));
        daemon.move_endpoint(self.services, 0);
        let endpoint = take("endpoint");
        daemon.add_service(self.services);
        let added = take("added");
        daemon.delete_service();
        let deleted = take("deleted");
        drop(daemon);
        sleep(SETTLE);
        Recorded { first, endpoint, added, deleted, dump }
    }

    /// Measures a first sync of both, in alternating order, then changes of both.
    fn measure(
        &self,
        recorded: &Recorded,
        tools: &Path,
        folder: &Path,
        repeat: usize,
        changes: usize,
        run: &mut Run,
    ) {
        let (theirs, ours) = (Namespace::new(), Namespace::new());
        let server = cluster_state::server(self.services, &ours);
        let bare = |restores: &[Restore]| theirs.run(|| bare::restore(self.flavour, restores));
        if repeat.is_multiple_of(2) {
            run.first.bare.push(bare(&recorded.first));
        }
        let (mut daemon, took) = Daemon::start(&ours, &server, launch(tools), folder);
        run.first.ours.push(took);
        if !repeat.is_multiple_of(2) {
            run.first.bare.push(bare(&recorded.first));
        }
        if repeat == 0 {
            for namespace in [&theirs, &ours] {
                let found = namespace.run(|| bare::dump(self.flavour));
                assert_same(&recorded.dump, &found);
            }
        }
        for change in 0..changes {
            run.endpoint.bare.push(bare(&recorded.endpoint));
            run.endpoint.ours.push(daemon.move_endpoint(self.services, change));
            run.added.bare.push(bare(&recorded.added));
            run.added.ours.push(daemon.add_service(self.services));
            run.deleted.bare.push(bare(&recorded.deleted));
            run.deleted.ours.push(daemon.delete_service());
        }
        run.memory.push(daemon.memory());
    }
}

/// Returns a launch in which the daemon finds only these tools.
pub(super) fn launch(tools: &Path) -> Launch<'_> {
    Launch { mode: "iptables", path: Some(tools), more: &[] }
}

/// Both must have written the same rules; otherwise the figures are not comparable.
fn assert_same(recorded: &str, found: &str) {
    if recorded != found {
        let pair = recorded.lines().zip(found.lines()).find(|(a, b)| a != b);
        panic!("not the rules that were recorded, but at first {pair:?}");
    }
}
