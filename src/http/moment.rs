//! Points in time that can be both shown and subtracted.

use std::ops::Add;
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// A point in time by two clocks: the wall's, to show, and the monotonic one, to tell how long ago it was
/// even if somebody sets the wall's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    wall: Timestamp,
    monotonic: Instant,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Moment { wall: Timestamp::now(), monotonic: Instant::now() }
    }

    /// This moment by both clocks.
    pub fn new(wall: Timestamp, monotonic: Instant) -> Self {
        Moment { wall, monotonic }
    }

    /// By the wall's clock. Written out, it is RFC 3339 with as many digits as needed, as Go writes it.
    pub fn wall(self) -> Timestamp {
        self.wall
    }

    /// By the monotonic clock.
    pub fn monotonic(self) -> Instant {
        self.monotonic
    }

    /// How long after `earlier` this is; zero if it is not.
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
