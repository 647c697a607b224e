//! Tells the API server what people should know, as Events.
//!
//! A notice never holds anything up and may get lost; the log has them all. A thousand nodes see the same policy at
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

use super::answer::ask;
use super::failure::{Failure, Refusal};
use super::notice::{Notice, Severity, Version, note};
use super::request::{Ask, request};
use crate::source::Selection;
use crate::source::access::Connection;
use crate::source::backoff::random;

/// The action of Events about the start, as upstream has it.
pub(crate) const START: &str = "StartKubeProxy";

/// Notices that may wait.
const WAITING: usize = 64;

/// How often one is tried.
const TRIES: usize = 3;

/// Events that are remembered, so that they are not made twice.
const REMEMBERED: usize = 1024;

/// How long an Event is remembered. API servers forget them after an hour (`--event-ttl`).
const MEMORY: Duration = Duration::from_hours(1);

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who reports, and at what pace.
#[derive(Clone, Debug)]
pub struct Reporter {
    /// This node.
    pub node: Name,
    /// Before each report there is a random wait of up to this long.
    pub spread: Duration,
}

impl Reporter {
    /// Reports for a node, at a pace that suits large clusters.
    pub fn new(node: Name) -> Self {
        Reporter { node, spread: Duration::from_secs(10) }
    }
}

/// Takes notices, from which Events become where there is an API server.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Option<Queue>);

#[derive(Clone, Debug)]
struct Queue {
    node: Name,
    items: mpsc::Sender<Item>,
    /// Whether somebody waits for all to be told.
    hurry: Arc<watch::Sender<bool>>,
}

#[derive(Debug)]
enum Item {
    Notice(Box<Notice>),
    /// All before it are told.
    Told(oneshot::Sender<()>),
}

/// Where what a [`Recorder`] takes comes out.
#[derive(Debug)]
pub(in crate::source) struct Outlet {
    items: mpsc::Receiver<Item>,
    hurry: watch::Receiver<bool>,
}

#[cfg(test)]
impl Outlet {
    /// Takes all that waits, and says how much that was.
    pub(in crate::source) fn drain(&mut self) -> usize {
        std::iter::from_fn(|| self.items.try_recv().ok()).count()
    }
}

impl Recorder {
    /// One for which nobody listens: what it is told is lost.
    pub fn deaf() -> Self {
        Recorder::default()
    }

    /// Where notices of a node go in, and where they come out.
    pub(in crate::source) fn channel(node: Name) -> (Self, Outlet) {
        let (sender, items) = mpsc::channel(WAITING);
        let (hurry, hurried) = watch::channel(false);
        let queue = Queue { node, items: sender, hurry: Arc::new(hurry) };
        (Recorder(Some(queue)), Outlet { items, hurry: hurried })
    }

