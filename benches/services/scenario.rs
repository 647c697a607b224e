//! One number of Services with one flavour: recorded once, then measured in turns with the bare tool.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

use super::api_server::ApiServer;
use super::bare::{self, Restore};
use super::cluster_state::{self, slice, slice_name};
use super::daemon::{Daemon, Took};
use super::figures::{Measured, Row, median};
use super::flavour::Flavour;
use super::namespace::Namespace;
use super::process::Spent;

/// The nft tool takes more than in proportion: above this, one file is not worth the minutes.
const ONE_FILE_WITH_NFT: usize = 1_000;

/// The kernel takes namespaces apart after their end, at the cost of who runs next.
const SETTLE: Duration = Duration::from_secs(2);

/// The name of the Service that comes and goes: the last one, as new Services are written last.
const ADDED: &str = "zz-added";

pub(crate) struct Scenario {
    pub(crate) services: usize,
    pub(crate) flavour: Flavour,
}

/// What the daemon gave the tool, and what the kernel then held.
struct Recorded {
    first: Vec<Restore>,
    endpoint: Vec<Restore>,
    added: Vec<Restore>,
    deleted: Vec<Restore>,
    dump: String,
}

/// All samples of one thing.
#[derive(Default)]
struct Samples {
    bare: Vec<Spent>,
    ours: Vec<Took>,
}

#[derive(Default)]
struct Run {
    first: Samples,
    one_file: Vec<Spent>,
    endpoint: Samples,
    added: Samples,
    deleted: Samples,
    memory: Vec<(f64, f64)>,
}

impl Scenario {
    pub(crate) fn run(&self, repeats: usize, changes: usize) -> Measured {
        let folder = TempDir::new().expect("a temporary folder");
        let tools = folder.path().join("tools");
        self.flavour.link_tools(&tools);
        let recorded = self.record(folder.path());
        let one_file = bare::in_one_file(&recorded.dump, folder.path());
        let mut run = Run::default();
        for repeat in 0..repeats {
            eprintln!("  {} of {repeats}", repeat + 1);
            if self.flavour == Flavour::Legacy || self.services <= ONE_FILE_WITH_NFT {
                let namespace = Namespace::new();
                run.one_file.push(namespace.run(|| bare::restore(self.flavour, &one_file)));
                drop(namespace);
                sleep(SETTLE);
            }
            self.measure(&recorded, &tools, folder.path(), repeat, changes, &mut run);
            sleep(SETTLE);
        }
        self.summary(&recorded, &run)
    }

    /// Runs the daemon once with tools that keep what they are given.
    fn record(&self, folder: &Path) -> Recorded {
        let (tools, records) = (folder.join("recording-tools"), folder.join("records"));
        self.flavour.link_recording_tools(&tools, &records);
        let namespace = Namespace::new();
        let server = self.server(&namespace);
        let (mut daemon, _) = Daemon::start(&namespace, &server, &tools, folder);
        let take = |what: &str| bare::take_recorded(&records, &folder.join(what));
        let first = take("first");
        let dump = namespace.run(|| bare::dump(self.flavour));
        self.move_endpoint(&mut daemon, 0);
        let endpoint = take("endpoint");
        self.add(&mut daemon);
        let added = take("added");
        delete(&mut daemon);
        let deleted = take("deleted");
        drop(daemon);
        sleep(SETTLE);
        Recorded { first, endpoint, added, deleted, dump }
    }

    fn server(&self, namespace: &Namespace) -> ApiServer {
        namespace.run(|| {
            let server = ApiServer::start();
            server.load(cluster_state::objects(self.services));
            server.set_revision(1);
            server
        })
    }

    /// A first sync of both, in turns who is first, then changes of both.
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
        let server = self.server(&ours);
        let bare = |restores: &[Restore]| theirs.run(|| bare::restore(self.flavour, restores));
        if repeat.is_multiple_of(2) {
            run.first.bare.push(bare(&recorded.first));
        }
        let (mut daemon, took) = Daemon::start(&ours, &server, tools, folder);
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
            run.endpoint.ours.push(self.move_endpoint(&mut daemon, change));
            run.added.bare.push(bare(&recorded.added));
            run.added.ours.push(self.add(&mut daemon));
            run.deleted.bare.push(bare(&recorded.deleted));
            run.deleted.ours.push(delete(&mut daemon));
        }
        run.memory.push(daemon.memory());
    }

    /// Gives one endpoint of a Service another address; another Service each time.
    fn move_endpoint(&self, daemon: &mut Daemon<'_>, change: usize) -> Took {
        let i = (self.services / 2 + change) % self.services;
        let moved = slice(&cluster_state::service_name(i), i, Some(&format!("10.250.0.{}", change + 1)));
        daemon.follow(|server| {
            server.apply(moved);
        })
    }

    /// Adds a Service, of which the endpoints are there already.
    fn add(&self, daemon: &mut Daemon<'_>) -> Took {
        daemon.prepare(slice(ADDED, self.services, None));
        let service = cluster_state::service(ADDED, self.services);
        daemon.follow(|server| {
            server.apply(service);
        })
    }

    fn summary(&self, recorded: &Recorded, run: &Run) -> Measured {
        let mut rows = vec![Row::new("first sync", &run.first.bare, &run.first.ours)];
        if !run.one_file.is_empty() {
            rows.push(Row::new("the same rules in one file", &run.one_file, &[]));
        }
        for (what, samples) in [
            ("one endpoint changed", &run.endpoint),
            ("Service added", &run.added),
            ("Service deleted", &run.deleted),
        ] {
            rows.push(Row::new(what, &samples.bare, &samples.ours));
        }
        Measured {
            services: self.services,
            flavour: self.flavour,
            restores: recorded.first.len(),
            lines: recorded.first.iter().map(Restore::lines).sum(),
            rows,
            start_to_served: median(run.first.ours.iter().map(|took| took.all)),
            peak_memory: run.memory.iter().map(|(_, peak)| *peak).fold(0.0, f64::max),
            memory_after: run.memory.iter().map(|(now, _)| *now).fold(0.0, f64::max),
        }
    }
}

/// Both must have written the same rules, or no figure compares.
fn assert_same(recorded: &str, found: &str) {
    if recorded != found {
        let pair = recorded.lines().zip(found.lines()).find(|(a, b)| a != b);
        panic!("not the rules that were recorded, but at first {pair:?}");
    }
}

/// Deletes the added Service, then its slice.
fn delete(daemon: &mut Daemon<'_>) -> Took {
    let took = daemon.follow(|server| {
        server.delete("services", &format!("bench/{ADDED}"));
    });
    daemon.server.delete("endpointslices", &format!("bench/{}", slice_name(ADDED)));
    sleep(Duration::from_millis(500));
    took
}
