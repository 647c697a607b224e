//! The local API: documents about the running daemon in JSON, over HTTP/1.1 on a Unix socket.
//!
//! ```text
//! loop ── reports ──► ReportedStatuses, Timeline ─┐
//! loop ◄── Queries: index, Desired, policies ─────┤
//! source, health, kernel ─────────────────────────┴─► LocalApi ─► documents ─► router ─► socket ◄── portcullis status …
//! ```
//!
//! Each document is computed for the request from what the daemon has anyway. Nothing that a request does changes its state. A
//! document does not wait for a loop that hangs: what only the loop knows is missing then, and the document says so.

mod cluster_status;
pub(crate) mod documents;
mod router;
mod server;
mod socket;
mod source_entries;
mod status;
mod sync_entries;
mod timeline;

use std::sync::Arc;
use std::time::Duration;

use portcullis_cluster::{Family, Name};

pub(crate) use router::router;
pub(crate) use server::LocalApiServer;
pub(crate) use timeline::{Since, Timeline};

use self::documents::{StatusDocument, TimelineDocument};
use super::health::Health;
use super::policy_drops::PolicyDrops;
use super::reported_statuses::ReportedStatuses;
use crate::config::Config;
use crate::control::Queries;
use crate::moment::Moment;
use crate::other_proxies::RunningProxy;
use crate::source::{EventRecorder, SourceHealth};

/// The time that `status` waits for the loop.
const STATUS_LIMIT: Duration = Duration::from_secs(1);

/// What requests read. Clones share it.
#[derive(Clone)]
pub(crate) struct LocalApi(Arc<Inner>);

struct Inner {
    facts: DaemonFacts,
    sources: ApiSources,
    status_limit: Duration,
}

/// Facts that do not change while the daemon runs.
pub(crate) struct DaemonFacts {
    /// The configuration.
    pub(crate) config: Config,
    /// The name of this node.
    pub(crate) node: Name,
    /// The IP families of Services.
    pub(crate) families: Vec<Family>,
    /// When the daemon started.
    pub(crate) started: Moment,
    /// The other proxies that responded at the start.
    pub(crate) other_proxies: Vec<RunningProxy>,
}

/// The parts of the daemon that requests read.
pub(crate) struct ApiSources {
    /// The loop.
    pub(crate) queries: Queries,
    /// The health, as the health server serves it.
    pub(crate) health: Arc<Health>,
    /// The statuses of the controllers.
    pub(crate) reported: ReportedStatuses,
    /// What happened recently.
    pub(crate) timeline: Timeline,
    /// The health of the source.
    pub(crate) source: Arc<SourceHealth>,
    /// The drop counters.
    pub(crate) drops: PolicyDrops,
    /// The recorder of Events.
    pub(crate) recorder: EventRecorder,
}

impl LocalApi {
    /// Creates the local API of a daemon.
    pub(crate) fn new(facts: DaemonFacts, sources: ApiSources) -> Self {
        LocalApi(Arc::new(Inner { facts, sources, status_limit: STATUS_LIMIT }))
    }

    /// Returns the facts that do not change.
    pub(crate) fn facts(&self) -> &DaemonFacts {
        &self.0.facts
    }

    /// Returns the sender of queries to the loop.
    pub(crate) fn queries(&self) -> &Queries {
        &self.0.sources.queries
    }

    /// Returns the state of the daemon.
    pub(crate) async fn status(&self) -> StatusDocument {
        let cluster = self.queries().ask(self.0.status_limit, cluster_status::read).await;
        let drops = match self.facts().config.network_policy {
            Some(_) => {
                let drops = self.0.sources.drops.clone();
                tokio::task::spawn_blocking(move || drops.totals().ok()).await.ok().flatten()
            }
            None => None,
        };
        status::document(self, cluster, drops, Moment::now())
    }

    /// Returns the last `limit` entries of the timeline since a number or time.
    pub(crate) fn timeline(&self, since: Since, limit: usize) -> TimelineDocument {
        self.0.sources.timeline.document(since, limit, Moment::now())
    }
}
