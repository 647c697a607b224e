//! Queries: requests that read the state of the daemon on the loop, between two of its iterations.
//!
//! Nothing is copied or kept up to date for queries. A query reads the index and the desired Services where they
//! are, and returns what it needs of them. While the loop runs a query it does nothing else, so a query computes
//! no more than one response needs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Index, NamespacedName};
use portcullis_policy::CompiledPolicies;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// The number of queries that may wait for the loop.
const CAPACITY: usize = 16;

/// The state of the daemon that queries read.
pub(crate) struct DaemonState<'a> {
    /// The objects of the cluster.
    pub(crate) index: &'a Index,
    /// All objects that the controllers require are listed. Before that, counts of objects mean nothing.
    pub(crate) is_ready: bool,
    /// The desired Services, also while a sync writes them.
    pub(crate) desired: Option<&'a Desired>,
    /// The compiled policies; `None` while a sync writes them, and if policies are not enforced.
    pub(crate) policies: Option<&'a CompiledPolicies>,
    /// The Services of which a change is not programmed yet.
    pub(crate) pending: Vec<&'a BTreeSet<NamespacedName>>,
    /// The health check node ports, if they are served.
    pub(crate) health_checks: Option<&'a dyn HealthCheckFailures>,
}

/// The health check node ports of Services. They belong to another task, so the queries that need them copy them.
pub(crate) trait HealthCheckFailures {
    /// Returns the Services whose port is not served, with the reason.
    fn failures(&self) -> BTreeMap<NamespacedName, String>;
}

impl<'a> DaemonState<'a> {
    /// Returns the state without that of controllers.
    pub(crate) fn new(index: &'a Index, is_ready: bool) -> Self {
        DaemonState {
            index,
            is_ready,
            desired: None,
            policies: None,
            pending: Vec::new(),
            health_checks: None,
        }
    }
}

/// A query, as the loop runs it.
pub(crate) struct Query(Box<dyn FnMut(&DaemonState<'_>) -> bool + Send>);

impl Query {
    /// Runs the query. Returns false if it is to be run again when a sync has ended.
    pub(crate) fn run(&mut self, state: &DaemonState<'_>) -> bool {
        (self.0)(state)
    }
}

/// Sends queries to the loop.
#[derive(Clone, Debug)]
pub(crate) struct Queries(mpsc::Sender<Query>);

/// Why a query has no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueryError {
    /// The loop hangs, or a sync holds what the query reads.
    #[error("the event loop of the daemon did not respond within {0:?}")]
    Timeout(Duration),
    /// The loop has ended.
    #[error("the daemon is shutting down")]
    Stopped,
}

impl Queries {
    /// Creates the sender, and the receiver for the loop.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Query>) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        (Queries(sender), receiver)
    }

    /// Runs `read` on the loop and returns its result. While `read` returns `None`, it is run again each time that a sync has
    /// ended, until `limit` has passed.
    ///
    /// # Errors
    /// [`QueryError`]
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        limit: Duration,
        mut read: impl FnMut(&DaemonState<'_>) -> Option<T> + Send + 'static,
    ) -> Result<T, QueryError> {
        let (sender, response) = oneshot::channel();
        let mut sender = Some(sender);
        let run = move |state: &DaemonState<'_>| {
            // The requester may have stopped waiting.
            if sender.as_ref().is_none_or(oneshot::Sender::is_closed) {
                return true;
            }
            let Some(result) = read(state) else { return false };
            if let Some(sender) = sender.take() {
                let _ = sender.send(result);
            }
            true
        };
        let answered = async {
            self.0.send(Query(Box::new(run))).await.map_err(|_| QueryError::Stopped)?;
            response.await.map_err(|_| QueryError::Stopped)
        };
        timeout(limit, answered).await.unwrap_or(Err(QueryError::Timeout(limit)))
    }
}
