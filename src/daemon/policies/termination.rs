//! The schedule of searches for connections that policies now deny.

use std::time::{Duration, Instant};

/// The shortest time between two searches: each dumps all conntrack entries.
const INTERVAL: Duration = Duration::from_secs(1);

/// The search for connections to terminate.
#[derive(Debug)]
pub(super) struct Termination {
    /// Policies may deny an established connection since the last search.
    is_needed: bool,
    /// The time from which the next search may start.
    earliest: Instant,
}

impl Termination {
    pub(super) fn new(now: Instant) -> Self {
        Termination { is_needed: false, earliest: now }
    }

    /// Requests a search if a change of policies may deny established connections.
    pub(super) fn request_if(&mut self, may_deny: bool) {
        self.is_needed |= may_deny;
    }

    /// Returns the time from which a requested search may start.
    pub(super) fn next(&self) -> Option<Instant> {
        self.is_needed.then_some(self.earliest)
    }

    /// Returns true if a search is requested and may start, and takes the request.
    pub(super) fn start_if_due(&mut self, now: Instant) -> bool {
        let is_due = self.next().is_some_and(|at| now >= at);
        if is_due {
            (self.is_needed, self.earliest) = (false, now + INTERVAL);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_are_requested_and_not_too_frequent() {
        let start = Instant::now();
        let mut termination = Termination::new(start);
        assert!(!termination.start_if_due(start), "it was not requested");
        termination.request_if(false);
        assert_eq!(termination.next(), None);
        termination.request_if(true);
        termination.request_if(false);
        assert_eq!(termination.next(), Some(start));
        assert!(termination.start_if_due(start));
        assert_eq!(termination.next(), None, "the request was taken");
        termination.request_if(true);
        assert!(!termination.start_if_due(start + INTERVAL / 2));
        assert_eq!(termination.next(), Some(start + INTERVAL));
        assert!(termination.start_if_due(start + INTERVAL));
    }
}
