//! `portcullis pause`: the first process of a pod. It holds the pod's namespaces, and reaps the zombies of its PID namespace.
//!
//! It does nothing else that takes memory, since a node has such a process for each pod: no thread, no configuration, no log.

use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::process::ExitCode;
use std::{io, process, ptr};

/// The name of the subcommand.
const NAME: &str = "pause";

/// Returns whether a command line, with the name of the program, is this command without flags. Help, versions and errors are left to
/// the parser of all commands.
pub fn is_requested(arguments: impl IntoIterator<Item = OsString>) -> bool {
    let mut arguments = arguments.into_iter().skip(1);
    arguments.next().is_some_and(|name| name == NAME) && arguments.next().is_none()
}

/// Waits for SIGTERM or SIGINT. Must be called before any thread is started.
pub fn run() -> ExitCode {
    if process::id() != 1 {
        eprintln!("portcullis pause: not process 1 of a PID namespace, so no zombies are reaped");
    }
    match wait_for_signal() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("portcullis pause: cannot wait for signals: {error}");
            ExitCode::from(crate::FAILED)
        }
    }
}

fn wait_for_signal() -> io::Result<()> {
    let mut signals = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initializes the set before it is read. All pointers are to local variables, or null where the functions
    // allow it, and no other thread exists.
    unsafe {
        libc::sigemptyset(signals.as_mut_ptr());
        libc::sigaddset(signals.as_mut_ptr(), libc::SIGTERM);
        libc::sigaddset(signals.as_mut_ptr(), libc::SIGINT);
        // The kernel drops signals to process 1 that have no handler, unless they are blocked.
        if libc::sigprocmask(libc::SIG_BLOCK, signals.as_ptr(), ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        // The kernel reaps the children of a process that ignores SIGCHLD, also those that it inherits.
        if libc::signal(libc::SIGCHLD, libc::SIG_IGN) == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
        // Those that ended before.
        while libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) > 0 {}
        while libc::sigwaitinfo(signals.as_ptr(), ptr::null_mut()) < 0 {
            let error = io::Error::last_os_error();
            // A debugger, or SIGSTOP and SIGCONT.
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_plain_command_is_run_without_the_parser() {
        let is_requested = |arguments: &[&str]| is_requested(arguments.iter().map(OsString::from));
        assert!(is_requested(&["/usr/local/bin/portcullis", "pause"]));
        for arguments in [
            &["portcullis"][..],
            &[],
            &["pause"],
            &["x", "pause", "-V"],
            &["x", "pause", "--help"],
            &["x", "status"],
        ] {
            assert!(!is_requested(arguments), "{arguments:?}");
        }
    }
}
