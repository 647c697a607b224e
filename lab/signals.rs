//! Handling of termination signals in a process that owns a lab.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use crate::error::{Error, Result};

/// The blocked signals, to be received by one thread.
pub(crate) struct Blocked {
    set: libc::sigset_t,
}

/// Blocks SIGINT, SIGTERM and SIGHUP in the calling thread and in all threads and processes that it starts. Processes
/// that must receive signals have to be started with [`unblock`].
pub(crate) fn block() -> Result<Blocked> {
    // SAFETY: sigemptyset initializes the set, and the other calls take that set.
    let (set, result) = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        (set, libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))
    };
    if result != 0 {
        return Err(Error::system("cannot block signals", io::Error::from_raw_os_error(result)));
    }
    Ok(Blocked { set })
}

/// Makes a command start with an empty signal mask, independent of the mask of the calling thread.
pub(crate) fn unblock(command: &mut Command) {
    let unblock = || {
        // SAFETY: sigemptyset initializes the set, and sigprocmask takes that set.
        let result = unsafe {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec only two async-signal-safe calls are made, and nothing is allocated.
    unsafe { command.pre_exec(unblock) };
}

impl Blocked {
    /// Waits for one of the signals and returns its number.
    pub(crate) fn wait(&self) -> i32 {
        let mut signal = 0;
        // SAFETY: the set was initialized by `block`, and `signal` outlives the call. It fails only for an invalid set.
        unsafe { libc::sigwait(&raw const self.set, &raw mut signal) };
        signal
    }

    /// Starts a thread that on the first signal cleans up and exits the process.
    pub(crate) fn watch(self, clean_up: impl FnOnce() + Send + 'static) -> Result<()> {
        let watch = move || {
            let signal = self.wait();
            clean_up();
            std::process::exit(128 + signal);
        };
        let thread = thread::Builder::new().name("lab-signals".into()).spawn(watch);
        thread.map(drop).map_err(|source| Error::system("cannot start a thread", source))
    }
}
