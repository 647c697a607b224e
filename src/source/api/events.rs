//! Tells the API server what is wrong with policies, as Events.
//!
//! A complaint never holds anything up and may get lost; the log has them all. A thousand nodes see the same policy at
//! the same moment, so each waits a random time first, and the Event's name is the same on all of them: one makes it,
//! the others hear that it is there.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use kube::client::Body;
use portcullis_cluster::Name;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::answer::ask;
use super::complaint::Complaint;
use super::failure::{Failure, Refusal};
use crate::source::access::Connection;
use crate::source::backoff::random;

/// Complaints that may wait.
const WAITING: usize = 64;

/// How often one is tried.
const TRIES: usize = 3;

/// Events that are remembered, so that they are not made twice.
const REMEMBERED: usize = 1024;

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who reports what is wrong with policies, and at what pace.
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

/// Takes complaints.
#[derive(Clone, Debug)]
pub(in crate::source) struct Complaints(Sender<Complaint>);

impl Complaints {
    /// Where complaints go in, and where they come out.
    pub(in crate::source) fn channel() -> (Self, Receiver<Complaint>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Complaints(sender), receiver)
    }

    /// Takes one, or loses it if too many wait.
    pub(in crate::source) fn tell(&self, complaint: Complaint) {
        if let Err(TrySendError::Full(complaint)) = self.0.try_send(complaint) {
            tracing::debug!(event = complaint.name(), "too many Events wait; this one is not made");
        }
    }
}

/// Makes Events of complaints until nobody has any more.
pub(in crate::source) async fn publish(
    mut complaints: Receiver<Complaint>,
    connection: Arc<Connection>,
    reporter: Reporter,
) {
    let mut made = HashSet::new();
    let mut said = false;
    while let Some(complaint) = complaints.recv().await {
        if made.contains(&complaint.name()) {
            continue;
        }
        for _ in 0..TRIES {
            tokio::time::sleep(reporter.spread.mul_f64(random())).await;
            let failure = match create(&connection, &complaint, reporter.node).await {
                Ok(()) => None,
                // It is there: another node was first, or this one was before it started anew.
                Err(Failure::Refused(Refusal { code: 409, .. })) => None,
                Err(failure) => Some(failure),
            };
            let Some(failure) = failure else {
                if made.len() == REMEMBERED {
                    made.clear();
                }
                made.insert(complaint.name());
                break;
            };
            if !std::mem::replace(&mut said, true) {
                let way_out = way_out(&failure);
                tracing::debug!("Events about policies cannot be made: {failure}{way_out}");
            }
            if !is_worth_another_try(&failure) {
                break;
            }
        }
    }
}

async fn create(connection: &Connection, complaint: &Complaint, node: Name) -> Result<(), Failure> {
    let event = complaint.event(node, Timestamp::now()).to_string();
    let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", complaint.namespace());
    let request = http::Request::post(path)
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(event.into_bytes()))
        .map_err(|error| Failure::Garbage(format!("{} is no namespace: {error}", complaint.namespace())))?;
    ask(&connection.client().await?, request, PATIENCE).await.map(drop)
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
