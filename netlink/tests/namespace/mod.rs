//! A network namespace for one test. It belongs to a thread, so it has no name and ends with the thread.

use std::process::{Command, Output};
use std::thread;

/// Runs `test`, and the commands that it starts, in a new network namespace.
///
/// # Panics
/// If the process lacks the privilege to create a namespace, or `test` panics.
#[allow(dead_code, reason = "tests in user-mode Linux have a machine of their own")]
pub(crate) fn inside<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: no pointers are passed, and only this thread's namespace changes.
            let outcome = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            let error = std::io::Error::last_os_error();
            assert_eq!(outcome, 0, "these tests make network namespaces and need root: {error}");
            test()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs a command line, whose words contain no spaces, and returns its output. Fails if the command does.
#[allow(dead_code, reason = "not every test file runs commands")]
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a program to run");
    let Output { status, stdout, stderr } =
        Command::new(program).args(words).output().unwrap_or_else(|error| panic!("{line}: {error}"));
    assert!(status.success(), "{line}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("commands print UTF-8")
}
