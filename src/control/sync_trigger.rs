//! The reason of a sync.

use std::fmt;

use super::schedule::Due;
use super::status::Status;

/// The reason of a sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum SyncTrigger {
    /// The first sync of the process.
    #[default]
    Start,
    /// Objects of the cluster, addresses of this machine or the node's settings changed.
    Change {
        /// The number of changes of objects.
        objects: usize,
    },
    /// The last sync failed, or the last attempt for an isolated object is long enough ago.
    Retry,
    /// The periodic comparison with the kernel.
    Periodic,
    /// Another process changed rules.
    ExternalChange {
        /// The process.
        process: String,
    },
    /// A timer of the controller, for example for terminating endpoints.
    Timer,
}

impl SyncTrigger {
    /// Returns the reason of a sync that is due for a controller with this status. `objects`: the number of changes of objects
    /// that it takes; `is_retrying`: the last sync failed; `changed_by`: the process that changed rules since the last sync.
    pub(crate) fn new(
        due: Due,
        status: &Status,
        objects: usize,
        is_retrying: bool,
        changed_by: Option<&str>,
    ) -> Self {
        match (due, changed_by) {
            _ if status.last_sync.is_none() => SyncTrigger::Start,
            (Due::FullSync, Some(process)) => SyncTrigger::ExternalChange { process: process.to_owned() },
            (Due::FullSync, None) => SyncTrigger::Periodic,
            (Due::Change, _) if is_retrying && objects == 0 => SyncTrigger::Retry,
            (Due::Change, _) => SyncTrigger::Change { objects },
            (Due::Timer, _) => SyncTrigger::Timer,
        }
    }

    /// Returns its name in documents.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            SyncTrigger::Start => "start",
            SyncTrigger::Change { .. } => "change",
            SyncTrigger::Retry => "retry",
            SyncTrigger::Periodic => "periodic",
            SyncTrigger::ExternalChange { .. } => "externalChange",
            SyncTrigger::Timer => "timer",
        }
    }

    /// Returns the process that changed rules.
    pub(crate) fn process(&self) -> Option<&str> {
        match self {
            SyncTrigger::ExternalChange { process } => Some(process),
            _ => None,
        }
    }
}

impl fmt::Display for SyncTrigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyncTrigger::Start => f.write_str("start"),
            SyncTrigger::Change { objects: 0 } => f.write_str("change of this node"),
            SyncTrigger::Change { objects: 1 } => f.write_str("1 changed object"),
            SyncTrigger::Change { objects } => write!(f, "{objects} changed objects"),
            SyncTrigger::Retry => f.write_str("retry"),
            SyncTrigger::Periodic => f.write_str("periodic comparison"),
            SyncTrigger::ExternalChange { process } => write!(f, "external change by {process}"),
            SyncTrigger::Timer => f.write_str("timer"),
        }
    }
}
