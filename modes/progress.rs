//! The progress of a long sync, for the log and for health.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Progress counters that the sync's thread writes and other threads read meanwhile.
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
    /// The number of steps, such as a restore or some thousand rules read; never reset.
    pub steps: usize,
    /// The number of Services of a family to be written or compared; 0 while the kernel's rules are being read.
    pub services: usize,
    /// The number of them that are written.
    pub written: usize,
    /// The number of lines of rules written.
    pub lines: usize,
}

impl SyncProgress {
    /// Begins the write of this number of Services.
    pub fn begin(&self, services: usize) {
        self.services.store(services, Relaxed);
        self.written.store(0, Relaxed);
        self.lines.store(0, Relaxed);
        self.steps.fetch_add(1, Relaxed);
    }

    /// Counts the reading of some of the kernel's rules.
    pub(crate) fn read(&self) {
        self.steps.fetch_add(1, Relaxed);
    }

    /// Counts a restore. `services` is the number written by now, which never decreases; `lines` is the number of its
    /// lines.
    pub fn step(&self, services: usize, lines: usize) {
        self.written.fetch_max(services, Relaxed);
        self.lines.fetch_add(lines, Relaxed);
        self.steps.fetch_add(1, Relaxed);
    }

    /// Ends the write: no Services are being written.
    pub(crate) fn reset(&self) {
        self.begin(0);
    }

    /// Returns the present progress.
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
