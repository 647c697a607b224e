//! Sources: where the objects come from. Both turn the outside into [`cluster::Event`]s.
//!
//! ```text
//! API server ── api::follow (one task a kind) ──┐
//!                                               ├── Vec<Event> ──► one bounded channel ──► the loop
//! manifests ─── manifests (one task) ───────────┘
//! ```
//!
//! A source never gives up: what fails is logged, shown in its [`Health`] and tried again. A full channel
//! makes it wait, so that memory follows the objects that are kept, not those that arrive.
//!
//! [`cluster::Event`]: portcullis_cluster::Event

pub mod access;
pub mod api;
mod backoff;
mod credential_files;
pub mod health;
pub mod manifests;
mod report;
mod reported;
pub mod selection;
pub(crate) mod unenforced;

use std::path::PathBuf;
use std::sync::Arc;

use portcullis_cluster::{Event, Kind};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use access::{Access, AccessError};
pub(crate) use api::START;
pub use api::{Pace, Recorder, Reporter, SILENCE_LIMIT, Severity};
pub use health::{Health, KindStatus};
pub use manifests::{Manifests, PathError, check_path, read_manifests};
pub use selection::Selection;

/// Where objects come from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// The API server.
    ApiServer {
        /// How to reach it, and as whom.
        access: Access,
        /// Which objects to ask for.
        selections: Vec<Selection>,
        /// Page sizes and times.
        pace: Pace,
    },
    /// A file or a folder of manifests. Gives all kinds.
    Manifests {
        /// The file or folder.
        path: PathBuf,
    },
}

/// A running source. Dropping it ends its tasks.
#[derive(Debug)]
pub struct Source {
    health: Arc<Health>,
    recorder: Recorder,
    tasks: JoinSet<()>,
}

impl Source {
    /// How it fares, kind by kind.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Takes what the API server should be told of; deaf unless the source is one, and was spawned to report.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Ends its tasks, and returns when they have ended.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Starts a source that sends what it learns into `sink`, in batches that are never empty. The source ends
/// when the channel's receiver is gone.
///
/// # Errors
/// The kubeconfig cannot be read or makes no sense. A server that does not answer is no error here: the
/// source tries again, and says so.
pub async fn spawn(origin: Origin, sink: mpsc::Sender<Vec<Event>>) -> Result<Source, AccessError> {
    spawn_reporting(origin, sink, None).await
}

/// The same, and where an API server is the source, `reporter` tells it as Events what is wrong with policies,
/// and what its recorder is told.
///
/// # Errors
/// As [`spawn`].
pub async fn spawn_reporting(
    origin: Origin,
    sink: mpsc::Sender<Vec<Event>>,
    reporter: Option<Reporter>,
) -> Result<Source, AccessError> {
    let mut tasks = JoinSet::new();
    let (health, recorder) = match origin {
        Origin::ApiServer { access, selections, pace } => {
            let health = Arc::new(Health::new(selections.iter().map(|selection| selection.kind)));
            let connection = Arc::new(access::Connection::open(access).await?);
            let recorder = reporter.map_or_else(Recorder::deaf, |reporter| {
                let (recorder, outlet) = Recorder::channel(reporter.node);
                tasks.spawn(api::publish(outlet, connection.clone(), reporter));
                recorder
            });
            if selections.iter().any(|selection| selection.kind == Kind::ClusterNetworkPolicy) {
                tasks.spawn(api::warn_of_unenforced(connection.clone(), recorder.clone()));
            }
            for selection in selections {
                tasks.spawn(api::follow(
                    selection,
                    connection.clone(),
                    pace.clone(),
                    health.clone(),
                    sink.clone(),
                    recorder.clone(),
                ));
            }
            (health, recorder)
        }
        Origin::Manifests { path } => {
            let health = Arc::new(Health::new(Kind::ALL));
            tasks.spawn(manifests::follow(path, health.clone(), sink));
            (health, Recorder::deaf())
        }
    };
    Ok(Source { health, recorder, tasks })
}
