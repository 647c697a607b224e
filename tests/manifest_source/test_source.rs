//! A source of manifests under test, and the files that it reads.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::time::Duration;

use portcullis::source::{self, KindStatus, Source, SourceConfig};
use portcullis_cluster::{Event, Kind, Object};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// The longest wait for an event or a condition.
const TIMEOUT: Duration = Duration::from_secs(15);

pub(crate) struct TestSource {
    pub(crate) source: Source,
    batches: mpsc::Receiver<Vec<Event>>,
    waiting: VecDeque<String>,
}

impl TestSource {
    pub(crate) async fn start(path: &Path) -> Self {
        let (sink, batches) = mpsc::channel(4);
        let origin = SourceConfig::Manifests { path: path.to_owned() };
        let source = source::spawn(origin, sink).await.expect("manifests need no access");
        TestSource { source, batches, waiting: VecDeque::new() }
    }

    pub(crate) async fn next(&mut self) -> String {
        while self.waiting.is_empty() {
            let batch = timeout(TIMEOUT, self.batches.recv())
                .await
                .expect("an event comes")
                .expect("the source runs");
            self.waiting.extend(batch.iter().map(describe));
        }
        self.waiting.pop_front().expect("the loop above filled it")
    }

    /// Returns the objects of the first list, and asserts that it lists every kind.
    pub(crate) async fn list(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        let last = Kind::ALL.last().map(|kind| format!("{kind})"));
        while events.last() != last.as_ref() {
            events.push(self.next().await);
        }
        for kind in Kind::ALL {
            assert!(
                events.contains(&format!("({kind}")) && events.contains(&format!("{kind})")),
                "{events:?}"
            );
        }
        events.retain(|event| event.starts_with('+'));
        events
    }

    #[track_caller]
    pub(crate) fn expect<'a>(&'a mut self, expected: &'a [&str]) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            for expected_event in expected {
                assert_eq!(&self.next().await, expected_event, "of {expected:?}, expected at {caller}");
            }
        }
    }

    pub(crate) async fn expect_no_events(&mut self) {
        assert_eq!(self.waiting, [""; 0]);
        let received = timeout(Duration::from_millis(400), self.batches.recv()).await;
        assert!(received.is_err(), "{received:?}");
    }

    pub(crate) fn status(&self, kind: Kind) -> KindStatus {
        self.source
            .health()
            .snapshot()
            .into_iter()
            .find(|status| status.kind == kind)
            .expect("all kinds are followed")
    }

    pub(crate) async fn eventually(&self, what: &str, holds: impl Fn(KindStatus) -> bool) {
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        while !holds(self.status(Kind::Service)) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "never: {what}; {:?}",
                self.status(Kind::Service)
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// `+a=1` is Service `a` with port 1.
fn describe(event: &Event) -> String {
    match event {
        Event::Applied(object) => describe_object(object),
        Event::Unreadable(key) => format!("={}", key.name.name),
        Event::Deleted(key) => format!("-{}", key.name.name),
        Event::ListStarted(kind) => format!("({kind}"),
        Event::Listed(kind) => format!("{kind})"),
    }
}

pub(crate) fn describe_object(object: &Object) -> String {
    let name = object.key().name.name;
    match object {
        Object::Service(service) => {
            format!("+{name}={}", service.ports.first().map_or(0, |port| port.port.into()))
        }
        _ => format!("+{name}"),
    }
}

pub(crate) fn service(name: &str, port: u16) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  ports:\n  - port: {port}\n"
    )
}

/// Creates a folder with these files.
pub(crate) fn folder(files: &[(&str, String)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    files.iter().for_each(|(name, text)| write(folder.path(), name, text));
    folder
}

pub(crate) fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("the folder can be written");
}

/// Replaces a file by renaming a new one.
pub(crate) fn replace(folder: &Path, name: &str, text: &str) {
    let new = folder.join(format!(".{name}.new"));
    fs::write(&new, text).expect("the folder can be written");
    fs::rename(new, folder.join(name)).expect("a file can be renamed");
}
