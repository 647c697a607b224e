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

mod answer;
pub(super) mod complaint;
mod events;
mod failure;
mod follow;
mod lines;
mod list;
mod notice;
mod request;
mod state;
mod unenforced;
mod watch;

use std::ops::Range;
use std::time::Duration;

pub(crate) use events::START;
pub(super) use events::publish;
pub use events::{Recorder, Reporter};
pub(super) use follow::follow;
pub use notice::Severity;
pub(super) use notice::{Notice, Version};
pub(super) use unenforced::follow as warn_of_unenforced;

/// Page sizes and times. The default is what a cluster wants; tests are in more of a hurry.
#[derive(Clone, Debug, PartialEq)]
pub struct Pace {
    /// Objects in a page of a list. Small pages keep memory small: 10,000 slices of 100 endpoints took
    /// 36 MB in pages of 50, 123 MB in pages of 500.
    pub page: u32,
    /// How long a server may take to begin an answer, and to go on with a list.
    pub answer: Duration,
    /// A watch that is silent for so long is dead. A server sends a bookmark a minute.
    pub silence: Duration,
    /// The length of a watch that the server is asked for; chosen at random so that the watches of a
    /// cluster do not end together. client-go has 5 to 10 minutes.
    pub watch: Range<Duration>,
    /// The first wait after a failure; waits double. client-go has 800 ms.
    pub first_wait: Duration,
    /// The longest wait. client-go has 30 s.
    pub longest_wait: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            page: 50,
            answer: Duration::from_secs(90),
            silence: Duration::from_secs(200),
            watch: Duration::from_mins(5)..Duration::from_mins(10),
            first_wait: Duration::from_millis(800),
            longest_wait: Duration::from_secs(30),
        }
    }
}

/// How long no request about a kind may be answered, and no event or bookmark of it come, until health takes the API
/// server for silent. Longer than [`Pace::longest_gap`], or a server that works would be taken for silent now and then.
pub const SILENCE_LIMIT: Duration = Duration::from_mins(5);

impl Pace {
    /// The longest wait between two requests for a kind that the server does not serve: a definition that is installed
    /// later is found within seconds.
    pub fn absent_wait(&self) -> Duration {
        self.longest_wait / 6
    }

    /// The longest that the server's Retry-After is obeyed.
    pub fn longest_retry_after(&self) -> Duration {
        self.longest_wait * 6
    }

    /// The longest time between two signs of life of a server that works, for any kind.
    pub fn longest_gap(&self) -> Duration {
        let silent_watch = self.silence;
        let absent = self.absent_wait();
        let overloaded = self.longest_retry_after() + self.first_wait;
        let failed = self.longest_wait;
        silent_watch.max(absent).max(overloaded).max(failed) + self.answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_works_is_never_taken_for_silent() {
        let gap = Pace::default().longest_gap();
        assert!(
            gap < SILENCE_LIMIT,
            "{gap:?} may pass between two signs of life, and {SILENCE_LIMIT:?} is silence"
        );
    }
}
