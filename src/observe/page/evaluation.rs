//! Evaluations of the whole cluster, for the matrix and for explanations.
//!
//! They compile the policies of all pods, not only of this node's, which takes long in a large cluster. So they run on a thread,
//! one at a time, with a copy of the index; the loop only makes the copy. Objects are slim, and the copy lives as long as the
//! evaluation.

use std::sync::Arc;
use std::time::Duration;

use portcullis_cluster::{Index, Kind};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::config::Config;
use crate::control::{Queries, QueryError};
use crate::memory;

/// The time that a request waits for the loop.
const LOOP_LIMIT: Duration = Duration::from_secs(2);

/// The time that a request waits for another evaluation.
const QUEUE_LIMIT: Duration = Duration::from_secs(10);

/// The number of objects above which freed memory is released to the kernel afterwards.
const MANY: usize = 10_000;

/// Runs evaluations. Clones share the limit.
#[derive(Clone)]
pub(super) struct Evaluations {
    config: Arc<Config>,
    queries: Queries,
    permits: Arc<Semaphore>,
}

/// Why there is no evaluation.
#[derive(Debug, thiserror::Error)]
pub(super) enum EvaluationError {
    #[error("{0}")]
    Loop(#[from] QueryError),
    #[error("Other requests are being evaluated, one at a time. Try again in a few seconds.")]
    Busy,
    #[error("The evaluation ended early; the log of the daemon has the reason.")]
    Panicked,
}

/// What the daemon knows of the cluster.
pub(super) struct KnownCluster {
    pub(super) index: Index,
    /// All objects that the controllers require are listed.
    pub(super) is_ready: bool,
}

impl KnownCluster {
    /// Returns true if the daemon watches pods and policies; it does to enforce policies.
    pub(super) fn has_policies(&self) -> bool {
        self.index.is_listed(Kind::NetworkPolicy) && self.index.is_listed(Kind::Pod)
    }
}

impl Evaluations {
    pub(super) fn new(config: Config, queries: Queries) -> Self {
        Evaluations { config: Arc::new(config), queries, permits: Arc::new(Semaphore::new(1)) }
    }

    /// Runs a function with the configuration and what is known of the cluster.
    ///
    /// # Errors
    /// [`EvaluationError`]
    pub(super) async fn run<T: Send + 'static>(
        &self,
        evaluate: impl FnOnce(&Config, &KnownCluster) -> T + Send + 'static,
    ) -> Result<T, EvaluationError> {
        let permit = timeout(QUEUE_LIMIT, Arc::clone(&self.permits).acquire_owned()).await;
        let permit = permit.ok().and_then(Result::ok).ok_or(EvaluationError::Busy)?;
        let copy = self.queries.ask(LOOP_LIMIT, |state| {
            Some(KnownCluster { index: state.index.clone(), is_ready: state.is_ready })
        });
        let cluster = copy.await?;
        let config = Arc::clone(&self.config);
        let work = move || {
            // The next evaluation starts when this one has ended, also if the client has gone.
            let _permit = permit;
            let result = evaluate(&config, &cluster);
            let is_large =
                [Kind::Pod, Kind::EndpointSlice].iter().any(|kind| cluster.index.count(*kind) > MANY);
            drop(cluster);
            if is_large {
                memory::release();
            }
            result
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| EvaluationError::Panicked)
    }
}
