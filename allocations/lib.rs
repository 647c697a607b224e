//! Memory that a test allocates, counted by the allocator: bounds that neither the kernel nor other load on the machine can change.
//!
//! A program that uses this crate has its allocator. It counts for all threads, so a test program that asserts a bound has only one
//! test, or lets one run at a time.

#![forbid(unsafe_code)]

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// A million bytes.
pub const MEGABYTE: usize = 1_000_000;

/// Allocated memory since a starting point.
#[derive(Clone, Copy, Debug)]
pub struct Allocations {
    before: usize,
}

impl Allocations {
    /// Starts counting, also the peak.
    pub fn start() -> Self {
        ALLOCATOR.reset_peak_usage();
        Allocations { before: ALLOCATOR.current_usage() }
    }

    /// Returns the number of bytes that were allocated since the start and are not freed; 0 if more was freed than allocated.
    pub fn kept(self) -> usize {
        ALLOCATOR.current_usage().saturating_sub(self.before)
    }

    /// Returns the largest [`Allocations::kept`] since the last call of [`Allocations::start`] in the process.
    pub fn peak(self) -> usize {
        ALLOCATOR.peak_usage().saturating_sub(self.before)
    }
}

/// Returns bytes in MB, for output.
pub fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / MEGABYTE as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_memory_counts_for_the_peak_only() {
        let allocations = Allocations::start();
        let kept = vec![1_u8; MEGABYTE];
        drop(vec![1_u8; 2 * MEGABYTE]);
        let (now, peak) = (megabytes(allocations.kept()), megabytes(allocations.peak()));
        assert!((1.0..1.1).contains(&now) && (3.0..3.1).contains(&peak), "{now} MB, {peak} MB at the peak");
        drop(kept);
        assert!(allocations.kept() < MEGABYTE / 10);
    }
}
