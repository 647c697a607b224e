//! The source that reads a file or folder of manifests, and reads it again when it changes.
//!
//! ```text
//! inotify ─┐                       ┌─ first reading: a list of every kind
//!          ├─► settle ─► ManifestCache
//! polling ─┘                       └─ later ones: changes
//! ```
//!
//! Of a folder, the files `*.yaml`, `*.yml` and `*.json` are read, ordered by name. Hidden files are ignored; sub-folders and
//! kustomizations are reported. A document that cannot be read does not affect the others, and its last readable version
//! stays in use.

mod file_errors;
mod files;
mod manifest_cache;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis_cluster::{Event, Kind, Object, ObjectKey, Problem};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};

use super::reported_problems::ReportedProblems;
use super::source_health::SourceHealth;
use super::unsupported_policies;
use crate::file_watch::FileWatch;
pub use file_errors::FileErrors;
pub use files::PathError;
use files::{Stamp, is_manifest};
pub(crate) use manifest_cache::read_manifest_file;
use manifest_cache::{ManifestCache, ReadResult};

/// The time without a change before the files are read: editors write a file in several steps.
const QUIET_PERIOD: Duration = Duration::from_millis(100);

/// The longest wait for such a time.
const MAX_SETTLE: Duration = Duration::from_secs(1);

/// The period of checks for changes that inotify does not report: files on network file systems, and links to other
/// folders.
const CHECK_PERIOD: Duration = Duration::from_secs(10);

/// The period of checks without inotify, and while the path does not exist.
const POLL_PERIOD: Duration = Duration::from_millis(500);

/// The number of events per batch.
const BATCH: usize = 256;

/// How many files with errors, with duplicates, and how many skipped entries of a folder are logged at a reading.
const MAX_LOGGED: usize = 20;

/// How many unused kinds are logged.
const MAX_IGNORED: usize = 100;

/// The content of a file or folder of manifests.
#[derive(Debug, Default)]
pub struct Manifests {
    /// The objects of the supported kinds, in document order; of an object with several manifests, the last one.
    pub objects: Vec<Object>,
    /// Documents that cannot be read, with file and line.
    pub errors: Vec<FileErrors>,
    /// Invalid fields, which are ignored.
    pub problems: Vec<(ObjectKey, Problem)>,
    /// Unused kinds, such as `apps/v1 Deployment`.
    pub ignored: BTreeSet<String>,
    /// Objects with more than one manifest.
    pub warnings: Vec<FileErrors>,
    /// Why sub-folders and kustomizations of the folder are not read, one line each.
    pub skipped: Vec<String>,
}

/// Reads a file or folder once.
///
/// # Errors
/// There is no such path, or it cannot be read. Errors of documents are in the result.
pub fn read_manifests(path: &Path) -> Result<Manifests, PathError> {
    let result = ManifestCache::default().read(path)?;
    let objects = result.events.into_iter().filter_map(|event| match event {
        Event::Applied(object) => Some(object),
        _ => None,
    });
    Ok(Manifests {
        objects: objects.collect(),
        errors: result.errors,
        problems: result.problems,
        ignored: result.ignored,
        warnings: result.duplicates,
        skipped: result.skipped,
    })
}

/// Checks that a file or folder of manifests can be read.
///
/// # Errors
/// There is no such path, or it cannot be read.
pub fn check_path(path: &Path) -> Result<(), PathError> {
    files::list(path).map(drop)
}

/// Sends the events of a file or folder into `sink` until its receiver is dropped.
pub(super) async fn follow(path: PathBuf, health: Arc<SourceHealth>, sink: mpsc::Sender<Vec<Event>>) {
    let changed = Arc::new(Notify::new());
    let mut watcher = FileWatch::new(path.clone(), is_manifest, changed.clone());
    let mut cache = ManifestCache::default();
    let mut reporter = ReadReporter::default();
    loop {
        // Watch before reading, so that changes in between are noticed.
        let watched = watcher.watch_paths();
        let stamp = files::stamp(&path);
        let read_at = std::time::Instant::now();
        let result;
        (cache, result) = match read_in_background(cache, path.clone()).await {
            Some(done) => done,
            None => return,
        };
        let events = reporter.take(result, read_at, &health);
        if send(events, &sink, &health).await.is_err() {
            return;
        }
        let poll = if watched && stamp.is_some() { CHECK_PERIOD } else { POLL_PERIOD };
        tokio::select! {
            () = wait(&path, &changed, stamp, poll) => {}
            () = sink.closed() => return,
        }
    }
}

type ReadOutcome = Result<ReadResult, PathError>;

/// Reads on a thread of its own; `None` when the runtime shuts down.
async fn read_in_background(mut cache: ManifestCache, path: PathBuf) -> Option<(ManifestCache, ReadOutcome)> {
    let task = tokio::task::spawn_blocking(move || {
        let result = cache.read(&path);
        (cache, result)
    });
    match task.await {
        Ok(done) => Some(done),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

/// Waits for a change, and then for a time without changes.
async fn wait(path: &Path, changed: &Notify, stamp: Option<Stamp>, poll: Duration) {
    loop {
        match timeout(poll, changed.notified()).await {
            Ok(()) => break,
            Err(_) if files::stamp(path) != stamp => break,
            Err(_) => {}
        }
    }
    let latest = Instant::now() + MAX_SETTLE;
    while Instant::now() < latest && timeout(QUIET_PERIOD, changed.notified()).await.is_ok() {}
    // A file that is written twice within the resolution of its timestamps would have the same stamp.
    sleep(Duration::from_millis(10)).await;
}

async fn send(
    mut events: Vec<Event>,
    sink: &mpsc::Sender<Vec<Event>>,
    health: &SourceHealth,
) -> Result<(), mpsc::error::SendError<Vec<Event>>> {
    while !events.is_empty() {
        let rest = events.split_off(events.len().min(BATCH));
        let batch = std::mem::replace(&mut events, rest);
        let listed: Vec<Kind> = batch
            .iter()
            .filter_map(|event| if let Event::Listed(kind) = event { Some(*kind) } else { None })
            .collect();
        sink.send(batch).await?;
        listed.into_iter().for_each(|kind| health.record_list(kind));
    }
    Ok(())
}

/// Returns the errors of files that have changed.
fn changed<'a>(before: &[FileErrors], now: &'a [FileErrors]) -> Vec<&'a FileErrors> {
    let before: HashMap<&str, &FileErrors> = before.iter().map(|errors| (errors.file(), errors)).collect();
    now.iter().filter(|errors| before.get(errors.file()) != Some(errors)).collect()
}

