//! A network namespace for the length of a test: it has no name, and is gone with its thread.
#![allow(unreachable_pub, reason = "a module of test binaries")]

/// Runs in a thread with a fresh network namespace of its own; programs started there are in it too. Panics
/// go on in the caller.
pub fn scoped<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let result = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: unshare takes no pointers, and changes only this thread, which does nothing else before.
            let status = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(status, 0, "a network namespace needs root: {}", std::io::Error::last_os_error());
            work()
        });
        thread.join()
    });
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
