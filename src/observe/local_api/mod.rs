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
mod kernel_status;
mod pod_network;
mod policies;
mod router;
mod server;
mod services;
mod socket;
mod source_entries;
mod status;
mod sync_entries;
#[cfg(test)]
mod tests;
mod timeline;

use std::sync::Arc;
use std::time::Duration;

use portcullis_cluster::{Family, Name};
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub(crate) use router::router;
pub(crate) use server::LocalApiServer;
pub(crate) use services::ServicesError;
pub(crate) use timeline::{Since, Timeline};

use self::documents::{StatusDocument, TimelineDocument};
use self::kernel_status::KernelStatus;
use super::health::Health;
use super::policy_drops::PolicyDrops;
use super::reported_statuses::ReportedStatuses;
use super::traffic_events::TrafficEvents;
use crate::config::Config;
use crate::control::Queries;
use crate::moment::Moment;
use crate::other_proxies::RunningProxy;
use crate::source::{EventRecorder, SourceHealth};

/// The time that `status` waits for the loop and for the kernel.
const STATUS_LIMIT: Duration = Duration::from_secs(1);

/// The time that other documents wait for the loop, or for the end of a sync.
const QUERY_LIMIT: Duration = Duration::from_secs(10);

/// The number of threads that read the kernel for requests.
const KERNEL_READS: usize = 2;

/// What requests read. Clones share it.
#[derive(Clone)]
pub(crate) struct LocalApi(Arc<Inner>);

struct Inner {
    facts: DaemonFacts,
    sources: ApiSources,
    status_limit: Duration,
    query_limit: Duration,
    /// Threads that read the kernel.
    kernel_reads: Arc<Semaphore>,
}

impl Inner {
    fn new(facts: DaemonFacts, sources: ApiSources, status_limit: Duration, query_limit: Duration) -> Self {
        let kernel_reads = Arc::new(Semaphore::new(KERNEL_READS));
        Inner { facts, sources, status_limit, query_limit, kernel_reads }
    }
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
    /// The hub of traffic events.
    pub(crate) events: TrafficEvents,
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
        LocalApi(Arc::new(Inner::new(facts, sources, STATUS_LIMIT, QUERY_LIMIT)))
    }

    /// Returns the facts that do not change.
    pub(crate) fn facts(&self) -> &DaemonFacts {
        &self.0.facts
    }

    /// Returns the sender of queries to the loop.
    pub(crate) fn queries(&self) -> &Queries {
        &self.0.sources.queries
    }

    /// Returns the hub of traffic events.
    pub(crate) fn events(&self) -> &TrafficEvents {
        &self.0.sources.events
    }

    /// Returns the state of the daemon.
    pub(crate) async fn status(&self) -> StatusDocument {
        let cluster = self.queries().ask(self.0.status_limit, cluster_status::read);
        let (cluster, kernel) = tokio::join!(cluster, timeout(self.0.status_limit, self.kernel_status()));
        let kernel = kernel.ok().flatten().unwrap_or_default();
        status::document(self, cluster, kernel, Moment::now())
    }

    /// Reads the kernel on a thread. Threads that hang in the kernel are not joined by more than a few.
    async fn kernel_status(&self) -> Option<KernelStatus> {
        let permit = Arc::clone(&self.0.kernel_reads).acquire_owned().await.ok()?;
        let drops = self.facts().config.network_policy.map(|_| self.0.sources.drops.clone());
        let addresses = pod_network::address_source(&self.0.sources.reported.get().statuses);
        let read = move || {
            let status = KernelStatus::read(drops.as_ref(), addresses);
            drop(permit);
            status
        };
        tokio::task::spawn_blocking(read).await.ok()
    }

    /// Returns the last `limit` entries of the timeline since a number or time.
    pub(crate) fn timeline(&self, since: Since, limit: usize) -> TimelineDocument {
        self.0.sources.timeline.document(since, limit, Moment::now())
    }
}
