//! The API server: list, then watch, for ever.
//!
//! ```text
//!             refused                      410, garbage, twice silent
//! Stream ───────────────► Page ─► Page…        ┌────────────┐
//!    │  (a streaming list)   (no streams here) ▼            │
//!    └──────────────────────────┴──────────► Watch ─────────┴──► Stream
//! ```
//!
//! The machine is `state::State`: each step is one request, and what its failure means is a pure function
//! (`State::after`). Everything else here moves bytes.

mod api_event;
mod event_recorder;
pub(super) mod invalid_policy;
mod line_splitter;
mod list_page;
mod list_watch;
mod reflector;
mod request;
mod request_error;
mod response;
mod superseded_policies;
mod watch_stream;

use std::ops::Range;
use std::time::Duration;

pub use api_event::EventType;
pub(super) use api_event::{ApiEvent, ObjectVersion};
pub(crate) use event_recorder::START;
pub(super) use event_recorder::publish;
pub use event_recorder::{EventRecorder, EventReporter};
pub(super) use reflector::run as reflect;
pub(super) use superseded_policies::watch as warn_of_superseded_policies;

/// Page sizes and times. The default is what a cluster wants; tests are in more of a hurry.
#[derive(Clone, Debug, PartialEq)]
pub struct ListWatchOptions {
    /// Objects in a page of a list. Small pages keep memory small: 10,000 slices of 100 endpoints took
    /// 36 MB in pages of 50, 123 MB in pages of 500.
    pub page_size: u32,
    /// How long a server may take to begin an answer, and to go on with a list.
    pub response_timeout: Duration,
    /// A watch that is silent for so long is dead. A server sends a bookmark a minute.
    pub idle_timeout: Duration,
    /// The length of a watch that the server is asked for; chosen at random so that the watches of a
    /// cluster do not end together. client-go has 5 to 10 minutes.
    pub watch_duration: Range<Duration>,
    /// The first wait after a failure; waits double. client-go has 800 ms.
    pub initial_backoff: Duration,
    /// The longest wait. client-go has 30 s.
    pub max_backoff: Duration,
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
        }
    }
}

/// How long no request about a kind may be answered, and no event or bookmark of it come, until health takes the API
/// server for silent. Longer than [`ListWatchOptions::max_contact_gap`], or a server that works would be taken for silent now and then.
pub const SILENCE_LIMIT: Duration = Duration::from_mins(5);

impl ListWatchOptions {
    /// The longest wait between two requests for a kind that the server does not serve: a definition that is installed
    /// later is found within seconds.
    pub fn unserved_retry(&self) -> Duration {
        self.max_backoff / 6
    }

    /// The longest that the server's Retry-After is obeyed.
    pub fn max_retry_after(&self) -> Duration {
        self.max_backoff * 6
    }

    /// The longest time between two signs of life of a server that works, for any kind.
    pub fn max_contact_gap(&self) -> Duration {
        let silent_watch = self.idle_timeout;
        let absent = self.unserved_retry();
        let overloaded = self.max_retry_after() + self.initial_backoff;
        let failed = self.max_backoff;
        silent_watch.max(absent).max(overloaded).max(failed) + self.response_timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_works_is_never_taken_for_silent() {
        let gap = ListWatchOptions::default().max_contact_gap();
        assert!(
            gap < SILENCE_LIMIT,
            "{gap:?} may pass between two signs of life, and {SILENCE_LIMIT:?} is silence"
        );
    }
}
