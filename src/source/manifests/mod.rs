//! A file or a folder of manifests, read again whenever it changes.
//!
//! ```text
//! inotify ─┐                       ┌─ first reading: a list of every kind
//!          ├─► settle ─► Ledger ───┤
//! polling ─┘             (what was └─ later ones: what differs
//!                         given)
//! ```
//!
//! Of a folder, the files `*.yaml`, `*.yml` and `*.json` count, in the order of their names; hidden files do not, and
//! sub-folders and kustomizations are reported. What cannot be read costs only itself, and does not take back what it gave
//! when it could still be read.

mod files;
mod ledger;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis_cluster::manifest::ManifestError;
use portcullis_cluster::{Event, Kind, Object, ObjectKey, Problem};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};

use super::health::Health;
use super::reported::Reported;
use super::unenforced;
use crate::file_watch::FileWatch;
pub use files::PathError;
use files::{Stamp, is_manifest};
use ledger::{Ledger, Outcome};

/// How long a folder must rest before it is read: an editor writes a file in several steps.
const SETTLED: Duration = Duration::from_millis(100);

/// A folder that never rests is read all the same after this time.
const LONGEST_UNREST: Duration = Duration::from_secs(1);

/// How often to look whether something has changed that inotify does not see: files on network file
/// systems, and those behind links to other folders.
const GLANCE: Duration = Duration::from_secs(10);

/// How often to look where there is no inotify, or no such path.
const POLL: Duration = Duration::from_millis(500);

/// How many events go into one batch.
const BATCH: usize = 256;

/// What a file or folder of manifests gives.
#[derive(Debug, Default)]
pub struct Manifests {
    /// The objects of the kinds that we use, in the order in which they stand; of one that stands twice,
    /// the later version.
    pub objects: Vec<Object>,
    /// Documents that cannot be read, with file and line.
    pub errors: Vec<ManifestError>,
    /// Fields that are ignored because they cannot be understood.
    pub problems: Vec<(ObjectKey, Problem)>,
    /// Kinds of objects that we do not use, as in `apps/v1 Deployment`.
    pub ignored: BTreeSet<String>,
    /// What else the operator may want to know: objects that stand twice.
    pub warnings: Vec<ManifestError>,
    /// Why sub-folders and kustomizations of the folder are not read, a line each.
    pub skipped: Vec<String>,
}

/// Reads a file or folder once.
///
/// # Errors
/// There is no such path, or it cannot be read. What cannot be read inside of it is in the answer.
pub fn read_manifests(path: &Path) -> Result<Manifests, PathError> {
    let outcome = Ledger::default().read(path)?;
    let objects = outcome.events.into_iter().filter_map(|event| match event {
        Event::Applied(object) => Some(object),
        _ => None,
    });
    Ok(Manifests {
        objects: objects.collect(),
        errors: outcome.errors,
        problems: outcome.problems,
        ignored: outcome.ignored,
        warnings: outcome.duplicates,
        skipped: outcome.skipped,
    })
}

/// Whether a file or folder of manifests can be read at all.
///
/// # Errors
/// There is no such path, or it cannot be read.
pub fn check_path(path: &Path) -> Result<(), PathError> {
    files::list(path).map(drop)
}

/// Follows a file or folder until nobody listens any more.
pub(super) async fn follow(path: PathBuf, health: Arc<Health>, sink: mpsc::Sender<Vec<Event>>) {
    let changed = Arc::new(Notify::new());
    let mut watcher = FileWatch::new(path.clone(), is_manifest, changed.clone());
    let mut ledger = Ledger::default();
    let mut told = Told::default();
    loop {
        // First watched, then read: what changes in between is seen.
        let watched = watcher.aim();
        let stamp = files::stamp(&path);
        let outcome;
        (ledger, outcome) = match in_background(ledger, path.clone()).await {
            Some(done) => done,
            None => return,
        };
        let events = told.take(outcome, &health);
        if send(events, &sink, &health).await.is_err() {
            return;
        }
        let poll = if watched && stamp.is_some() { GLANCE } else { POLL };
        tokio::select! {
            () = wait(&path, &changed, stamp, poll) => {}
            () = sink.closed() => return,
        }
    }
}

type Reading = Result<Outcome, PathError>;

