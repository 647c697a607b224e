//! Interruption of the store before a chosen system call.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::panic::{self, AssertUnwindSafe};

use super::super::files::Space;

/// The event that replaces a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Fault {
    /// The process is killed: its file descriptors are closed, and nothing else happens.
    Kill,
    /// The file system is full: this call and all later ones that need space fail.
    DiskFull,
}

thread_local! {
    /// The planned fault, and the number of calls before it.
    static PLANNED: Cell<Option<(Fault, u32)>> = const { Cell::new(None) };
}

/// The payload with which a killed process unwinds.
struct Killed;

/// The end of a function in which a fault was planned.
#[derive(Debug)]
pub(in super::super) enum Outcome<T> {
    /// It returned.
    Returned(T),
    /// It was killed.
    Killed,
}

/// Runs a function on this thread, with a fault before the `after`-th of its calls that change files, counted from 0. Returns also
/// whether the fault happened.
pub(in super::super) fn run_with<T>(
    fault: Fault,
    after: u32,
    function: impl FnOnce() -> T,
) -> (Outcome<T>, bool) {
    PLANNED.set(Some((fault, after)));
    let result = panic::catch_unwind(AssertUnwindSafe(function));
    let has_happened = match PLANNED.take() {
        None => true,
        Some((Fault::DiskFull, 0)) => true,
        Some(_) => false,
    };
    match result {
        Ok(value) => (Outcome::Returned(value), has_happened),
        Err(payload) if payload.is::<Killed>() => (Outcome::Killed, true),
        Err(payload) => panic::resume_unwind(payload),
    }
}

/// Called before each system call that changes files.
pub(in super::super) fn fault(space: Space) -> io::Result<()> {
    match PLANNED.get() {
        Some((Fault::Kill, 0)) => {
            PLANNED.set(None);
            // Without the message of a panic.
            panic::resume_unwind(Box::new(Killed))
        }
        Some((Fault::Kill, after)) => {
            PLANNED.set(Some((Fault::Kill, after - 1)));
            Ok(())
        }
        Some((Fault::DiskFull, 0)) if space == Space::Needed => Err(ErrorKind::StorageFull.into()),
        Some((Fault::DiskFull, after)) if after > 0 => {
            PLANNED.set(Some((Fault::DiskFull, after - 1)));
            Ok(())
        }
        _ => Ok(()),
    }
}
