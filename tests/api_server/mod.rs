//! A fake API server, in the test's process and over plain HTTP.
//!
//! It serves lists (pages, selectors), single objects, watches (bookmarks, streaming lists, expired revisions) and creations.
//! `tests/api_source/recordings.rs` compares it with recordings of a real server in `fixtures/apiserver/`. Tests change its
//! objects and plan faults:
//!
//! ```ignore
//! let server = ApiServer::start();
//! server.apply(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {}}));
//! server.fail(Fault::status(429).on("/services").retry_after(1).times(2));
//! server.disconnect_all();
//! ```
#![allow(dead_code, reason = "each test file uses its own part of it")]

mod fault;
pub(crate) mod fault_proxy;
mod pod_streams;
mod resource;
mod response;
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
pub(crate) use pod_streams::PodPrograms;
use store::Store;
use watch::Command;

/// The response to a request for a streaming list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streaming {
    /// A streaming list.
    Supported,
    /// An ERROR event with code 500, inside a stream with status 200: its etcd does not support it.
    EtcdTooOld,
    /// Status 422: the feature gate is off.
    GateOff,
    /// A watch that begins with all objects, without a bookmark at their end: the option is unknown.
    Unknown,
}

/// The behaviour of the server, apart from faults.
#[derive(Clone, Debug)]
struct Settings {
    streaming: Streaming,
    /// The wait before the head of each response.
    slow: Duration,
    /// The wait after each object of a streaming list.
    drip: Duration,
    /// The time between bookmarks.
    bookmarks: Duration,
    /// The required bearer token.
    token: Option<String>,
    /// Resources that are not served, by their name in the path.
    absent: Vec<String>,
    /// Lists and streaming lists are compressed if the client accepts that.
    compress: bool,
}

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Its time.
    pub(crate) at: Instant,
    /// Its path and query.
    pub(crate) uri: String,
    /// Its User-Agent.
    pub(crate) user_agent: String,
    /// Its Accept-Encoding.
    pub(crate) accept_encoding: String,
}

