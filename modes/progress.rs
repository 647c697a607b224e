//! How far a long sync has come, for the log and for health.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Counters that the thread of a sync writes and other threads read while it runs.
#[derive(Debug, Default)]
pub struct SyncProgress {
    steps: AtomicUsize,
    services: AtomicUsize,
    written: AtomicUsize,
    lines: AtomicUsize,
}

/// The progress of a sync at some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgressSnapshot {
    /// Grows with every step, such as a restore or some thousand rules that were read, and is never reset.
    pub steps: usize,
    /// How many Services of a family are to be written or compared; 0 while the kernel is being read.
    pub services: usize,
    /// How many of them are written.
    pub written: usize,
    /// How many lines of rules are written.
    pub lines: usize,
}

impl SyncProgress {
    /// A write of this number of Services begins.
    pub fn begin(&self, services: usize) {
        self.services.store(services, Relaxed);
        self.written.store(0, Relaxed);
        self.lines.store(0, Relaxed);
        self.steps.fetch_add(1, Relaxed);
    }

    /// Some of the kernel's rules are read.
    pub(crate) fn read(&self) {
        self.steps.fetch_add(1, Relaxed);
    }

    /// A restore is done. `services`: as many are written by now; fewer than before does not count. `lines`: as many
    /// lines it had.
    pub fn step(&self, services: usize, lines: usize) {
        self.written.fetch_max(services, Relaxed);
        self.lines.fetch_add(lines, Relaxed);
        self.steps.fetch_add(1, Relaxed);
    }

    /// No Services are being written.
    pub(crate) fn rest(&self) {
        self.begin(0);
    }

    /// The progress now.
    pub fn now(&self) -> ProgressSnapshot {
        let counters = [&self.steps, &self.services, &self.written, &self.lines];
        let [steps, services, written, lines] = counters.map(|counter| counter.load(Relaxed));
        ProgressSnapshot { steps, services, written, lines }
    }
}

impl fmt::Display for ProgressSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.services {
            0 => f.write_str("reading the rules in the kernel"),
            services => {
                write!(f, "{} of {services} Services written ({} lines of rules)", self.written, self.lines)
            }
        }
    }
}
