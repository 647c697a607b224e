//! The source that lists and watches the objects of an API server.
//!
//! ```text
//!                  rejected                       410, malformed, two idle watches
//! StreamingList ─────────────► PagedList ─► …        ┌───────────┐
//!       │      (no WatchList support)                ▼           │
//!       └───────────────────────────┴─────────────► Watch ───────┴──► StreamingList
//! ```
//!
//! The state machine is `list_watch::ListWatch`: each step is one request, and the transition after an error is a pure
//! function (`ListWatch::after`). The other modules do the I/O.

mod api_event;
mod event_budget;
mod event_recorder;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
pub(super) mod invalid_policy;
mod limits;
mod line_splitter;
mod list_page;
mod list_splitter;
mod list_watch;
mod node_condition;
mod reflector;
mod request;
mod request_error;
mod response;
mod superseded_policies;
mod watch_stream;

use std::ops::Range;
use std::time::Duration;

pub use api_event::EventType;
pub(crate) use api_event::join_note;
pub(super) use api_event::{ApiEvent, ObjectVersion};
#[cfg(test)]
pub(crate) use event_recorder::EventQueue;
pub(crate) use event_recorder::START;
pub(super) use event_recorder::publish;
pub use event_recorder::{EventRecorder, EventReporter};
pub(super) use reflector::run as reflect;
pub(super) use superseded_policies::watch as warn_of_superseded_policies;

/// Page size and times of lists and watches. The default suits clusters; tests use shorter times.
#[derive(Clone, Debug, PartialEq)]
pub struct ListWatchOptions {
    /// Objects in a page of a list. Small pages keep memory small: 10,000 slices of 100 endpoints took
    /// 36 MB in pages of 50, 123 MB in pages of 500.
    pub page_size: u32,
    /// The longest wait for the head of a response, and for the next bytes of a list.
    pub response_timeout: Duration,
    /// The time without data after which a watch is taken for dead. The server sends a bookmark a minute.
    pub idle_timeout: Duration,
    /// The `timeoutSeconds` of a watch, chosen at random in this range so that the watches of a cluster do not end
    /// together. client-go has 5 to 10 minutes.
    pub watch_duration: Range<Duration>,
    /// The wait after the first error; waits double. client-go has 800 ms.
    pub initial_backoff: Duration,
    /// The longest wait. client-go has 30 s.
    pub max_backoff: Duration,
    /// The longest random wait before a full list, at the start and when a watch cannot be continued.
    pub list_jitter: Duration,
}

impl Default for ListWatchOptions {
    fn default() -> Self {
        ListWatchOptions {
            page_size: 50,
            response_timeout: Duration::from_secs(90),
            idle_timeout: Duration::from_secs(200),
            watch_duration: Duration::from_mins(5)..Duration::from_mins(10),
            initial_backoff: Duration::from_millis(800),
            max_backoff: Duration::from_secs(30),
            list_jitter: Duration::ZERO,
        }
    }
}

/// The time without a response, watch event or bookmark of a kind after which health reports the API server as silent. It is
/// longer than [`ListWatchOptions::max_contact_gap`], so that a server that works is not reported.
pub const SILENCE_LIMIT: Duration = Duration::from_mins(5);

impl ListWatchOptions {
    /// Returns the longest wait between two requests for a kind that the server does not serve. It is short, so that a
    /// CustomResourceDefinition that is installed later is found within seconds.
    pub fn unserved_retry(&self) -> Duration {
        self.max_backoff / 6
    }

    /// Returns the longest Retry-After that is honoured.
    pub fn max_retry_after(&self) -> Duration {
        self.max_backoff * 6
    }

    /// Returns the longest time between two responses, watch events or bookmarks of a server that works, for any kind.
    pub fn max_contact_gap(&self) -> Duration {
        let idle_watch = self.idle_timeout;
        let unserved = self.unserved_retry();
        let overloaded = self.max_retry_after() + self.initial_backoff;
        let failed = self.max_backoff;
        idle_watch.max(unserved).max(overloaded).max(failed) + self.response_timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn working_server_is_never_reported_as_silent() {
        let gap = ListWatchOptions::default().max_contact_gap();
        assert!(
            gap < SILENCE_LIMIT,
            "{gap:?} may pass between two contacts, and {SILENCE_LIMIT:?} is reported"
        );
    }
}
