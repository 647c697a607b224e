//! The observer of the loop.

use portcullis_cluster::Index;

use super::status::Status;

/// Derives health, metrics and Events from the index and the statuses of the controllers.
pub(crate) trait Observer {
    /// Handles the index after a batch of events.
    fn index_changed(&mut self, index: &Index);

    /// Handles the statuses of the controllers. Called in every iteration and after each finished sync.
    fn observe(&mut self, statuses: &[Status]);

    /// Handles the passing of time.
    fn tick(&mut self);
}
