//! Memory that the allocator holds and the program does not use.

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
