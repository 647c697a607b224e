//! The result of a finished sync, as observers read it.

use std::time::Duration;

use portcullis_cluster::ObjectKey;
use portcullis_modes::IsolationCause;

use super::measurements::Measurements;
use super::sync_trigger::SyncTrigger;

/// A finished sync.
#[derive(Debug, Default)]
pub(crate) struct FinishedSync {
    /// The reason of the sync.
    pub(crate) trigger: SyncTrigger,
    /// The result of each set of rules that was synced.
    pub(crate) results: Vec<RulesResult>,
    /// The number of objects that the controller programs.
    pub(crate) objects: usize,
    /// What could not be written, one line each.
    pub(crate) unwritten: Vec<String>,
    /// New facts about objects, which users see as Events.
    pub(crate) notices: Vec<ObjectNotice>,
    /// The number of further facts, of which there were too many.
    pub(crate) omitted_notices: usize,
    /// Measurements for metrics that only this controller has.
    pub(crate) measurements: Measurements,
}

/// The result of the sync of one set of rules.
#[derive(Debug)]
pub(crate) struct RulesResult {
    /// The name of the set, as in the [`Declaration`](super::Declaration).
    pub(crate) rules: &'static str,
    /// Everything was compared with the kernel, not only the changes.
    pub(crate) is_full: bool,
    /// The duration.
    pub(crate) duration: Duration,
    /// The number of chains or objects that another process had changed and that were restored.
    pub(crate) restored: usize,
    /// All objects that are isolated after this sync.
    pub(crate) isolated: Vec<IsolatedObject>,
    /// The error if the sync failed as a whole.
    pub(crate) error: Option<RulesError>,
}

/// The error of a sync that failed as a whole.
#[derive(Debug)]
pub(crate) struct RulesError {
    /// The message.
    pub(crate) message: String,
    /// A restart of the process may help. False if the cluster lacks information.
    pub(crate) may_restart_help: bool,
}

/// An object that could not be programmed, while all others were. Its last accepted rules are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IsolatedObject {
    /// The object.
    pub(crate) object: ObjectKey,
    /// Why it is isolated.
    pub(crate) cause: IsolationCause,
    /// The error message, which names the object.
    pub(crate) text: String,
    /// The kernel has rules of an earlier version of it; `None` if that is not known.
    pub(crate) has_rules: Option<bool>,
}

/// A fact about an object that all nodes report alike, so that one Event is created for all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectNotice {
    /// The object.
    pub(crate) object: ObjectKey,
    /// The reason of the Event.
    pub(crate) reason: &'static str,
    /// The text.
    pub(crate) note: String,
}
