//! Sources: where the objects come from. Both turn the outside into [`cluster::Event`]s.
//!
//! ```text
//! API server ── api::follow (one task a kind) ──┐
//!                                               ├── Vec<Event> ──► one bounded channel ──► the loop
//! manifests ─── manifests (one task) ───────────┘
//! ```
//!
//! A source never gives up: what fails is logged, shown in its [`SourceHealth`] and tried again. A full channel
//! makes it wait, so that memory follows the objects that are kept, not those that arrive.
//!
//! [`cluster::Event`]: portcullis_cluster::Event

pub mod access;
pub mod api;
mod backoff;
mod credential_files;
pub mod manifests;
mod object_reader;
mod reported_problems;
pub mod selection;
pub mod source_health;
pub(crate) mod unsupported_policies;

use std::path::PathBuf;
use std::sync::Arc;

use portcullis_cluster::{Event, Kind};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use access::{Access, AccessError};
pub(crate) use api::START;
pub use api::{EventRecorder, EventReporter, EventType, ListWatchOptions, SILENCE_LIMIT};
pub use manifests::{Manifests, PathError, check_path, read_manifests};
pub use selection::Selection;
pub use source_health::{KindStatus, SourceHealth};

/// Where objects come from.
#[derive(Clone, Debug)]
pub enum SourceConfig {
    /// The API server.
    ApiServer {
        /// How to reach it, and as whom.
        access: Access,
        /// Which objects to ask for.
        selections: Vec<Selection>,
        /// Page sizes and times.
        options: ListWatchOptions,
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
    health: Arc<SourceHealth>,
    recorder: EventRecorder,
    tasks: JoinSet<()>,
}

impl Source {
    /// How it fares, kind by kind.
    pub fn health(&self) -> &Arc<SourceHealth> {
        &self.health
    }

    /// Takes what the API server should be told of; deaf unless the source is one, and was spawned to report.
    pub fn recorder(&self) -> &EventRecorder {
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
pub async fn spawn(origin: SourceConfig, sink: mpsc::Sender<Vec<Event>>) -> Result<Source, AccessError> {
    spawn_with_events(origin, sink, None).await
}

/// The same, and where an API server is the source, `reporter` tells it as Events what is wrong with policies,
/// and what its recorder is told.
///
/// # Errors
/// As [`spawn`].
pub async fn spawn_with_events(
    origin: SourceConfig,
    sink: mpsc::Sender<Vec<Event>>,
    reporter: Option<EventReporter>,
) -> Result<Source, AccessError> {
    let mut tasks = JoinSet::new();
    let (health, recorder) = match origin {
        SourceConfig::ApiServer { access, selections, options } => {
            let health = Arc::new(SourceHealth::new(selections.iter().map(|selection| selection.kind)));
            let connection = Arc::new(access::Connection::open(access).await?);
            let recorder = reporter.map_or_else(EventRecorder::disabled, |reporter| {
                let (recorder, queue) = EventRecorder::channel(reporter.node);
                tasks.spawn(api::publish(queue, connection.clone(), reporter));
                recorder
            });
            if selections.iter().any(|selection| selection.kind == Kind::ClusterNetworkPolicy) {
                tasks.spawn(api::warn_of_superseded_policies(connection.clone(), recorder.clone()));
            }
            for selection in selections {
                tasks.spawn(api::reflect(
                    selection,
                    connection.clone(),
                    options.clone(),
                    health.clone(),
                    sink.clone(),
                    recorder.clone(),
                ));
            }
            (health, recorder)
        }
        SourceConfig::Manifests { path } => {
            let health = Arc::new(SourceHealth::new(Kind::ALL));
            tasks.spawn(manifests::follow(path, health.clone(), sink));
            (health, EventRecorder::disabled())
        }
    };
    Ok(Source { health, recorder, tasks })
}
