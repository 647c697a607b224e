//! Signals that end a process which owns a lab.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use crate::error::{Error, Result};

/// The signals of this process that wait to be taken by one thread.
pub(crate) struct Blocked {
    set: libc::sigset_t,
}

/// Keeps SIGINT, SIGTERM and SIGHUP from the calling thread and from all threads and processes that it starts. A process
/// that is to take signals must be started with [`unblock`].
pub(crate) fn block() -> Result<Blocked> {
    // SAFETY: sigemptyset makes any memory a valid set, and the other calls take that set.
    let (set, answer) = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        (set, libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))
    };
    if answer != 0 {
        return Err(Error::system("cannot block signals", io::Error::from_raw_os_error(answer)));
    }
    Ok(Blocked { set })
}

/// Has a process start with an empty signal mask, whatever the mask of the thread that starts it.
pub(crate) fn unblock(command: &mut Command) {
    let unblock = || {
        // SAFETY: sigemptyset makes any memory a valid set, and sigprocmask takes that set.
        let answer = unsafe {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
        };
        if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec only two calls are made, both of which POSIX allows there, and nothing is allocated.
    unsafe { command.pre_exec(unblock) };
}

impl Blocked {
    /// Waits for the next of the signals.
    pub(crate) fn wait(&self) -> i32 {
        let mut signal = 0;
        // SAFETY: the set was made by `block`, and `signal` outlives the call. It fails only for an invalid set.
        unsafe { libc::sigwait(&raw const self.set, &raw mut signal) };
        signal
    }

    /// On the first of the signals: cleans up, and ends the process.
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
