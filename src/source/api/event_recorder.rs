//! The recorder of Events (`events.k8s.io/v1`) about nodes, Services and policies. It also clears a condition of this node.
//!
//! Recording never blocks, and Events may be lost; the log has all of them. All nodes of a cluster may report the same
//! policy at the same time, or start at the same time, so each waits for a random time first. An Event about a policy has
//! the same name on all nodes: one of them creates it, the API server answers the others with 409 (already exists).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use kube::client::Body;
use portcullis_cluster::object::ObjectKey;
use portcullis_cluster::{Kind, Name, NamespacedName};
use serde_json::Value;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use super::api_event::{ApiEvent, EventType, ObjectVersion};
use super::event_budget::EventBudget;
use super::limits::MAX_OBJECT;
use super::node_condition::clear_network_unavailable;
use super::request::{Request, http_request};
use super::request_error::{RequestError, StatusError};
use super::response::send_request;
use crate::source::Selection;
use crate::source::connection::Connection;
use crate::source::jitter::random;

/// The action of Events about the start, as in kube-proxy.
pub(crate) const START: &str = "StartKubeProxy";

/// How many Events may wait to be created.
const QUEUE_CAPACITY: usize = 64;

/// The room in the queue that Events about other objects leave for Events about the node.
const RESERVED_FOR_NODE: usize = 16;

/// How many requests are made for one Event.
const MAX_ATTEMPTS: usize = 3;

/// How many created Events are remembered, so that they are not created twice.
const MAX_CREATED: usize = 1024;

/// How long a created Event is remembered. The API server deletes it after an hour (`--event-ttl`).
const DEDUP_PERIOD: Duration = Duration::from_hours(1);

/// How long the server may take to respond.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The node for which Events are created, and their delay.
#[derive(Clone, Debug)]
pub struct EventReporter {
    /// This node.
    pub node: Name,
    /// The longest random wait before an Event is created.
    pub max_delay: Duration,
}

impl EventReporter {
    /// Creates Events for a node, with a delay that suits large clusters.
    pub fn new(node: Name) -> Self {
        EventReporter { node, max_delay: Duration::from_secs(10) }
    }
}

/// A queue of Events to create. Without an API server it discards them.
#[derive(Clone, Debug, Default)]
pub struct EventRecorder(Option<Queue>);

#[derive(Clone, Debug)]
struct Queue {
    node: Name,
    items: mpsc::Sender<Item>,
    /// True while [`EventRecorder::flush`] waits: random delays are skipped.
    flushing: Arc<watch::Sender<bool>>,
    budget: Arc<EventBudget>,
}

#[derive(Debug)]
enum Item {
    Event(Box<ApiEvent>),
    /// Clears the condition `NetworkUnavailable` of the node.
    NetworkAvailable,
    /// Signals that all Events before it are done.
    Flush(oneshot::Sender<()>),
}

/// The receiving end of an [`EventRecorder`].
#[derive(Debug)]
pub(crate) struct EventQueue {
    items: mpsc::Receiver<Item>,
    flushing: watch::Receiver<bool>,
}

#[cfg(test)]
impl EventQueue {
    /// Removes all queued items and returns their number.
    pub(in crate::source) fn drain(&mut self) -> usize {
        std::iter::from_fn(|| self.items.try_recv().ok()).count()
    }

    /// Removes all queued Events and returns the reason, object and note of each.
    pub(crate) fn take_events(&mut self) -> Vec<String> {
        let events = std::iter::from_fn(|| self.items.try_recv().ok());
        let text = |item| match item {
            Item::Event(event) => format!("{}: {}: {}", event.reason, event.regarding, event.note),
            Item::NetworkAvailable => "network available".to_owned(),
            Item::Flush(_) => "flush".to_owned(),
        };
        events.map(text).collect()
    }
}

impl EventRecorder {
    /// A recorder that discards Events.
    pub fn disabled() -> Self {
        EventRecorder::default()
    }

    /// A recorder for a node, and its receiving end.
    pub(crate) fn channel(node: Name) -> (Self, EventQueue) {
        let (sender, items) = mpsc::channel(QUEUE_CAPACITY);
        let (flushing, flush_requested) = watch::channel(false);
        let queue = Queue { node, items: sender, flushing: Arc::new(flushing), budget: Arc::default() };
        (EventRecorder(Some(queue)), EventQueue { items, flushing: flush_requested })
    }