/// Logs the results of readings, each message once.
#[derive(Default)]
struct ReadReporter {
    errors: Vec<FileErrors>,
    duplicates: Vec<FileErrors>,
    ignored: BTreeSet<String>,
    skipped: Vec<String>,
    reported: HashMap<ObjectKey, ReportedProblems>,
    path: Option<String>,
}

impl ReadReporter {
    /// Reports the result of a read that started at `read_at`, and returns its events.
    fn take(
        &mut self,
        outcome: ReadOutcome,
        read_at: std::time::Instant,
        health: &SourceHealth,
    ) -> Vec<Event> {
        let result = match outcome {
            Ok(result) => result,
            Err(error) => {
                let error = error.to_string();
                Kind::ALL.iter().for_each(|&kind| health.record_failure(kind, error.clone()));
                health.set_unreadable(None, vec![error.as_str().into()]);
                if self.path.as_deref() != Some(&error) {
                    tracing::error!("{error}; keeping the objects that were read before, and retrying");
                    self.path = Some(error);
                }
                return Vec::new();
            }
        };
        self.path = None;
        let new = changed(&self.errors, &result.errors);
        for errors in new.iter().take(MAX_LOGGED) {
            let (file, line) = (errors.file(), errors.line());
            let documents =
                if errors.count == 1 { "its last readable version" } else { "their last readable versions" };
            tracing::warn!(file, line, "{errors}; keeping {documents}");
        }
        if new.len() > MAX_LOGGED {
            tracing::warn!("{} more files have documents that cannot be read", new.len() - MAX_LOGGED);
        }
        let new = changed(&self.duplicates, &result.duplicates);
        for duplicates in new.iter().take(MAX_LOGGED) {
            tracing::warn!(file = duplicates.file(), line = duplicates.line(), "{duplicates}");
        }
        if new.len() > MAX_LOGGED {
            tracing::warn!("{} more files have objects that are defined elsewhere", new.len() - MAX_LOGGED);
        }
        let new: Vec<&String> =
            result.skipped.iter().filter(|skipped| !self.skipped.contains(skipped)).collect();
        new.iter().take(MAX_LOGGED).for_each(|skipped| tracing::warn!("{skipped}"));
        if new.len() > MAX_LOGGED {
            tracing::warn!("skipping {} more sub-folders and kustomizations", new.len() - MAX_LOGGED);
        }
        for kind in result.ignored {
            if self.ignored.len() >= MAX_IGNORED || !self.ignored.insert(kind.clone()) {
                continue;
            }
            match unsupported_policies::warning_of(&kind) {
                Some(warning) => tracing::warn!("{warning}"),
                None => tracing::info!("ignoring objects of the unused kind {kind}"),
            }
        }
        let with_problems: HashSet<&ObjectKey> = result.with_problems.iter().collect();
        self.reported.retain(|key, _| with_problems.contains(key));
        for (key, problem) in &result.problems {
            self.reported.entry(key.clone()).or_default().warn(key, std::slice::from_ref(problem));
        }
        let first_error = result.errors.iter().flat_map(FileErrors::lines).next();
        let error_count: usize = result.errors.iter().map(|errors| errors.count).sum();
        for kind in Kind::ALL {
            // Changes of files after the start of the read may not be in the result.
            health.record_contact_at(kind, read_at);
            let count = |keys: &[ObjectKey]| keys.iter().filter(|key| key.kind == kind).count();
            health.set_invalid(kind, count(&result.unreadable), count(&result.with_problems));
            if let Some(first) = first_error.as_ref() {
                let more = error_count - 1;
                health.record_failure(
                    kind,
                    if more > 0 { format!("{first}, and {more} more") } else { first.clone() },
                );
            }
        }
        health
            .set_unreadable(None, result.errors.iter().flat_map(FileErrors::lines).map(Into::into).collect());
        self.errors = result.errors;
        self.duplicates = result.duplicates;
        self.skipped = result.skipped;
        result.events
    }
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::manifest::ManifestError;

    use super::*;

    #[test]
    fn only_files_with_other_errors_than_before_are_logged() {
        let errors = |files: &[(&str, usize)]| {
            let mut all = Vec::new();
            for (file, line) in files {
                let error =
                    ManifestError { file: (*file).to_owned(), line: *line, message: "bad".to_owned() };
                FileErrors::add(&mut all, error);
            }
            all
        };
        let before = errors(&[("a", 1), ("a", 2), ("b", 1)]);
        assert!(changed(&before, &before).is_empty());
        let now = errors(&[("a", 1), ("b", 1), ("c", 1)]);
        assert_eq!(changed(&before, &now).iter().map(|errors| errors.file()).collect::<Vec<_>>(), ["a", "c"]);
    }
}
