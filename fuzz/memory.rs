//! The limit of the memory that a target allocates.

use std::sync::{Mutex, PoisonError};

use portcullis_allocations::Allocations;

/// The allocator counts for all threads, so one target runs at a time.
static RUNNING: Mutex<()> = Mutex::new(());

/// Memory that a target may allocate for an input of any size: read buffers, tables of constants, the runtime.
const BASE: usize = 4 << 20;

/// The most memory that a target may hold at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryLimit {
    per_byte: usize,
}

impl MemoryLimit {
    /// Returns a limit of [`BASE`], and this many bytes per byte of input.
    pub(crate) const fn per_byte(per_byte: usize) -> Self {
        MemoryLimit { per_byte }
    }

    /// Runs `action` on an input of `length` bytes.
    ///
    /// # Panics
    /// `action` held more memory than the limit.
    pub(crate) fn check(self, length: usize, action: impl FnOnce()) {
        let _running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let allocations = Allocations::start();
        action();
        let held = allocations.peak();
        let limit = BASE + self.per_byte * length;
        assert!(
            held <= limit,
            "{held} bytes were allocated for an input of {length} bytes; at most {limit} are allowed"
        );
    }
}
