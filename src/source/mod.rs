//! Sources of cluster objects: the API server and manifests. Both produce [`cluster::Event`]s.
//!
//! ```text
//! API server ── api::reflect (one task per kind) ─┐
//!                                               ├── Vec<Event> ──► one bounded channel ──► the loop
//! manifests ─── manifests (one task) ───────────┘
//! ```
//!
//! A source retries for ever: errors are logged, shown in its [`SourceHealth`] and retried. A full channel makes it wait, so
//! that memory depends on the objects that are kept, not on those that arrive.
//!
//! [`cluster::Event`]: portcullis_cluster::Event

pub mod access;
pub mod api;
pub mod connection;
mod credential_files;
mod exec_plugin;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod jitter;
mod kubectl_files;
pub mod manifests;
mod object_reader;
mod reported_problems;
pub mod selection;
pub mod source_health;
mod unreadable_objects;
pub(crate) mod unsupported_policies;

use std::path::PathBuf;
use std::sync::Arc;

use portcullis_cluster::{Event, Kind};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use access::{Access, AccessError};
#[cfg(test)]
pub(crate) use api::EventQueue;
pub use api::{EventRecorder, EventReporter, EventType, ListWatchOptions, SILENCE_LIMIT};
pub(crate) use api::{START, join_note};
pub use kubectl_files::KubectlFiles;
pub(crate) use manifests::read_manifest_file;
pub use manifests::{FileErrors, Manifests, PathError, check_path, read_manifests};
pub use selection::Selection;
pub use source_health::{KindStatus, SourceHealth};
pub use unreadable_objects::UnreadableObjects;

/// The kind of source, and its settings.
#[derive(Clone, Debug)]
pub enum SourceConfig {
    /// The API server.
    ApiServer {
        /// Its address and credentials.
        access: Access,
        /// The objects to request.
        selections: Vec<Selection>,
        /// Page size and times.
        options: ListWatchOptions,
    },
    /// A file or folder of manifests, which has all kinds.
    Manifests {
        /// The file or folder.
        path: PathBuf,
    },
}

/// A running source. Dropping it aborts its tasks.
#[derive(Debug)]
pub struct Source {
    health: Arc<SourceHealth>,
    recorder: EventRecorder,
    tasks: JoinSet<()>,
}

impl Source {
    /// Returns its health.
    pub fn health(&self) -> &Arc<SourceHealth> {
        &self.health
    }

    /// Returns the recorder of Events; disabled unless the source is an API server and was given a reporter.
    pub fn recorder(&self) -> &EventRecorder {
        &self.recorder
    }

    /// Aborts its tasks, and returns when they have ended.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Starts a source that sends events into `sink`, in batches that are never empty. The source ends when the receiver is
/// dropped.
///
/// # Errors
/// The kubeconfig cannot be read or is invalid. A server that does not respond is no error: the source retries.
pub async fn spawn(origin: SourceConfig, sink: mpsc::Sender<Vec<Event>>) -> Result<Source, AccessError> {
    spawn_with_events(origin, sink, None).await
}

/// The same, and with an API server as the source, `reporter` creates Events about invalid policies and those of the
/// recorder.
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
            let connection = Arc::new(connection::Connection::open(access).await?);
            let of_credentials = health.clone();
            tasks.spawn(
                connection
                    .clone()
                    .keep_credential_fresh(move |problem| of_credentials.set_credentials_problem(problem)),
            );
            let recorder = reporter.map_or_else(EventRecorder::disabled, |reporter| {
                let (recorder, queue) = EventRecorder::channel(reporter.node.clone());
                tasks.spawn(api::publish(queue, connection.clone(), reporter));
                recorder
            });
            if selections.iter().any(|selection| selection.kind == Kind::ClusterNetworkPolicy) {
                tasks.spawn(api::warn_of_superseded_policies(connection.clone(), recorder.clone()));
            }
            // The same for all kinds: nothing is written before all are listed.
            let first_list = options.list_jitter.mul_f64(jitter::random());
            for selection in selections {
                tasks.spawn(api::reflect(
                    selection,
                    connection.clone(),
                    options.clone(),
                    health.clone(),
                    sink.clone(),
                    recorder.clone(),
                    first_list,
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
