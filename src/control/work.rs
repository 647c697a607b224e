//! Work that a controller runs on a thread, and its result.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Work of a controller, to be run on a thread.
pub(crate) struct Work(Box<dyn FnOnce() + Send>);

/// Receives the result of [`Work`].
#[derive(Debug)]
pub(crate) struct Pending<T>(Receiver<T>);

impl Work {
    /// Creates work, and the receiver of its result.
    pub(crate) fn new<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> (Self, Pending<T>) {
        let (sender, receiver): (SyncSender<T>, _) = sync_channel(1);
        let run = move || {
            // Fails only if the controller was dropped.
            let _ = sender.send(work());
        };
        (Work(Box::new(run)), Pending(receiver))
    }

    /// Runs the work.
    pub(crate) fn run(self) {
        (self.0)();
    }
}

impl<T> Pending<T> {
    /// Returns the result of work that has ended; `None` if it panicked.
    pub(crate) fn take(self) -> Option<T> {
        self.0.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_is_available_after_the_work_has_run() {
        let (work, pending) = Work::new(|| 7);
        work.run();
        assert_eq!(pending.take(), Some(7));
        let (work, pending) = Work::new(|| 7);
        drop(work);
        assert_eq!(pending.take(), None);
    }
}