struct Shared {
    store: Mutex<Store>,
    changed: signal::Sender<u64>,
    settings: Mutex<Settings>,
    faults: Mutex<Vec<Fault>>,
    watches: Mutex<Vec<mpsc::UnboundedSender<Command>>>,
    requests: Mutex<Vec<Request>>,
    programs: Mutex<Option<PodPrograms>>,
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
    /// Starts a server without objects on a free port of 127.0.0.1.
    pub(crate) fn start() -> Self {
        let settings = Settings {
            streaming: Streaming::Supported,
            slow: Duration::ZERO,
            drip: Duration::ZERO,
            bookmarks: Duration::from_secs(60),
            token: None,
            absent: Vec::new(),
            compress: false,
        };
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::default()),
            changed: signal::Sender::new(0),
            settings: Mutex::new(settings),
            faults: Mutex::default(),
            watches: Mutex::default(),
            requests: Mutex::default(),
            programs: Mutex::default(),
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
        let router = response::router(self.shared.clone());
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("the runtime drives sockets");
            axum::serve(listener, router).await
        });
        self.runtime = Some(runtime);
    }

    /// Closes the port and all connections; the objects stay.
    pub(crate) fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        lock(&self.shared.watches).clear();
    }

    /// Opens the same port again.
    pub(crate) fn restart(&mut self) {
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

    /// Returns the address on which it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns its address, as for `--master`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Writes a kubeconfig of the server with a bearer token, and returns its path.
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

    /// Sets what runs in the pods, for `kubectl exec` and `kubectl logs`.
    pub(crate) fn run_in_pods(&self, programs: PodPrograms) {
        *lock(&self.shared.programs) = Some(programs);
    }

    /// Creates or replaces an object and returns its revision.
    pub(crate) fn apply(&self, object: Value) -> u64 {
        self.change(|store| store.apply(object, None))
    }

    /// The same with the object's own revision, which must be newer than the latest one.
    pub(crate) fn apply_recorded(&self, object: Value) -> u64 {
        let revision = recorded_revision(&object);
        self.change(|store| store.apply(object, Some(revision)))
    }

    /// Adds objects with their revisions, without watch events.
    pub(crate) fn load(&self, objects: impl IntoIterator<Item = Value>) {
        self.change(|store| {
            objects.into_iter().for_each(|object| store.load(object));
            store.revision()
        });
    }

    /// Deletes an object, as in `delete("services", "default/web")`, and returns the revision.
    pub(crate) fn delete(&self, plural: &str, name: &str) -> u64 {
        self.change(|store| store.delete(plural, name, None))
    }

    /// The same with a given revision.
    pub(crate) fn delete_recorded(&self, plural: &str, name: &str, revision: u64) -> u64 {
        self.change(|store| store.delete(plural, name, Some(revision)))
    }

    /// Raises the revision, as changes of other objects do.
    pub(crate) fn set_revision(&self, revision: u64) {
        self.change(|store| store.set_revision(revision));
    }

    /// Returns to an older revision, as an etcd that is restored from a backup.
    pub(crate) fn restore(&self, revision: u64) {
        self.change(|store| store.restore(revision));
        self.disconnect_all();
    }

    /// Returns the latest revision.
    pub(crate) fn revision(&self) -> u64 {
        lock(&self.shared.store).revision()
    }

    /// Returns all objects of a resource, as in `objects("events")`, ordered by key.
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

    /// Compacts the history: requests for older revisions and continue tokens get 410.
    pub(crate) fn compact(&self) {
        lock(&self.shared.store).compact();
    }

    /// Compacts the history and forgets it, for long tests. Watches that are open must have received it.
    pub(crate) fn forget_history(&self) {
        lock(&self.shared.store).forget_history();
        lock(&self.shared.requests).clear();
    }

    /// Sets the response to requests for streaming lists.
    pub(crate) fn set_streaming(&self, streaming: Streaming) {
        lock(&self.shared.settings).streaming = streaming;
    }

    /// Sets the wait before each response.
    pub(crate) fn slow(&self, wait: Duration) {
        lock(&self.shared.settings).slow = wait;
    }

    /// Sets the wait after each object of a streaming list.
    pub(crate) fn drip(&self, wait: Duration) {
        lock(&self.shared.settings).drip = wait;
    }

    /// Sets the time between bookmarks; the default is a minute.
    pub(crate) fn bookmark_every(&self, time: Duration) {
        lock(&self.shared.settings).bookmarks = time;
    }

    /// Requires a bearer token: other requests get 401.
    pub(crate) fn require_token(&self, token: &str) {
        lock(&self.shared.settings).token = Some(token.to_owned());
    }

    /// Sets the resources that are not served (404), as in `["servicecidrs"]`.
    pub(crate) fn set_absent(&self, plurals: &[&str]) {
        lock(&self.shared.settings).absent = plurals.iter().map(|&plural| plural.to_owned()).collect();
    }

    /// Compresses lists (`APIResponseCompression`, here of any size) and streaming lists (`WatchListCompression`).
    pub(crate) fn compress(&self) {
        lock(&self.shared.settings).compress = true;
    }

    /// Plans a fault; the first one that matches a request is used.
    pub(crate) fn fail(&self, fault: Fault) {
        lock(&self.shared.faults).push(fault);
    }

    /// Removes all planned faults.
    pub(crate) fn clear_faults(&self) {
        lock(&self.shared.faults).clear();
    }

    /// Returns true if all planned faults were used.
    pub(crate) fn all_failed(&self) -> bool {
        lock(&self.shared.faults).is_empty()
    }

    /// Interrupts all watches.
    pub(crate) fn disconnect_all(&self) {
        self.command(&Command::Break);
    }

    /// Ends all watches, as after their timeout.
    pub(crate) fn close_all(&self) {
        self.command(&Command::Close);
    }

    /// Sends a bookmark to all watches that allow them.
    pub(crate) fn bookmark_now(&self) {
        self.command(&Command::Bookmark);
    }

    /// Sends text to all watches.
    pub(crate) fn send_raw(&self, text: &str) {
        self.command(&Command::Send(text.to_owned()));
    }

    fn command(&self, command: &Command) {
        lock(&self.shared.watches).retain(|watch| watch.send(command.clone()).is_ok());
    }

    /// Returns the number of open watches.
    pub(crate) fn watches(&self) -> usize {
        let mut watches = lock(&self.shared.watches);
        watches.retain(|watch| !watch.is_closed());
        watches.len()
    }

    /// Returns the requests whose path and query contain all of `words`.
    pub(crate) fn requests(&self, words: &[&str]) -> Vec<Request> {
        let matches = |request: &&Request| words.iter().all(|word| request.uri.contains(word));
        lock(&self.shared.requests).iter().filter(matches).cloned().collect()
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
