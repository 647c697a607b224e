//! Release of unused memory to the kernel.

/// Releases freed memory after rare work that needs much of it, such as a full sync.
pub(crate) fn release() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
