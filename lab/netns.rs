//! Named network namespaces: entering them, and running commands in them.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use crate::error::{Error, Result};
use crate::signals;
use crate::socket::check;

/// A named network namespace of `ip netns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetNs {
    name: String,
}

impl NetNs {
    /// Returns a handle of a namespace by name; it need not exist yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Returns the name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the file to which `ip netns` binds the namespace.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs a closure inside the namespace, on a new thread. Sockets that it opens stay in the namespace wherever they are
    /// used later; processes that it starts run there.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| self.enter().map(|()| work()));
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into the namespace permanently.
    pub(crate) fn enter(&self) -> Result<()> {
        let failed = |source| Error::system(format!("cannot enter network namespace {}", self.name), source);
        let file = File::open(self.path()).map_err(failed)?;
        // SAFETY: setns takes a descriptor that is open for the whole call, and changes only the calling thread.
        let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
        if result == 0 { Ok(()) } else { Err(failed(io::Error::last_os_error())) }
    }

    /// Returns a command that runs inside the namespace, with a `/sys` that shows its devices.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        signals::unblock(&mut command);
        command
    }

    /// Makes a command run inside the namespace, with a `/sys` that shows its devices. Unlike [`NetNs::command`] the
    /// program is executed directly, so that a program that cannot be executed is an error of `spawn`.
    ///
    /// # Errors
    /// No such namespace.
    pub(crate) fn enter_with(&self, command: &mut Command) -> Result<()> {
        let failed = |source| Error::system(format!("cannot enter network namespace {}", self.name), source);
        let file = File::open(self.path()).map_err(failed)?;
        signals::unblock(command);
        let enter = move || {
            let none = std::ptr::null::<libc::c_void>();
            // SAFETY: the descriptor is open until exec, and all pointers are to constants.
            unsafe {
                check(libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET))?;
                check(libc::unshare(libc::CLONE_NEWNS))?;
                // The host's /sys must not change.
                check(libc::mount(
                    c"".as_ptr(),
                    c"/".as_ptr(),
                    std::ptr::null(),
                    libc::MS_SLAVE | libc::MS_REC,
                    none,
                ))?;
                // Fails if no /sys is mounted.
                libc::umount2(c"/sys".as_ptr(), libc::MNT_DETACH);
                libc::mount(c"sysfs".as_ptr(), c"/sys".as_ptr(), c"sysfs".as_ptr(), 0, none);
            }
            Ok(())
        };
        // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
        unsafe { command.pre_exec(enter) };
        Ok(())
    }

    /// Runs `ip` commands in the namespace.
    ///
    /// # Errors
    /// A command failed; the message includes it.
    pub(crate) fn ip(&self, lines: &[String]) -> Result<()> {
        ip_batch(&["-n", &self.name], lines)
    }
}

/// Runs `ip` commands by one `ip -batch` process; `arguments` precede `-batch`.
pub(crate) fn ip_batch(arguments: &[&str], lines: &[String]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut command = Command::new("ip");
    command.args(arguments).args(["-batch", "-"]);
    let failed = |message: String| {
        let command = format!("ip {} -batch -", arguments.join(" "));
        Error::Command { command, message }
    };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("{error}; the lab needs iproute2")))?;
    let mut stdin = child.stdin.take().expect("standard input is piped");
    // If the tool exits early, its standard error says why; it is read below.
    let written = stdin.write_all((lines.join("\n") + "\n").as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() && written.is_ok() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let number = errors.rsplit("failed -:").next().and_then(|rest| rest.trim().parse::<usize>().ok());
    let line = number.and_then(|number| lines.get(number.checked_sub(1)?));
    Err(failed(format!("{}\n  at: {}", errors.trim(), line.map_or("?", String::as_str))))
}
