//! The API server source, against a test server that behaves as the recordings in `fixtures/apiserver/`.

#[path = "../api_server/mod.rs"]
mod api_server;

mod events;
mod exec_plugin;
mod failures;
mod fault_table;
mod faults;
mod follow;
mod follower;
mod plugin;
mod recordings;
mod tls;
mod tls_proxy;

use std::time::Duration;

use api_server::ApiServer;
use portcullis::source::{self, Access, KindStatus, ListWatchOptions, Selection, Source, SourceConfig};
use portcullis_cluster::{Event, Kind};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// The longest wait for an event or a condition.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Short times for tests.
fn options() -> ListWatchOptions {
    ListWatchOptions {
        page_size: 2,
        response_timeout: Duration::from_millis(600),
        idle_timeout: Duration::from_millis(500),
        watch_duration: Duration::from_secs(60)..Duration::from_secs(61),
        initial_backoff: Duration::from_millis(20),
        max_backoff: Duration::from_millis(200),
        list_jitter: Duration::ZERO,
    }
}

/// A running source, and its events.
struct TestSource {
    source: Source,
    batches: mpsc::Receiver<Vec<Event>>,
    /// Received events that the test has not read yet.
    waiting: std::collections::VecDeque<String>,
}

impl TestSource {
    async fn services(server: &ApiServer) -> Self {
        TestSource::by(server, vec![Selection::all(Kind::Service)], options()).await
    }

    async fn by(server: &ApiServer, selections: Vec<Selection>, options: ListWatchOptions) -> Self {
        TestSource::with(
            Access { kubeconfig: None, master: Some(server.url()), ..Access::default() },
            selections,
            options,
        )
        .await
    }

    async fn with(access: Access, selections: Vec<Selection>, options: ListWatchOptions) -> Self {
        let (sink, batches) = mpsc::channel(4);
        let source = source::spawn(SourceConfig::ApiServer { access, selections, options }, sink)
            .await
            .expect("the address is valid");
        TestSource { source, batches, waiting: Default::default() }
    }

    /// Returns the next event as text: `+default/a` applied, `-default/a` deleted, `(Service` and `Service)` a list.
    async fn next(&mut self) -> String {
        while self.waiting.is_empty() {
            let batch = timeout(TIMEOUT, self.batches.recv()).await;
            let batch =
                batch.unwrap_or_else(|_| panic!("no event came; {:?}", self.source.health().snapshot()));
            let batch = batch.expect("the source runs");
            assert!(!batch.is_empty(), "a batch is never empty");
            self.waiting.extend(batch.iter().map(describe));
        }
        self.waiting.pop_front().expect("the loop above filled it")
    }

    /// Returns the events up to and including `last`.
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

    /// Asserts that no event arrives for a while.
    async fn expect_no_events(&mut self, time: Duration) {
        assert_eq!(self.waiting, [""; 0]);
        let received = timeout(time, self.batches.recv()).await;
        assert!(received.is_err(), "{received:?}");
    }

    fn status(&self) -> KindStatus {
        self.source.health().snapshot().remove(0)
    }
}

fn describe(event: &Event) -> String {
    match event {
        Event::Applied(object) => format!("+{}", object.key().name),
        Event::Unreadable(key) => format!("={}", key.name),
        Event::Deleted(key) => format!("-{}", key.name),
        Event::ListStarted(kind) => format!("({kind}"),
        Event::Listed(kind) => format!("{kind})"),
    }
}

/// Waits until a condition holds.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

/// Starts a server with Services of these names.
fn server_with(names: &[&str]) -> ApiServer {
    let server = ApiServer::start();
    for name in names {
        server.apply(service(name, json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]})));
    }
    server
}
