//! The trait of controllers.

use std::time::Instant;

use portcullis_cluster::{Change, Index};

use super::declaration::Declaration;
use super::query::DaemonState;
use super::status::Status;
use super::work::Work;

/// A consumer of the index that programs the kernel, with one piece of work at a time on a thread.
///
/// The loop calls it in this order: [`handle_changes`](Controller::handle_changes) for each batch of events, then, in every
/// iteration, [`poll`](Controller::poll) and [`start`](Controller::start), and [`finish`](Controller::finish) when the
/// work has ended.
pub(crate) trait Controller {
    /// Returns its declaration.
    fn declaration(&self) -> &Declaration;

    /// Records the changes of a batch of events. `is_ready`: all required kinds are listed.
    fn handle_changes(&mut self, changes: &[Change], index: &Index, is_ready: bool);

    /// Handles notifications of the kernel, and timers that do not start work.
    fn poll(&mut self, index: &Index, now: Instant);

    /// Returns the next time to call [`poll`](Controller::poll) even if nothing happens.
    fn next_poll(&self, now: Instant) -> Option<Instant>;

    /// Returns when work is due, if all required kinds are listed. Not called while work runs.
    fn next_due(&self) -> Option<Instant>;

    /// Starts work if some is due. `is_ready`: all required kinds are listed, without which it must not sync. Not called while
    /// work runs.
    fn start(&mut self, index: &Index, is_ready: bool, now: Instant) -> Option<Work>;

    /// Takes the result of the work, which has ended.
    fn finish(&mut self, index: &Index, now: Instant);

    /// Reports the progress of long work. Called every few seconds.
    fn report_progress(&mut self, now: Instant) {
        let _ = now;
    }

    /// Returns the state of the controller.
    fn status(&self, now: Instant) -> Status;

    /// Adds what queries may read of this controller to the state.
    fn add_to<'a>(&'a self, state: &mut DaemonState<'a>) {
        let _ = state;
    }
}
