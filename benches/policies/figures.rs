//! Measurements and their statistics.

use std::fmt;
use std::time::{Duration, Instant};

use super::process::of_this_thread;

/// Time spent in one run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    pub(crate) wall: Duration,
    /// CPU time of the thread, including the kernel. Other load on the machine hardly affects it.
    pub(crate) processor: Duration,
}

/// Stopwatch, which starts when it is created.
pub(crate) struct Watch(Instant, Duration);

impl Watch {
    pub(crate) fn start() -> Self {
        Watch(Instant::now(), of_this_thread())
    }

    pub(crate) fn spent(&self) -> Spent {
        Spent { wall: self.0.elapsed(), processor: of_this_thread() - self.1 }
    }
}

/// Times spent in several runs.
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

/// Durations of several runs.
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

/// Returns the median.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Formats a duration in milliseconds, 9 characters wide.
pub(crate) struct Millis(pub(crate) Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_secs_f64() * 1e3;
        let digits = if millis < 10.0 { 3 } else { 1 };
        write!(f, "{millis:>9.digits$}")
    }
}

/// Returns the ratio of two durations.
pub(crate) fn ratio(of: Duration, to: Duration) -> f64 {
    of.as_secs_f64() / to.as_secs_f64()
}