/// Reads on a thread of its own; `None` when the runtime shuts down.
async fn in_background(mut ledger: Ledger, path: PathBuf) -> Option<(Ledger, Reading)> {
    let task = tokio::task::spawn_blocking(move || {
        let outcome = ledger.read(&path);
        (ledger, outcome)
    });
    match task.await {
        Ok(done) => Some(done),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

/// Waits until something has changed, and then until it rests.
async fn wait(path: &Path, changed: &Notify, stamp: Option<Stamp>, poll: Duration) {
    loop {
        match timeout(poll, changed.notified()).await {
            Ok(()) => break,
            Err(_) if files::stamp(path) != stamp => break,
            Err(_) => {}
        }
    }
    let latest = Instant::now() + LONGEST_UNREST;
    while Instant::now() < latest && timeout(SETTLED, changed.notified()).await.is_ok() {}
    // What was written just now may not differ in its times from what will be written next.
    sleep(Duration::from_millis(10)).await;
}

async fn send(
    mut events: Vec<Event>,
    sink: &mpsc::Sender<Vec<Event>>,
    health: &Health,
) -> Result<(), mpsc::error::SendError<Vec<Event>>> {
    while !events.is_empty() {
        let rest = events.split_off(events.len().min(BATCH));
        let batch = std::mem::replace(&mut events, rest);
        let listed: Vec<Kind> = batch
            .iter()
            .filter_map(|event| if let Event::Listed(kind) = event { Some(*kind) } else { None })
            .collect();
        sink.send(batch).await?;
        listed.into_iter().for_each(|kind| health.listed(kind));
    }
    Ok(())
}

/// What the log has been told, so that it is told once.
#[derive(Default)]
struct Told {
    errors: Vec<ManifestError>,
    duplicates: Vec<ManifestError>,
    ignored: BTreeSet<String>,
    skipped: Vec<String>,
    reported: HashMap<ObjectKey, Reported>,
    path: Option<String>,
}

impl Told {
    /// Reports a reading, and gives its events.
    fn take(&mut self, reading: Reading, health: &Health) -> Vec<Event> {
        let outcome = match reading {
            Ok(outcome) => outcome,
            Err(error) => {
                let error = error.to_string();
                Kind::ALL.iter().for_each(|&kind| health.failed(kind, error.clone()));
                health.set_unreadable(None, vec![error.clone()]);
                if self.path.as_deref() != Some(&error) {
                    tracing::error!("{error}; what was read from it before stays, and it is tried again");
                    self.path = Some(error);
                }
                return Vec::new();
            }
        };
        self.path = None;
        for error in outcome.errors.iter().filter(|error| !self.errors.contains(error)) {
            tracing::warn!(
                file = error.file,
                line = error.line,
                "{error}; what it gave before stays, all other documents count"
            );
        }
        for duplicate in outcome.duplicates.iter().filter(|duplicate| !self.duplicates.contains(duplicate)) {
            tracing::warn!(file = duplicate.file, line = duplicate.line, "{duplicate}");
        }
        for skipped in outcome.skipped.iter().filter(|skipped| !self.skipped.contains(skipped)) {
            tracing::warn!("{skipped}");
        }
        for kind in outcome.ignored {
            if !self.ignored.insert(kind.clone()) {
                continue;
            }
            match unenforced::warning_of(&kind) {
                Some(warning) => tracing::warn!("{warning}"),
                None => tracing::info!("objects of {kind} are of no use here and are ignored"),
            }
        }
        let doubtful: HashSet<&ObjectKey> = outcome.doubtful.iter().collect();
        self.reported.retain(|key, _| doubtful.contains(key));
        for (key, problem) in &outcome.problems {
            self.reported.entry(key.clone()).or_default().warn(key, std::slice::from_ref(problem));
        }
        for kind in Kind::ALL {
            health.heard(kind);
            let count = |keys: &[ObjectKey]| keys.iter().filter(|key| key.kind == kind).count();
            health.doubtful(kind, count(&outcome.unreadable), count(&outcome.doubtful));
            if let Some(first) = outcome.errors.first() {
                let more = outcome.errors.len() - 1;
                health.failed(
                    kind,
                    if more > 0 { format!("{first}, and {more} more") } else { first.to_string() },
                );
            }
        }
        health.set_unreadable(None, outcome.errors.iter().map(ToString::to_string).collect());
        self.errors = outcome.errors;
        self.duplicates = outcome.duplicates;
        self.skipped = outcome.skipped;
        outcome.events
    }
}
