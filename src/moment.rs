//! Point in time with a wall clock and a monotonic clock reading, like Go's `time.Time`.

use std::ops::Add;
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// A point in time, read from two clocks: the wall clock for display, and the monotonic clock for durations, which
/// are correct even if the wall clock is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    wall: Timestamp,
    monotonic: Instant,
}

impl Moment {
    /// Returns the current time.
    pub fn now() -> Self {
        Moment { wall: Timestamp::now(), monotonic: Instant::now() }
    }

    /// Creates a point in time from both clock readings.
    pub fn new(wall: Timestamp, monotonic: Instant) -> Self {
        Moment { wall, monotonic }
    }

    /// Returns the wall clock reading. It displays as RFC 3339 with as many digits as needed, as in Go.
    pub fn wall(self) -> Timestamp {
        self.wall
    }

    /// Returns the monotonic clock reading.
    pub fn monotonic(self) -> Instant {
        self.monotonic
    }

    /// Returns the time elapsed since `earlier`; zero if it is later.
    pub fn since(self, earlier: Moment) -> Duration {
        self.monotonic.saturating_duration_since(earlier.monotonic)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, later: Duration) -> Moment {
        let wall = self.wall.checked_add(later).unwrap_or(Timestamp::MAX);
        Moment { wall, monotonic: self.monotonic + later }
    }
}
