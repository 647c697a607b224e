//! The observer of the loop.

use portcullis_cluster::Index;

use super::progress::Job;
use super::status::Status;

/// Derives health, metrics and Events from the state of the loop and its controllers.
pub(crate) trait Observer {
    /// Handles the index after a batch of events.
    fn index_changed(&mut self, index: &Index);

    /// Handles the statuses of the controllers. Called in every iteration.
    fn observe(&mut self, statuses: &[Status]);

    /// Handles the passing of time.
    fn tick(&mut self);

    /// Records the start of a controller's work.
    fn work_started(&mut self, job: Job);

    /// Records the end of a controller's work.
    fn work_ended(&mut self, job: Job);
}
