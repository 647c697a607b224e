//! The number of transactions that this process commits.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::error::Result;

/// The number of transactions of this process, which wraps around.
static COMMITTED: AtomicU32 = AtomicU32::new(0);

/// The number of those that the kernel has acknowledged.
static ACKNOWLEDGED: AtomicU32 = AtomicU32::new(0);

/// Returns the number of transactions that this process has committed or is committing, in all network namespaces. Each
/// raises the [generation](super::generation()) of its namespace by 1. The number wraps around.
pub fn committed_transactions() -> u32 {
    COMMITTED.load(SeqCst)
}

/// Returns true if [`committed_transactions`] is this number, and none of them is still being committed.
pub(super) fn are_acknowledged(count: u32) -> bool {
    ACKNOWLEDGED.load(SeqCst) == count && COMMITTED.load(SeqCst) == count
}

/// Counts a transaction, which `commit` sends.
pub(super) fn count(commit: impl FnOnce() -> Result<()>) -> Result<()> {
    // Before the kernel has it: a generation that includes the transaction is never read with a lower count.
    COMMITTED.fetch_add(1, SeqCst);
    let sent = commit();
    match sent {
        Ok(()) => ACKNOWLEDGED.fetch_add(1, SeqCst),
        Err(_) => COMMITTED.fetch_sub(1, SeqCst),
    };
    sent
}
