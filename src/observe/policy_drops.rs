//! The kernel's counters of packets that policies dropped, and their increase in the last minutes.
//!
//! Each reading of the counters is a sample: those for `/metrics` and for the local API. If there was none for a minute, one is
//! taken for itself, so that the increase is known without a scraper.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portcullis_policy::table::{self, DropCounter, EnforceError};

use crate::control::DropCounterLabels;

/// The time for which samples are kept.
const WINDOW: Duration = Duration::from_mins(5);

/// The shortest time between two samples that are kept.
const MIN_INTERVAL: Duration = Duration::from_secs(15);

/// The longest time between two samples.
const MAX_INTERVAL: Duration = Duration::from_mins(1);

/// The drop counters. Clones share the samples.
#[derive(Clone, Debug, Default)]
pub(crate) struct PolicyDrops(Arc<Mutex<Samples>>);

#[derive(Debug, Default)]
struct Samples {
    /// The labels of the counters.
    labels: DropCounterLabels,
    /// The total of packets at a time, oldest first.
    totals: VecDeque<(Instant, u64)>,
}

/// The packets that policies dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DropTotals {
    /// The packets of all counters that exist now.
    pub(crate) packets: u64,
    /// The increase since the oldest sample. The counters of a deleted policy are no longer known, so it is a lower bound.
    pub(crate) recent: u64,
    /// The age of the oldest sample.
    pub(crate) window: Duration,
}

impl PolicyDrops {
    /// Sets the labels of the counters.
    pub(crate) fn set_labels(&self, labels: DropCounterLabels) {
        self.samples().labels = labels;
    }

    /// Reads all counters.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub(crate) fn read(&self) -> Result<Vec<DropCounter>, EnforceError> {
        let labels = Arc::clone(&self.samples().labels);
        let counters = table::read_drop_counters(&labels)?;
        let total = counters.iter().map(|counter| counter.packets).sum();
        self.samples().add(total, Instant::now());
        Ok(counters)
    }

    /// Reads all counters, and returns their totals.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub(crate) fn totals(&self) -> Result<DropTotals, EnforceError> {
        let packets = self.read()?.iter().map(|counter| counter.packets).sum();
        Ok(self.samples().totals(packets, Instant::now()))
    }

    /// Returns true if a sample is due.
    pub(crate) fn needs_sample(&self, now: Instant) -> bool {
        let samples = self.samples();
        let is_recent = |(at, _): &(Instant, u64)| now.saturating_duration_since(*at) < MAX_INTERVAL;
        !samples.labels.is_empty() && !samples.totals.back().is_some_and(is_recent)
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        // A panic with the lock held leaves complete values behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Samples {
    fn add(&mut self, packets: u64, now: Instant) {
        let age = |at: Instant| now.saturating_duration_since(at);
        // The next one may be late by a minute; so one that is a little older stays.
        while self.totals.front().is_some_and(|(at, _)| age(*at) > WINDOW) {
            self.totals.pop_front();
        }
        if self.totals.back().is_none_or(|(at, _)| age(*at) >= MIN_INTERVAL) {
            self.totals.push_back((now, packets));
        }
    }

    fn totals(&self, packets: u64, now: Instant) -> DropTotals {
        let (at, before) = self.totals.front().copied().unwrap_or((now, packets));
        let window = now.saturating_duration_since(at);
        DropTotals { packets, recent: packets.saturating_sub(before), window }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn increase_is_that_of_the_last_five_minutes() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut samples = Samples::default();
        let totals = |samples: &Samples, packets, seconds| {
            let totals = samples.totals(packets, at(seconds));
            (totals.recent, totals.window.as_secs())
        };
        assert_eq!(totals(&samples, 7, 0), (0, 0), "nothing is known of the time before");
        samples.add(7, at(0));
        assert_eq!(totals(&samples, 9, 10), (2, 10));
        for second in 1..=600 {
            samples.add(7 + second, at(second));
            assert!(samples.totals.len() <= 21, "{} samples", samples.totals.len());
        }
        assert_eq!(totals(&samples, 607, 600), (300, 300));
        assert_eq!(totals(&samples, 100, 600), (0, 300), "counters of a deleted policy are gone");
    }
}
