//! A source whose events update an index, which must never lose the Services that exist.

use std::time::{Duration, Instant};

use portcullis::source::{self, Access, KindStatus, ListWatchOptions, Selection, Source, SourceConfig};
use portcullis_cluster::{Event, Index, Kind, NamespacedName};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::{TIMEOUT, options};

/// A running source, and an index of its events.
pub(crate) struct Follower {
    source: Source,
    batches: mpsc::Receiver<Vec<Event>>,
    index: Index,
    /// Services that must be in the index.
    required: Vec<NamespacedName>,
    name: String,
}

impl Follower {
    /// Starts a source of Services and waits until it has listed these. `name` is used in messages.
    pub(crate) async fn start(name: &str, access: Access, required: &[&str]) -> Self {
        let (sink, batches) = mpsc::channel(4);
        let selections = vec![Selection::all(Kind::Service)];
        // Longer than the pauses of a busy machine.
        let limit = Duration::from_secs(2);
        let options = ListWatchOptions { response_timeout: limit, idle_timeout: limit, ..options() };
        let config = SourceConfig::ApiServer { access, selections, options };
        let source = source::spawn(config, sink).await.expect("the access is valid");
        let (index, name) = (Index::new(), name.to_owned());
        let mut follower = Follower { source, batches, index, required: Vec::new(), name };
        follower.until("the first list", |index| index.is_listed(Kind::Service)).await;
        follower.required = required.iter().map(|name| service(name)).collect();
        follower.check();
        follower
    }

    pub(crate) fn status(&self) -> KindStatus {
        self.source.health().snapshot().remove(0)
    }

    /// Returns true if the index has a Service.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.index.service(&service(name)).is_some()
    }

    /// Lets a Service be deleted.
    pub(crate) fn no_longer_requires(&mut self, name: &str) {
        self.required.retain(|required| *required != service(name));
    }

    /// Handles events until the index satisfies a condition, and returns the time that it took.
    pub(crate) async fn until(&mut self, what: &str, condition: impl Fn(&Index) -> bool) -> Duration {
        let start = Instant::now();
        while !condition(&self.index) {
            let left = TIMEOUT.saturating_sub(start.elapsed());
            let batch = timeout(left, self.batches.recv()).await;
            let Ok(batch) = batch else { panic!("{}: never: {what}; {:?}", self.name, self.status()) };
            self.handle(batch.expect("the source runs"));
        }
        start.elapsed()
    }

    /// Handles events until more than `failures` requests have failed and the health has an error that contains a text.
    /// Returns the error.
    pub(crate) async fn until_error(&mut self, text: &str, failures: u64) -> String {
        let start = Instant::now();
        let mut other = None;
        loop {
            let status = self.status();
            match status.error {
                Some(error) if error.contains(text) && status.failures > failures => return error,
                Some(error) => other = Some(error),
                None => {}
            }
            assert!(start.elapsed() < TIMEOUT, "{}: no {text:?} in the health, but {other:?}", self.name);
            self.observe(Duration::from_millis(2)).await;
        }
    }

    /// Handles events for a while.
    pub(crate) async fn observe(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let Ok(batch) =
            timeout(end.saturating_duration_since(Instant::now()), self.batches.recv()).await
        {
            self.handle(batch.expect("the source runs"));
        }
    }

    fn handle(&mut self, batch: Vec<Event>) {
        for event in batch {
            self.index.handle(event);
            self.check();
        }
    }

    /// Asserts that no required Service was lost.
    fn check(&self) {
        for name in &self.required {
            assert!(self.index.service(name).is_some(), "{}: {name} was lost", self.name);
        }
    }
}

pub(crate) fn service(name: &str) -> NamespacedName {
    NamespacedName::new("default", name)
}
