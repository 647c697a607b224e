//! An API server for tests: in this process, over plain HTTP, with a script.
//!
//! It answers lists (pages, selectors), single objects and watches (bookmarks, streaming lists, expired
//! revisions) and creations in the shape that a real one has, which `fixtures/apiserver/` records and
//! `tests/api_source.rs` holds it against. A test changes what it stores and how it misbehaves:
//!
//! ```ignore
//! let server = ApiServer::start();
//! server.apply(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {}}));
//! server.fail(Fault::status(429).on("/services").retry_after(1).times(2));
//! server.disconnect_all();
//! ```
#![allow(dead_code, reason = "each test file uses its own part of it")]

mod answer;
mod fault;
mod resource;
mod selector;
mod store;
mod watch;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch as signal};

pub(crate) use fault::Fault;
use store::Store;
use watch::Command;

/// How it answers a request for a streaming list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streaming {
    /// With a streaming list.
    Supported,
    /// With an ERROR event, code 500, inside a stream with status 200: its etcd cannot do it.
    EtcdTooOld,
    /// With status 422: it knows the option, and its feature gate is off.
    GateOff,
    /// With a watch that begins with all objects and never says where they end: it does not know the option.
    Unknown,
}

/// How it behaves, apart from faults.
#[derive(Clone, Debug)]
struct Settings {
    streaming: Streaming,
    /// The wait before the head of each answer.
    slow: Duration,
    /// The wait after each object of a streaming list.
    drip: Duration,
    /// The time between bookmarks.
    bookmarks: Duration,
    /// The bearer token that is asked for.
    token: Option<String>,
    /// Resources that are not served, by their name in the path.
    absent: Vec<String>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// When it came.
    pub(crate) at: Instant,
    /// Its path and query.
    pub(crate) uri: String,
    /// Its User-Agent.
    pub(crate) user_agent: String,
}

struct Shared {
    store: Mutex<Store>,
    changed: signal::Sender<u64>,
    settings: Mutex<Settings>,
    faults: Mutex<Vec<Fault>>,
    watches: Mutex<Vec<mpsc::UnboundedSender<Command>>>,
    requests: Mutex<Vec<Request>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics while it holds a lock of the server")
}

