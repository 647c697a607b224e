//! Violations of invariants.

use std::fmt;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invariant {
    /// The daemon runs until it is stopped, and then exits in time.
    Running,
    /// It reports that it has applied all changes, and is healthy.
    Quiet,
    /// The rules are those of the model, and no valid object is isolated.
    Rules,
    /// Packets have the outcomes of the model.
    Packets,
    /// Responses of the health endpoints are consistent and have a reason.
    Health,
    /// Connections that are allowed before and after a change are not lost.
    Lost,
    /// Connections that are forbidden before and after a change are not answered.
    Answered,
}

#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) invariant: Invariant,
    pub(crate) message: String,
}

impl Violation {
    pub(crate) fn new(invariant: Invariant, message: String) -> Self {
        Violation { invariant, message }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.message)
    }
}
