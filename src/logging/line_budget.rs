//! Rate limit of log lines by their place in the code.
//!
//! Many lines name an object of the cluster: an invalid field, a Service that is not served, rejected rules. A tenant that creates
//! such objects chooses their number. So each place in the code may log a burst of lines, and then one line per second.
//! Omitted lines are counted, and reported with their place. Health and metrics show the state of all objects in any case.
//! Lines for debugging are not limited.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::token_bucket::TokenBucket;

/// The number of lines that a place in the code may log without a pause.
pub(super) const BURST: u32 = 200;

/// The time after which a place in the code may log one more line.
const REFILL: Duration = Duration::from_secs(1);

/// A place in the code: its file and line.
pub(super) type Place = (&'static str, u32);

/// The lines that each place in the code may still log.
#[derive(Debug)]
pub(super) struct LineBudget {
    places: Mutex<BTreeMap<Place, PlaceBudget>>,
    omitted: AtomicU64,
}

#[derive(Debug)]
struct PlaceBudget {
    lines: TokenBucket,
    /// The lines that were omitted since the last report.
    unreported: u64,
}

impl LineBudget {
    /// Creates full budgets.
    pub(super) const fn new() -> Self {
        LineBudget { places: Mutex::new(BTreeMap::new()), omitted: AtomicU64::new(0) }
    }

    /// Returns the number of lines that were omitted since the start.
    pub(super) fn omitted(&self) -> u64 {
        self.omitted.load(Ordering::Relaxed)
    }

    /// Returns the places of which lines were omitted since the last call, with the number of lines.
    pub(super) fn take_omitted(&self) -> Vec<(Place, u64)> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let omitted =
            places.iter_mut().map(|(place, budget)| (*place, std::mem::take(&mut budget.unreported)));
        omitted.filter(|(_, lines)| *lines > 0).collect()
    }

    /// Takes a line from the budget of a place. Returns false if it is exhausted.
    fn take(&self, place: Place, now: Instant) -> bool {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let full = || PlaceBudget { lines: TokenBucket::new(BURST, now), unreported: 0 };
        let budget = places.entry(place).or_insert_with(full);
        let is_within = budget.lines.take(BURST, REFILL, now);
        if !is_within {
            budget.unreported += 1;
            self.omitted.fetch_add(1, Ordering::Relaxed);
        }
        is_within
    }
}

/// The layer that omits lines; `None`: none.
pub(super) struct LineLimit(pub(super) Option<&'static LineBudget>);

impl<S: Subscriber> Layer<S> for LineLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let (Some(budget), Some(file), Some(line)) = (self.0, metadata.file(), metadata.line()) else {
            return true;
        };
        *metadata.level() > Level::INFO || budget.take((file, line), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_place_in_the_code_logs_a_burst_and_counts_the_rest() {
        static BUDGET: LineBudget = LineBudget::new();
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(LineLimit(Some(&BUDGET))).with(log);
        let many = u64::from(BURST) * 100;
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..many {
                tracing::warn!("Service ns/s{number} is not served");
            }
            tracing::warn!("another line");
        });
        let text = String::from_utf8(lines.0.lock().expect("no panic").clone()).expect("text");
        let logged = text.lines().filter(|line| line.contains("is not served")).count() as u64;
        // Refills depend on the time that the test takes.
        assert!(logged >= u64::from(BURST) && logged < many / 2, "{logged} lines");
        assert!(text.contains("Service ns/s0 is not served") && text.contains("another line"));
        assert_eq!(BUDGET.omitted(), many - logged);
        let omitted = BUDGET.take_omitted();
        assert_eq!(omitted.len(), 1);
        assert!(omitted[0].0.0.ends_with("line_budget.rs") && omitted[0].1 == many - logged, "{omitted:?}");
        assert!(BUDGET.take_omitted().is_empty(), "they are reported once");
    }
}
