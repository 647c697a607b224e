//! Exponential backoff.

use std::time::{Duration, Instant};

/// Waits between retries that double up to a maximum.
///
/// It reads no clock and generates no random numbers: both are arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    /// The last wait, without jitter; `None` before the first retry.
    last: Option<Duration>,
}

impl Backoff {
    /// Creates a backoff with the first and the longest wait.
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Backoff { initial, max, last: None }
    }

    /// Returns the next wait.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.last.map_or(self.initial, |last| last.saturating_mul(2)).min(self.max);
        self.last = Some(wait);
        wait
    }

    /// Returns the next wait with jitter: between one and two times the wait, as in client-go, and at most the maximum.
    /// `random` is a number from 0 up to 1. Jitter keeps the nodes of a cluster from sending requests at the same time.
    pub fn next_wait_with_jitter(&mut self, random: f64) -> Duration {
        self.next_wait().mul_f64(1.0 + random).min(self.max)
    }

    /// Returns the time of the next retry after a failure at `now`.
    pub fn next_retry(&mut self, now: Instant) -> Instant {
        now + self.next_wait()
    }

    /// Returns true if the last wait was the longest one.
    pub fn is_at_max(&self) -> bool {
        self.last == Some(self.max)
    }

    /// Starts again with the first wait, as after a success.
    pub fn reset(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_maximum_and_start_again_after_a_reset() {
        let mut backoff = Backoff::new(SECOND, 10 * SECOND);
        for (expected, is_at_max) in [(1, false), (2, false), (4, false), (8, false), (10, true), (10, true)]
        {
            assert_eq!(backoff.next_wait(), expected * SECOND);
            assert_eq!(backoff.is_at_max(), is_at_max, "after {expected} s");
        }
        backoff.reset();
        assert!(!backoff.is_at_max());
        let now = Instant::now();
        assert_eq!(backoff.next_retry(now), now + SECOND);
        assert_eq!(backoff.next_retry(now), now + 2 * SECOND);
    }

    #[test]
    fn jitter_is_at_most_the_wait_itself_and_never_exceeds_the_maximum() {
        for (random, expected) in
            [(0.0, [1000, 2000, 4000, 8000, 10_000]), (0.5, [1500, 3000, 6000, 10_000, 10_000])]
        {
            let mut backoff = Backoff::new(SECOND, 10 * SECOND);
            let waits = expected.map(|_| backoff.next_wait_with_jitter(random).as_millis());
            assert_eq!(waits, expected, "{random}");
        }
    }

    #[test]
    fn first_wait_is_limited_by_the_maximum() {
        assert_eq!(Backoff::new(2 * SECOND, SECOND).next_wait(), SECOND);
    }
}
