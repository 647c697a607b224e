//! Tells the API server what people should know, as Events.
//!
//! A event never holds anything up and may get lost; the log has them all. A thousand nodes see the same policy at
//! the same moment, and start at the same moment, so each waits a random time first. An Event about a policy has the
//! same name on all of them: one makes it, the others hear that it is there.

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

use super::api_event::{ApiEvent, EventType, ObjectVersion, join_note};
use super::request::{Request, http_request};
use super::request_error::{RequestError, StatusError};
use super::response::send_request;
use crate::source::Selection;
use crate::source::access::Connection;
use crate::source::backoff::random;

/// The action of Events about the start, as upstream has it.
pub(crate) const START: &str = "StartKubeProxy";

/// Notices that may wait.
const QUEUE_CAPACITY: usize = 64;

/// How often one is tried.
const MAX_ATTEMPTS: usize = 3;

/// Events that are remembered, so that they are not created twice.
const MAX_CREATED: usize = 1024;

/// How long an Event is remembered. API servers forget them after an hour (`--event-ttl`).
const DEDUP_PERIOD: Duration = Duration::from_hours(1);

/// How long the server may take to response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Who reports, and at what pace.
#[derive(Clone, Debug)]
pub struct EventReporter {
    /// This node.
    pub node: Name,
    /// Before each report there is a random wait of up to this long.
    pub max_delay: Duration,
}

impl EventReporter {
    /// Reports for a node, at a pace that suits large clusters.
    pub fn new(node: Name) -> Self {
        EventReporter { node, max_delay: Duration::from_secs(10) }
    }
}

/// Takes events, from which Events become where there is an API server.
#[derive(Clone, Debug, Default)]
pub struct EventRecorder(Option<Queue>);

#[derive(Clone, Debug)]
struct Queue {
    node: Name,
    items: mpsc::Sender<Item>,
    /// Whether somebody waits for all to be done.
    flushing: Arc<watch::Sender<bool>>,
}

#[derive(Debug)]
enum Item {
    Event(Box<ApiEvent>),
    /// All before it are done.
    Flush(oneshot::Sender<()>),
}

/// Where what a [`EventRecorder`] takes comes out.
#[derive(Debug)]
pub(in crate::source) struct EventQueue {
    items: mpsc::Receiver<Item>,
    flushing: watch::Receiver<bool>,
}

#[cfg(test)]
impl EventQueue {
    /// Takes all that waits, and says how much that was.
    pub(in crate::source) fn drain(&mut self) -> usize {
        std::iter::from_fn(|| self.items.try_recv().ok()).count()
    }
}

impl EventRecorder {
    /// One for which nobody listens: what it is done is lost.
    pub fn disabled() -> Self {
        EventRecorder::default()
    }

    /// Where events of a node go in, and where they come out.
    pub(in crate::source) fn channel(node: Name) -> (Self, EventQueue) {
        let (sender, items) = mpsc::channel(QUEUE_CAPACITY);
        let (flushing, flush_requested) = watch::channel(false);
        let queue = Queue { node, items: sender, flushing: Arc::new(flushing) };
        (EventRecorder(Some(queue)), EventQueue { items, flushing: flush_requested })
    }

    /// Something about this node. `names`: reason and action of the Event.
    pub fn node_event(&self, event_type: EventType, names: [&'static str; 2], note: &str) {
        if let Some(queue) = &self.0 {
            let node = NamespacedName::new("", queue.node.as_str());
            self.send(ApiEvent::of_node(Kind::Node, node, event_type, names, note));
        }
    }

    /// Something that went wrong with a Service on this node.
    pub fn service_event(&self, service: &NamespacedName, names: [&'static str; 2], note: &str) {
        self.send(ApiEvent::of_node(Kind::Service, service.clone(), EventType::Warning, names, note));
    }

    /// What is wrong with a Service on every node alike, in sentences. Of all nodes, one makes the Event.
    pub fn shared_service_event(
        &self,
        service: &NamespacedName,
        names: [&'static str; 2],
        sentences: Vec<String>,
    ) {
        let (service, note) = (service.clone(), join_note(sentences));
        self.send(ApiEvent::of_cluster(Kind::Service, service, EventType::Warning, names, note));
    }

    /// Takes a event, or loses it if too many wait.
    pub(in crate::source) fn send(&self, event: ApiEvent) {
        if let Some(queue) = &self.0
            && let Err(TrySendError::Full(item)) = queue.items.try_send(Item::Event(Box::new(event)))
        {
            tracing::debug!(?item, "too many Events wait; this one is not created");
        }
    }

    /// Waits until all are done, without their random waits, so long at most.
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

/// Makes Events of events until nobody has any more.
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
            Item::Flush(all) => {
                // Who waited may have lost limit.
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
            let error = match create(&connection, &mut event, reporter.node).await {
                Ok(()) => None,
                // It is there: another node was first, or this one was before it started anew.
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
                tracing::debug!("Events cannot be created: {error}{hint}");
            }
            if !is_retryable(&error) {
                break;
            }
        }
    }
}

async fn create(connection: &Connection, event: &mut ApiEvent, node: Name) -> Result<(), RequestError> {
    if event.version.uid.is_empty() {
        // Without it, `kubectl describe` does not show the Event; but it is better than none.
        event.version.uid = uid(connection, &event.regarding).await.unwrap_or_default();
    }
    let body = event.to_json(node, Timestamp::now()).to_string();
    let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", event.namespace());
    let request = http::Request::post(path)
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(body.into_bytes()))
        .map_err(|error| {
            RequestError::Malformed(format!("{} is no namespace: {error}", event.namespace()))
        })?;
    send_request(&connection.client().await?, request, RESPONSE_TIMEOUT).await.map(drop)
}

/// The UID of an object of which only the name is known. It is listed, which we may, not got.
async fn uid(connection: &Connection, object: &ObjectKey) -> Option<String> {
    let ObjectKey { kind, name } = object;
    let mut fields = format!("metadata.name={}", name.name);
    if kind.namespaced() {
        fields.push_str(&format!(",metadata.namespace={}", name.namespace));
    }
    let selection = Selection { fields: Some(fields), ..Selection::all(*kind) };
    let request = http_request(&selection, Request::Page { next: None, size: 1 });
    let response = send_request(&connection.client().await.ok()?, request, RESPONSE_TIMEOUT).await.ok()?;
    let list: Value = serde_json::from_slice(&response.whole(RESPONSE_TIMEOUT, || {}).await.ok()?).ok()?;
    let uid = ObjectVersion::of(list.pointer("/items/0")?).uid;
    (!uid.is_empty()).then_some(uid)
}

/// Whether the same request may do later.
fn is_retryable(error: &RequestError) -> bool {
    match error {
        RequestError::Rejected(no) => matches!(no.code, 401 | 429 | 500..),
        RequestError::Unreachable(_) | RequestError::Disconnected(_) | RequestError::TimedOut(_) => true,
        RequestError::Access(_) | RequestError::Malformed(_) | RequestError::ReceiverClosed => false,
    }
}

fn hint(error: &RequestError) -> &'static str {
    match error {
        RequestError::Rejected(StatusError { code: 403, .. }) => {
            "; allow our user to create events (API group \"events.k8s.io\")"
        }
        _ => "",
    }
}