    /// Something about this node. `names`: reason and action of the Event.
    pub fn of_node(&self, severity: Severity, names: [&'static str; 2], note: &str) {
        if let Some(queue) = &self.0 {
            let node = NamespacedName::new("", queue.node.as_str());
            self.tell(Notice::of_this_node(Kind::Node, node, severity, names, note));
        }
    }

    /// Something that went wrong with a Service on this node.
    pub fn of_service(&self, service: &NamespacedName, names: [&'static str; 2], note: &str) {
        self.tell(Notice::of_this_node(Kind::Service, service.clone(), Severity::Warning, names, note));
    }

    /// What is wrong with a Service on every node alike, in sentences. Of all nodes, one makes the Event.
    pub fn of_service_on_all_nodes(
        &self,
        service: &NamespacedName,
        names: [&'static str; 2],
        sentences: Vec<String>,
    ) {
        let (service, note) = (service.clone(), note(sentences));
        self.tell(Notice::of_any_node(Kind::Service, service, Severity::Warning, names, note));
    }

    /// Takes a notice, or loses it if too many wait.
    pub(in crate::source) fn tell(&self, notice: Notice) {
        if let Some(queue) = &self.0
            && let Err(TrySendError::Full(item)) = queue.items.try_send(Item::Notice(Box::new(notice)))
        {
            tracing::debug!(?item, "too many Events wait; this one is not made");
        }
    }

    /// Waits until all are told, without their random waits, so long at most.
    pub async fn flush(&self, patience: Duration) {
        let Some(queue) = &self.0 else { return };
        queue.hurry.send_replace(true);
        let (told, all_told) = oneshot::channel();
        let flushed = async {
            if queue.items.send(Item::Told(told)).await.is_ok() {
                let _gone = all_told.await;
            }
        };
        let _late = timeout(patience, flushed).await;
    }
}

/// Makes Events of notices until nobody has any more.
pub(in crate::source) async fn publish(outlet: Outlet, connection: Arc<Connection>, reporter: Reporter) {
    let Outlet { mut items, mut hurry } = outlet;
    let mut made: HashMap<String, Instant> = HashMap::new();
    let mut said = false;
    while let Some(item) = items.recv().await {
        let mut notice = match item {
            Item::Notice(notice) => notice,
            Item::Told(all) => {
                // Who waited may have lost patience.
                let _ = all.send(());
                continue;
            }
        };
        let identity = notice.identity();
        if made.get(&identity).is_some_and(|when| when.elapsed() < MEMORY) {
            continue;
        }
        for _ in 0..TRIES {
            tokio::select! {
                () = tokio::time::sleep(reporter.spread.mul_f64(random())) => {}
                _ = hurry.wait_for(|hurry| *hurry) => {}
            }
            let failure = match create(&connection, &mut notice, reporter.node).await {
                Ok(()) => None,
                // It is there: another node was first, or this one was before it started anew.
                Err(Failure::Refused(Refusal { code: 409, .. })) => None,
                Err(failure) => Some(failure),
            };
            let Some(failure) = failure else {
                if made.len() == REMEMBERED {
                    made.clear();
                }
                made.insert(identity, Instant::now());
                break;
            };
            if !std::mem::replace(&mut said, true) {
                let way_out = way_out(&failure);
                tracing::debug!("Events cannot be made: {failure}{way_out}");
            }
            if !is_worth_another_try(&failure) {
                break;
            }
        }
    }
}

async fn create(connection: &Connection, notice: &mut Notice, node: Name) -> Result<(), Failure> {
    if notice.version.uid.is_empty() {
        // Without it, `kubectl describe` does not show the Event; but it is better than none.
        notice.version.uid = uid(connection, &notice.regarding).await.unwrap_or_default();
    }
    let event = notice.event(node, Timestamp::now()).to_string();
    let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", notice.namespace());
    let request = http::Request::post(path)
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(event.into_bytes()))
        .map_err(|error| Failure::Garbage(format!("{} is no namespace: {error}", notice.namespace())))?;
    ask(&connection.client().await?, request, PATIENCE).await.map(drop)
}

/// The UID of an object of which only the name is known. It is listed, which we may, not got.
async fn uid(connection: &Connection, object: &ObjectKey) -> Option<String> {
    let ObjectKey { kind, name } = object;
    let mut fields = format!("metadata.name={}", name.name);
    if kind.namespaced() {
        fields.push_str(&format!(",metadata.namespace={}", name.namespace));
    }
    let selection = Selection { fields: Some(fields), ..Selection::all(*kind) };
    let request = request(&selection, Ask::Page { next: None, size: 1 });
    let answer = ask(&connection.client().await.ok()?, request, PATIENCE).await.ok()?;
    let list: Value = serde_json::from_slice(&answer.whole(PATIENCE, || {}).await.ok()?).ok()?;
    let uid = Version::of(list.pointer("/items/0")?).uid;
    (!uid.is_empty()).then_some(uid)
}

/// Whether the same request may do later.
fn is_worth_another_try(failure: &Failure) -> bool {
    match failure {
        Failure::Refused(no) => matches!(no.code, 401 | 429 | 500..),
        Failure::Unreachable(_) | Failure::Broken(_) | Failure::Silent(_) => true,
        Failure::Access(_) | Failure::Garbage(_) | Failure::NobodyListens => false,
    }
}

fn way_out(failure: &Failure) -> &'static str {
    match failure {
        Failure::Refused(Refusal { code: 403, .. }) => {
            "; allow our user to create events (API group \"events.k8s.io\")"
        }
        _ => "",
    }
}
