//! Rate limit of log lines by their place in the code.
//!
//! Many lines name an object of the cluster: an invalid field, a Service that is not served, rejected rules. Whoever creates
//! such objects chooses their number. So each place in the code may log a burst of lines, and then one line per second.
//! Omitted lines are counted, and reported with their place. Health and metrics show the state of all objects in any case.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The number of lines that a place in the code may log without a pause.
const BURST: u32 = 200;

/// The time after which a place in the code may log one more line.
const REFILL: Duration = Duration::from_secs(1);

/// A place in the code: its file and line.
type Place = (&'static str, u32);

/// The lines that each place in the code may still log.
#[derive(Debug, Default)]
pub(super) struct LineBudget {
    places: Mutex<BTreeMap<Place, Budget>>,
    omitted: AtomicU64,
}

/// The budget of one place in the code.
#[derive(Debug)]
struct Budget {
    tokens: u32,
    refilled_at: Instant,
    /// The lines that were omitted since the last report.
    unreported: u64,
}

impl LineBudget {
    /// Returns the number of lines that were omitted since the start.
    pub(super) fn omitted(&self) -> u64 {
        self.omitted.load(Ordering::Relaxed)
    }

    /// Returns the places that omitted lines since the last call, and the number of lines.
    pub(super) fn take_omitted(&self) -> Vec<(Place, u64)> {
        let mut places = self.places();
        let unreported = places.iter_mut().map(|(place, budget)| (*place, std::mem::take(&mut budget.unreported)));
        unreported.filter(|(_, lines)| *lines > 0).collect()
    }

    /// Returns true if a place may log a line now, and counts it.
    fn takes(&self, place: Place, now: Instant) -> bool {
        let mut places = self.places();
        let new = || Budget { tokens: BURST, refilled_at: now, unreported: 0 };
        let budget = places.entry(place).or_insert_with(new);
        let takes = budget.takes(now);
        if !takes {
            self.omitted.fetch_add(1, Ordering::Relaxed);
        }
        takes
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<Place, Budget>> {
        // A panic with the lock held leaves complete values behind.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Budget {
    fn takes(&mut self, now: Instant) -> bool {
        let refills = now.saturating_duration_since(self.refilled_at).as_secs() / REFILL.as_secs();
        let refills = u32::try_from(refills).unwrap_or(u32::MAX);
        self.tokens = self.tokens.saturating_add(refills).min(BURST);
        if self.tokens == BURST {
            self.refilled_at = now;
        } else {
            self.refilled_at += REFILL * refills;
        }
        match self.tokens.checked_sub(1) {
            Some(left) => self.tokens = left,
            None => self.unreported += 1,
        }
        self.tokens > 0 || self.unreported == 0
    }
}