    /// Records an Event about this node. `names`: its reason and action.
    pub fn node_event(&self, event_type: EventType, names: [&'static str; 2], note: &str) {
        if let Some(queue) = &self.0 {
            let node = NamespacedName::new("", queue.node.as_str());
            self.send(ApiEvent::of_node(Kind::Node, node, event_type, names, note));
        }
    }

    /// Records a warning about a Service on this node.
    pub fn service_event(&self, service: &NamespacedName, names: [&'static str; 2], note: &str) {
        self.send(ApiEvent::of_node(Kind::Service, service.clone(), EventType::Warning, names, note));
    }

    /// Records a warning about an object on this node.
    pub fn object_event(&self, object: &ObjectKey, reason: String, action: &'static str, note: &str) {
        let ObjectKey { kind, name } = object.clone();
        let event = ApiEvent::of_node(kind, name, EventType::Warning, ["", action], note);
        self.send(ApiEvent { reason, ..event });
    }

    /// Records a warning about an object that all nodes report alike, so that one Event is created for all nodes.
    pub fn shared_event(&self, object: &ObjectKey, names: [&'static str; 2], note: String) {
        let ObjectKey { kind, name } = object.clone();
        self.send(ApiEvent::of_cluster(kind, name, EventType::Warning, names, note));
    }

    /// Queues an Event, or omits it if the budget of the object's namespace is exhausted or the queue is full.
    pub(in crate::source) fn send(&self, event: ApiEvent) {
        let Some(queue) = &self.0 else { return };
        let ObjectKey { kind, name } = &event.regarding;
        let is_about_node = *kind == Kind::Node && *name.name == *queue.node.as_str();
        let is_within_budget = is_about_node
            || (queue.items.capacity() > RESERVED_FOR_NODE
                && queue.budget.take(name.namespace.as_str(), std::time::Instant::now()));
        if !is_within_budget {
            queue.budget.count_omitted(1);
            tracing::debug!(object = %event.regarding, "too many Events; this one is omitted");
        } else if let Err(TrySendError::Full(item)) = queue.items.try_send(Item::Event(Box::new(event))) {
            queue.budget.count_omitted(1);
            tracing::debug!(?item, "the queue of Events is full; this one is omitted");
        }
    }

    /// Clears the condition `NetworkUnavailable` of this node. To be repeated while the Node has it: the request may fail.
    pub fn clear_network_unavailable(&self) {
        if let Some(queue) = &self.0
            && queue.items.try_send(Item::NetworkAvailable).is_err()
        {
            tracing::debug!("the queue of Events is full; the condition of the node is not cleared yet");
        }
    }

    /// Counts Events that are not recorded, as there are too many.
    pub fn omit(&self, events: u64) {
        if let Some(queue) = &self.0 {
            queue.budget.count_omitted(events);
        }
    }

    /// Returns the number of Events that were omitted since the start, as there were too many.
    pub fn omitted(&self) -> u64 {
        self.0.as_ref().map_or(0, |queue| queue.budget.omitted())
    }

    /// Waits up to `limit` until all queued Events are created, without their random delays.
    pub async fn flush(&self, limit: Duration) {
        let Some(queue) = &self.0 else { return };
        queue.flushing.send_replace(true);
        let (done, all_done) = oneshot::channel();
        let flushed = async {
            if queue.items.send(Item::Flush(done)).await.is_ok() {
                let _gone = all_done.await;
            }
        };
        let _late = timeout(limit, flushed).await;
    }
}

/// Creates the recorded Events, until all recorders are dropped.
pub(in crate::source) async fn publish(
    queue: EventQueue,
    connection: Arc<Connection>,
    reporter: EventReporter,
) {
    let EventQueue { mut items, mut flushing } = queue;
    let mut created: HashMap<String, Instant> = HashMap::new();
    let mut reported_error = false;
    while let Some(item) = items.recv().await {
        let mut event = match item {
            Item::Event(event) => event,
            Item::NetworkAvailable => {
                clear_network_unavailable(&connection, &reporter.node).await;
                continue;
            }
            Item::Flush(all) => {
                // The caller of `flush` may have stopped waiting.
                let _ = all.send(());
                continue;
            }
        };
        let key = event.dedup_key();
        if created.get(&key).is_some_and(|when| when.elapsed() < DEDUP_PERIOD) {
            continue;
        }
        for _ in 0..MAX_ATTEMPTS {
            tokio::select! {
                () = tokio::time::sleep(reporter.max_delay.mul_f64(random())) => {}
                _ = flushing.wait_for(|flushing| *flushing) => {}
            }
            let error = match create(&connection, &mut event, &reporter.node).await {
                Ok(()) => None,
                // It exists: another node created it, or this one did before a restart.
                Err(RequestError::Rejected(StatusError { code: 409, .. })) => None,
                Err(error) => Some(error),
            };
            let Some(error) = error else {
                if created.len() == MAX_CREATED {
                    created.clear();
                }
                created.insert(key, Instant::now());
                break;
            };
            if !std::mem::replace(&mut reported_error, true) {
                let hint = hint(&error);
                tracing::debug!("cannot create Events: {error}{hint}");
            }
            if !is_retryable(&error) {
                break;
            }
        }
    }
}

async fn create(connection: &Connection, event: &mut ApiEvent, node: &Name) -> Result<(), RequestError> {
    if event.version.uid.is_empty() {
        // Without a UID, `kubectl describe` does not show the Event, but `kubectl get events` does.
        event.version.uid = uid(connection, &event.regarding).await.unwrap_or_default();
    }
    let body = event.to_json(node, Timestamp::now()).to_string();
    let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", event.namespace());
    let request = http::Request::post(path)
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(body.into_bytes()))
        .map_err(|error| {
            RequestError::Malformed(format!("{}: invalid namespace: {error}", event.namespace()))
        })?;
    send_request(&connection.client().await?, request, RESPONSE_TIMEOUT).await.map(drop)
}

/// Returns the UID of an object. It is listed, as the ClusterRole allows `list` and `watch`, not `get`.
async fn uid(connection: &Connection, object: &ObjectKey) -> Option<String> {
    let ObjectKey { kind, name } = object;
    let mut fields = format!("metadata.name={}", name.name);
    if kind.namespaced() {
        fields.push_str(&format!(",metadata.namespace={}", name.namespace));
    }
    let selection = Selection { fields: Some(fields), ..Selection::all(*kind) };
    let request = http_request(&selection, Request::Page { next: None, size: 1 });
    let response = send_request(&connection.client().await.ok()?, request, RESPONSE_TIMEOUT).await.ok()?;
    let body = response.whole(RESPONSE_TIMEOUT, kind.plural(), MAX_OBJECT).await.ok()?;
    let list: Value = serde_json::from_slice(&body).ok()?;
    let uid = ObjectVersion::of(list.pointer("/items/0")?).uid;
    (!uid.is_empty()).then_some(uid)
}

/// Returns true if the same request may succeed later.
fn is_retryable(error: &RequestError) -> bool {
    match error {
        RequestError::Rejected(no) => matches!(no.code, 401 | 429 | 500..),
        RequestError::Unreachable(_) | RequestError::Disconnected(_) | RequestError::TimedOut(_) => true,
        RequestError::Access(_)
        | RequestError::Malformed(_)
        | RequestError::EndlessList(_)
        | RequestError::TooLarge { .. }
        | RequestError::TooMany { .. }
        | RequestError::ReceiverClosed => false,
    }
}

fn hint(error: &RequestError) -> &'static str {
    match error {
        RequestError::Rejected(StatusError { code: 403, .. }) => {
            "; allow this user to create events (API group \"events.k8s.io\")"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_about_objects_are_limited_and_leave_room_for_those_about_the_node() {
        let (recorder, mut queue) = EventRecorder::channel(Name::new("node-1"));
        for number in 0..1000 {
            let service = NamespacedName::new("noisy", &format!("s{number}"));
            recorder.service_event(&service, ["FailedToSyncService", "SyncProxyRules"], "rejected");
        }
        assert_eq!(recorder.omitted(), 975, "a namespace has a budget");
        for number in 0..1000 {
            let service = NamespacedName::new(&format!("n{number}"), "web");
            recorder.service_event(&service, ["FailedToSyncService", "SyncProxyRules"], "rejected");
        }
        assert_eq!(recorder.omitted(), 2000 - (QUEUE_CAPACITY - RESERVED_FOR_NODE) as u64);
        recorder.node_event(EventType::Warning, ["APIServerSilent", "WatchObjects"], "no message");
        let events = queue.take_events();
        assert_eq!(events.len(), QUEUE_CAPACITY - RESERVED_FOR_NODE + 1);
        assert!(
            events.last().is_some_and(|event| event.starts_with("APIServerSilent: Node node-1")),
            "{events:?}"
        );
    }
}
