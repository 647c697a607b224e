//! Memory that the allocator holds and the program does not use.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The size in bytes from which an allocation has its own mapping, which is returned to the kernel when it is freed: the tables of an
/// index, not the buffers of a request.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES: i32 = 256 << 10;

/// Makes the allocator keep less. By default, each thread allocates from an arena of its own, so that objects of the index lie between
/// what was freed after parsing them, and freed tables stay in the heap once a larger one was freed.
pub(crate) fn limit_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` takes no pointers and may be called at any time. Threads that run already keep their arenas.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
    }
}

/// Releases freed memory after rare work that needs much of it, such as a full sync.
pub(crate) fn release() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The bytes of freed memory from which it is released after a change: less than what an object of a tenant may need for a moment, such as
/// a policy with thousands of address blocks.
const MUCH: usize = 8 << 20;

/// The minimum time between two looks at the allocator's statistics, which take longer the more pieces of free memory there are.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// The freed memory as last seen.
struct Freed {
    seen: Option<Instant>,
    /// The least number of bytes since the last release. It counts what was released, which the allocator may use again.
    least: usize,
}

static FREED: Mutex<Freed> = Mutex::new(Freed { seen: None, least: 0 });

/// Releases freed memory after a sync: always after a full one, otherwise if much was freed since the last release.
pub(crate) fn release_after_sync(is_full: bool) {
    let mut last = FREED.lock().unwrap_or_else(PoisonError::into_inner);
    if !is_full && last.seen.is_some_and(|seen| seen.elapsed() < LOOK_PERIOD) {
        return;
    }
    let freed = freed();
    if is_full || freed >= last.least + MUCH {
        release();
        last.least = freed;
    }
    *last = Freed { seen: Some(Instant::now()), least: freed.min(last.least) };
}

/// Returns the bytes that the allocator holds and that are free.
fn freed() -> usize {
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallinfo2` may be called at any time, by any thread.
    return unsafe { libc::mallinfo2() }.fordblks;
    #[cfg(not(target_env = "gnu"))]
    return 0;
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    fn resident() -> usize {
        let text = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
        let pages: usize = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
        pages * 4096
    }

    #[test]
    fn much_freed_memory_is_released_after_a_change() {
        limit_allocator();
        let before = resident();
        // Small pieces, and one that is kept above them: the allocator returns only the end of its memory by itself.
        let pieces: Vec<Box<[u8; 1000]>> = (0..64_000).map(|_| Box::new([1; 1000])).collect();
        let kept = Box::new([1_u8; 1000]);
        drop(pieces);
        assert!(resident() > before + 50_000_000 && freed() > 50_000_000);
        release_after_sync(false);
        assert!(resident() < before + 10_000_000, "{} of {}", resident() - before, kept.len());
        assert!(freed() > 50_000_000, "the allocator counts it as free, and it is not released again");
        let last = FREED.lock().expect("no thread panicked").least;
        assert!(freed() < last + MUCH);
    }
}