/// The server. Dropping it closes its port and all connections.
pub(crate) struct ApiServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl ApiServer {
    /// Starts an empty one on a free port of 127.0.0.1.
    pub(crate) fn start() -> Self {
        let settings = Settings {
            streaming: Streaming::Supported,
            slow: Duration::ZERO,
            drip: Duration::ZERO,
            bookmarks: Duration::from_secs(60),
            token: None,
            absent: Vec::new(),
        };
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::default()),
            changed: signal::Sender::new(0),
            settings: Mutex::new(settings),
            faults: Mutex::default(),
            watches: Mutex::default(),
            requests: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("the listener is bound");
        let mut server = ApiServer { shared, address, runtime: None };
        server.serve(listener);
        server
    }

    fn serve(&mut self, listener: TcpListener) {
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a thread");
        let router = answer::router(self.shared.clone());
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("the runtime drives sockets");
            axum::serve(listener, router).await
        });
        self.runtime = Some(runtime);
    }

    /// Closes the port and all connections; what is stored stays.
    pub(crate) fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        lock(&self.shared.watches).clear();
    }

    /// Opens the same port again.
    pub(crate) fn start_again(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        let listener = loop {
            match TcpListener::bind(self.address) {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < deadline, "{} is still taken: {error}", self.address),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        self.serve(listener);
    }

    /// Its address, as `--master` takes it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Writes a kubeconfig that leads to it, with a bearer token, and returns its path.
    pub(crate) fn kubeconfig(&self, folder: &Path, token: &str) -> PathBuf {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url()}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        let path = folder.join("kubeconfig");
        std::fs::write(&path, config.to_string()).expect("the folder can be written");
        path
    }

    /// Creates or replaces an object; its revision is the answer.
    pub(crate) fn apply(&self, object: Value) -> u64 {
        self.change(|store| store.apply(object, None))
    }

    /// The same with the revision that the object says, which must not be older than the newest.
    pub(crate) fn apply_recorded(&self, object: Value) -> u64 {
        let revision = recorded_revision(&object);
        self.change(|store| store.apply(object, Some(revision)))
    }

    /// Takes objects in as they are, with their revisions, as if they had always been there.
    pub(crate) fn load(&self, objects: impl IntoIterator<Item = Value>) {
        self.change(|store| {
            objects.into_iter().for_each(|object| store.load(object));
            store.revision()
        });
    }

    /// Deletes an object, as in `delete("services", "default/web")`; the revision is the answer.
    pub(crate) fn delete(&self, plural: &str, name: &str) -> u64 {
        self.change(|store| store.delete(plural, name, None))
    }

    /// The same with a revision.
    pub(crate) fn delete_recorded(&self, plural: &str, name: &str, revision: u64) -> u64 {
        self.change(|store| store.delete(plural, name, Some(revision)))
    }

    /// Moves the revision on, as changes of objects that nobody here watches do.
    pub(crate) fn set_revision(&self, revision: u64) {
        self.change(|store| store.set_revision(revision));
    }

    /// Goes back to an older revision, as an etcd that was restored from a backup: later changes never were.
    pub(crate) fn restore(&self, revision: u64) {
        self.change(|store| store.restore(revision));
        self.disconnect_all();
    }

    /// The newest revision.
    pub(crate) fn revision(&self) -> u64 {
        lock(&self.shared.store).revision()
    }

    /// All objects of a resource, as in `objects("events")`, by their keys.
    pub(crate) fn objects(&self, plural: &str) -> Vec<Value> {
        let (resource, selector) = (resource::Resource::by_plural(plural), selector::Selector::default());
        let store = lock(&self.shared.store);
        let objects = store.list(resource, &selector, store.revision());
        objects.into_iter().map(|(_, object)| Value::clone(&object)).collect()
    }

    fn change(&self, change: impl FnOnce(&mut Store) -> u64) -> u64 {
        let revision = change(&mut lock(&self.shared.store));
        self.shared.changed.send_modify(|tick| *tick += 1);
        revision
    }

    /// Forgets all history: older revisions and continuations are answered with 410.
    pub(crate) fn compact(&self) {
        lock(&self.shared.store).compact();
    }

    /// Sets how streaming lists are answered.
    pub(crate) fn set_streaming(&self, streaming: Streaming) {
        lock(&self.shared.settings).streaming = streaming;
    }

    /// Makes it wait before each answer.
    pub(crate) fn slow(&self, wait: Duration) {
        lock(&self.shared.settings).slow = wait;
    }

    /// Makes it wait after each object of a streaming list.
    pub(crate) fn drip(&self, wait: Duration) {
        lock(&self.shared.settings).drip = wait;
    }

    /// Sets the time between bookmarks; a minute if it is never set.
    pub(crate) fn bookmark_every(&self, time: Duration) {
        lock(&self.shared.settings).bookmarks = time;
    }

    /// Asks for a bearer token: others get 401.
    pub(crate) fn require_token(&self, token: &str) {
        lock(&self.shared.settings).token = Some(token.to_owned());
    }

    /// Sets which resources it does not serve (404), as in `["servicecidrs"]`.
    pub(crate) fn set_absent(&self, plurals: &[&str]) {
        lock(&self.shared.settings).absent = plurals.iter().map(|&plural| plural.to_owned()).collect();
    }

    /// Plans a fault; the first that fits a request is used.
    pub(crate) fn fail(&self, fault: Fault) {
        lock(&self.shared.faults).push(fault);
    }

    /// Whether all planned faults have happened.
    pub(crate) fn all_failed(&self) -> bool {
        lock(&self.shared.faults).is_empty()
    }

    /// Breaks all watches in the middle of their streams.
    pub(crate) fn disconnect_all(&self) {
        self.command(&Command::Break);
    }

    /// Ends all watches as if their time were over.
    pub(crate) fn close_all(&self) {
        self.command(&Command::Close);
    }

    /// Sends a bookmark in all watches that allow them.
    pub(crate) fn bookmark_now(&self) {
        self.command(&Command::Bookmark);
    }

    /// Sends any text in all watches.
    pub(crate) fn send_raw(&self, text: &str) {
        self.command(&Command::Send(text.to_owned()));
    }

    fn command(&self, command: &Command) {
        lock(&self.shared.watches).retain(|watch| watch.send(command.clone()).is_ok());
    }

    /// The number of open watches.
    pub(crate) fn watches(&self) -> usize {
        let mut watches = lock(&self.shared.watches);
        watches.retain(|watch| !watch.is_closed());
        watches.len()
    }

    /// The requests so far of which the path and query contain all of `words`.
    pub(crate) fn requests(&self, words: &[&str]) -> Vec<Request> {
        let fits = |request: &&Request| words.iter().all(|word| request.uri.contains(word));
        lock(&self.shared.requests).iter().filter(fits).cloned().collect()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn recorded_revision(object: &Value) -> u64 {
    let revision = object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok());
    revision.expect("a recorded object has a revision")
}
