//! The statuses of the controllers as the loop last reported them, shared with the local API, which responds also while the
//! loop hangs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use portcullis_cluster::ObjectKey;

use crate::control::{ControllerName, IsolatedObject, Status};
use crate::moment::Moment;

/// The last reported statuses. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReportedStatuses(Arc<Mutex<LastReport>>);

/// A report of the loop.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastReport {
    /// When the loop reported; `None` before it runs.
    pub(crate) at: Option<Moment>,
    /// The statuses of all controllers.
    pub(crate) statuses: Vec<Status>,
    /// The isolated objects of each set of rules, as of its last sync.
    pub(crate) isolated: IsolatedByRules,
    /// The times since when they are isolated.
    pub(crate) isolated_since: BTreeMap<(ControllerName, &'static str), BTreeMap<ObjectKey, Timestamp>>,
}

/// Isolated objects by controller and set of rules.
pub(crate) type IsolatedByRules = BTreeMap<(ControllerName, &'static str), Arc<[IsolatedObject]>>;

impl ReportedStatuses {
    /// Records a report.
    pub(crate) fn report(&self, statuses: &[Status], at: Moment) {
        let mut last = self.last();
        last.at = Some(at);
        last.statuses.clear();
        last.statuses.extend_from_slice(statuses);
    }

    /// Sets the objects that are isolated after a sync of these rules.
    pub(crate) fn set_isolated(
        &self,
        controller: ControllerName,
        rules: &'static str,
        objects: Arc<[IsolatedObject]>,
        at: Moment,
    ) {
        let mut last = self.last();
        let key = (controller, rules);
        let before = last.isolated_since.remove(&key).unwrap_or_default();
        let since = |object: &ObjectKey| before.get(object).copied().unwrap_or_else(|| at.wall());
        let since = objects.iter().map(|isolated| (isolated.object.clone(), since(&isolated.object)));
        last.isolated_since.insert(key, since.collect());
        last.isolated.insert(key, objects);
    }

    /// Returns the last report.
    pub(crate) fn get(&self) -> LastReport {
        self.last().clone()
    }

    fn last(&self) -> MutexGuard<'_, LastReport> {
        // A panic with the lock held leaves complete values behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
