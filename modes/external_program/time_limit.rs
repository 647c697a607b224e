//! The time limit of a running program.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The time limit of a program that takes and prints little, in milliseconds. The steps of a sync may take twice the sync period,
/// 60 s by default, before the daemon counts as stuck.
static TIME_LIMIT: AtomicU64 = AtomicU64::new(40_000);

/// The number of bytes that a program takes or prints for each additional second.
const BYTES_PER_SECOND: u64 = 256 * 1024;

/// Sets the time limit of programs that are started from now on. A program gets a second more for every 256 KiB that it takes or
/// prints.
pub fn set_time_limit(limit: Duration) {
    TIME_LIMIT.store(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX), Relaxed);
}

/// Returns the time limit of programs.
pub(super) fn configured() -> Duration {
    Duration::from_millis(TIME_LIMIT.load(Relaxed))
}

/// A time limit that grows with the bytes that the program took and printed. Waits for a processor do not count.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeLimit {
    start: Instant,
    base: Duration,
    bytes: u64,
    waited: Duration,
}

impl TimeLimit {
    pub(super) fn new(base: Duration, start: Instant) -> Self {
        TimeLimit { start, base, bytes: 0, waited: Duration::ZERO }
    }

    /// Adds bytes that were taken or printed.
    pub(super) fn add_bytes(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Returns the number of bytes that were taken or printed.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sets the time for which the program has waited for a processor since its start, unless more is known.
    pub(super) fn set_waited(&mut self, waited: Duration) {
        self.waited = self.waited.max(waited);
    }

    /// Counts a wait for a processor that has not ended, so that at least this time is left.
    pub(super) fn wait_on(&mut self, now: Instant, left: Duration) {
        self.set_waited((now.duration_since(self.start) + left).saturating_sub(self.limit()));
    }

    /// Returns the time for which the program has waited for a processor.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    /// Returns the limit, from the start of the program and without waits for a processor.
    pub(super) fn limit(&self) -> Duration {
        self.base + Duration::from_millis(self.bytes * 1000 / BYTES_PER_SECOND)
    }

    /// Returns the time that is left; `None` after the limit.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        (self.start + self.limit() + self.waited).checked_duration_since(now).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_a_processor_do_not_count() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut limit = TimeLimit::new(Duration::from_secs(40), start);
        // A restore of 78,000 rules at a load of 30.
        assert_eq!(limit.left(after(120)), None);
        limit.set_waited(Duration::from_secs(109));
        assert_eq!(limit.left(after(120)), Some(Duration::from_secs(29)));
        assert_eq!(limit.left(after(149)), None, "it hangs since");
        limit.wait_on(after(149), Duration::from_secs(1));
        assert_eq!(limit.left(after(149)), Some(Duration::from_secs(1)));
        limit.set_waited(Duration::from_secs(110));
        assert_eq!(limit.left(after(150)), None);
        assert_eq!(limit.limit(), Duration::from_secs(40));
    }

    #[test]
    fn limit_grows_with_the_bytes() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut limit = TimeLimit::new(Duration::from_secs(40), start);
        assert_eq!(limit.left(after(39)), Some(Duration::from_secs(1)));
        assert_eq!(limit.left(after(40)), None);
        // The rules of a restore for 6,000 lines, and of a legacy table with 500,000 rules.
        for (bytes, seconds) in [(600_000, 42), (60_000_000, 268)] {
            limit.add_bytes(bytes);
            assert!(limit.left(after(seconds)).is_some(), "{bytes}");
        }
        assert_eq!(limit.left(after(300)), None);
    }
}
