//! Traffic events: packets that policies or source ranges drop, and new and ended connections, while observers are connected.
//!
//! ```text
//! observer ── /v1/observe ──► Hub ── switch ──► controllers: rules with `log group`, only while drops are observed
//!    ▲                         │
//!    └── lines of JSON ── names, filter ◄── batches ── readers: NFLOG, conntrack events
//! ```
//! Nothing is read, and no rule logs, while there is no observer. Each queue is bounded, and what does not fit is counted and
//! reported.

mod document;
mod filter;
mod hub;
mod label_filter;
mod losses;
mod names;
mod naming;
mod notices;
mod observer;
mod raw_event;
mod reader;
mod switch;
#[cfg(test)]
pub(crate) mod test_events;
mod unmatched_filter;
mod without_daemon;

use portcullis_cluster::Name;
use tokio::sync::{mpsc, oneshot};

pub(crate) use document::*;
pub(crate) use filter::{EventFilter, FilterError, PeerFilter};
pub(crate) use observer::ObserverLines;
pub(crate) use switch::{ControllerEnds, DropLogRequests};
pub(crate) use without_daemon::ConnectionLines;

use crate::control::{Queries, Wake};
use crate::observe::metrics::TrafficEventMetrics;
use hub::{Hub, Subscription};

/// The number of requests to observe that may wait.
const SUBSCRIPTIONS: usize = 4;

/// A handle of the hub. All clones belong to the same hub.
#[derive(Clone, Debug)]
pub(crate) struct TrafficEvents(mpsc::Sender<Subscription>);

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("filter", &self.filter).finish_non_exhaustive()
    }
}

impl TrafficEvents {
    /// Starts the hub, and returns the ends of the controllers of the loop that `wake` wakes up.
    pub(crate) fn start(
        node: Name,
        has_policies: bool,
        queries: Queries,
        metrics: TrafficEventMetrics,
        wake: &Wake,
    ) -> (Self, ControllerEnds) {
        let (switch, ends) = switch::Switch::new(has_policies, wake);
        let (sender, subscriptions) = mpsc::channel(SUBSCRIPTIONS);
        tokio::spawn(Hub::new(node, switch, queries, metrics).run(subscriptions));
        (TrafficEvents(sender), ends)
    }

    /// Returns a way to a hub that has ended.
    #[cfg(test)]
    pub(crate) fn without_hub() -> Self {
        TrafficEvents(mpsc::channel(1).0)
    }

    /// Starts an observation.
    ///
    /// # Errors
    /// A message why nothing can be observed.
    pub(crate) async fn observe(&self, filter: EventFilter) -> Result<ObserverLines, String> {
        const STOPPED: &str = "the daemon is shutting down";
        let (response, responded) = oneshot::channel();
        self.0.send(Subscription { filter, response }).await.map_err(|_| STOPPED.to_owned())?;
        responded.await.map_err(|_| STOPPED.to_owned())?
    }
}
