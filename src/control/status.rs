//! The status of a controller.

use super::progress::Job;

/// The state of a controller, from which the result of `--once`, health, metrics and Events are derived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// The controller, as health names it.
    pub(crate) job: Job,
    /// The number of finished syncs.
    pub(crate) syncs: u64,
    /// The first sync is held back, as objects that could not be read may have rules in the kernel.
    pub(crate) is_held_back: bool,
    /// The rules are incomplete, as objects could not be read even once.
    pub(crate) lacks_objects: bool,
    /// Whether another process keeps changing the rules, and what follows from that.
    pub(crate) contention: Option<String>,
    /// What the last sync could not write, one line each.
    pub(crate) unwritten: Vec<String>,
}

impl Status {
    /// The status before the first sync.
    pub(crate) fn new(job: Job) -> Self {
        Status {
            job,
            syncs: 0,
            is_held_back: false,
            lacks_objects: false,
            contention: None,
            unwritten: Vec::new(),
        }
    }
}
