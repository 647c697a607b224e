//! What was measured, and how it is summed up.

use std::fmt;
use std::time::{Duration, Instant};

use super::process::of_this_thread;

/// What one thing took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    pub(crate) wall: Duration,
    /// Processor time of the thread, in the kernel too: what else the machine does hardly shows in it.
    pub(crate) processor: Duration,
}

/// Measures from its making on.
pub(crate) struct Watch(Instant, Duration);

impl Watch {
    pub(crate) fn start() -> Self {
        Watch(Instant::now(), of_this_thread())
    }

    pub(crate) fn spent(&self) -> Spent {
        Spent { wall: self.0.elapsed(), processor: of_this_thread() - self.1 }
    }
}

/// What one thing took, each time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    pub(crate) wall: Times,
    pub(crate) processor: Times,
}

impl Samples {
    pub(crate) fn push(&mut self, spent: Spent) {
        self.wall.push(spent.wall);
        self.processor.push(spent.processor);
    }
}

/// Times of one thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn push(&mut self, took: Duration) {
        self.0.push(took);
    }

    pub(crate) fn median(&self) -> Duration {
        let mut times = self.0.clone();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }

    pub(crate) fn worst(&self) -> Duration {
        self.0.iter().max().copied().unwrap_or_default()
    }
}

/// The middle one of some numbers.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A time in a column of 9, in milliseconds.
pub(crate) struct Millis(pub(crate) Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_secs_f64() * 1e3;
        let digits = if millis < 10.0 { 3 } else { 1 };
        write!(f, "{millis:>9.digits$}")
    }
}

/// How many times as long one took as another.
pub(crate) fn ratio(of: Duration, to: Duration) -> f64 {
    of.as_secs_f64() / to.as_secs_f64()
}
