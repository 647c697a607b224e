//! The API source, against a server that behaves as the recordings in `fixtures/apiserver/` show.

#[path = "../api_server/mod.rs"]
mod api_server;

mod events;
mod failures;
mod follow;
mod recordings;

use std::time::Duration;

use api_server::ApiServer;
use portcullis::source::{self, Access, KindStatus, ListWatchOptions, Selection, Source, SourceConfig};
use portcullis_cluster::{Event, Kind};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// A options for impatient tests.
fn options() -> ListWatchOptions {
    ListWatchOptions {
        page_size: 2,
        response_timeout: Duration::from_millis(600),
        idle_timeout: Duration::from_millis(500),
        watch_duration: Duration::from_secs(60)..Duration::from_secs(61),
        initial_backoff: Duration::from_millis(20),
        max_backoff: Duration::from_millis(200),
    }
}

/// A running source, and what it says.
struct Heard {
    source: Source,
    batches: mpsc::Receiver<Vec<Event>>,
    /// Events of a batch that have not been asked for yet.
    waiting: std::collections::VecDeque<String>,
}

impl Heard {
    async fn services(server: &ApiServer) -> Self {
        Heard::by(server, vec![Selection::all(Kind::Service)], options()).await
    }

    async fn by(server: &ApiServer, selections: Vec<Selection>, options: ListWatchOptions) -> Self {
        Heard::with(Access { kubeconfig: None, master: Some(server.url()) }, selections, options).await
    }

    async fn with(access: Access, selections: Vec<Selection>, options: ListWatchOptions) -> Self {
        let (sink, batches) = mpsc::channel(4);
        let source = source::spawn(SourceConfig::ApiServer { access, selections, options }, sink)
            .await
            .expect("the access makes sense");
        Heard { source, batches, waiting: Default::default() }
    }

    /// The next event, in words: `+default/a` applied, `-default/a` deleted, `(Service` and `Service)` a list.
    async fn next(&mut self) -> String {
        while self.waiting.is_empty() {
            let batch = timeout(PATIENCE, self.batches.recv()).await;
            let batch =
                batch.unwrap_or_else(|_| panic!("no event came; {:?}", self.source.health().snapshot()));
            let batch = batch.expect("the source runs");
            assert!(!batch.is_empty(), "a batch is never empty");
            self.waiting.extend(batch.iter().map(words));
        }
        self.waiting.pop_front().expect("the loop above filled it")
    }

    /// The events up to and including this one.
    async fn until(&mut self, last: &str) -> Vec<String> {
        let mut events = Vec::new();
        while events.last().is_none_or(|event| event != last) {
            events.push(self.next().await);
        }
        events
    }

    /// Asserts that the next events are these.
    #[track_caller]
    fn expect<'a>(&'a mut self, expected: &'a [&str]) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            for (i, expected_event) in expected.iter().enumerate() {
                let event = self.next().await;
                assert_eq!(&event, expected_event, "event {i} of {expected:?}, expected at {caller}");
            }
        }
    }

    /// Asserts that nothing is said for a while.
    async fn expect_silence(&mut self, time: Duration) {
        assert_eq!(self.waiting, [""; 0]);
        let said = timeout(time, self.batches.recv()).await;
        assert!(said.is_err(), "{said:?}");
    }

    fn status(&self) -> KindStatus {
        self.source.health().snapshot().remove(0)
    }
}

fn words(event: &Event) -> String {
    match event {
        Event::Applied(object) => format!("+{}", object.key().name),
        Event::Unreadable(key) => format!("={}", key.name),
        Event::Deleted(key) => format!("-{}", key.name),
        Event::ListStarted(kind) => format!("({kind}"),
        Event::Listed(kind) => format!("{kind})"),
    }
}

/// Waits until something holds.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

/// A server with Services of these names.
fn server_with(names: &[&str]) -> ApiServer {
    let server = ApiServer::start();
    for name in names {
        server.apply(service(name, json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]})));
    }
    server
}
