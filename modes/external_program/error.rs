//! Errors of programs that this process runs.

use std::fmt;
use std::io;
use std::time::Duration;

/// A program could not be run to its end.
#[derive(Debug)]
pub struct ProgramError {
    /// The program with its arguments.
    pub command: String,
    /// The reason.
    pub kind: ProgramErrorKind,
}

/// Why a program could not be run to its end.
#[derive(Debug)]
pub enum ProgramErrorKind {
    /// It is missing or could not be started.
    CannotStart(io::Error),
    /// Its input could not be written, or its output could not be read.
    Io(io::Error),
    /// It was killed at its time limit. `is_hanging`: it had not ended yet when this error was returned.
    TimedOut {
        /// Its time limit.
        limit: Duration,
        /// The time for which it waited for a processor, which does not count.
        waited: Duration,
        /// It ignores SIGKILL, for example because it waits in the kernel.
        is_hanging: bool,
    },
    /// A signal of another process ended it, for example SIGKILL for lack of memory.
    Killed {
        /// The number of the signal.
        signal: i32,
        /// The last lines of its error output.
        message: String,
    },
    /// It was killed because it printed more than this number of bytes.
    TooMuchOutput(u64),
    /// It was not started: the process of an earlier run was killed and has not ended yet.
    StillHanging {
        /// The ID of that process.
        pid: u32,
    },
    /// It was killed or not started because this process is being stopped.
    Interrupted,
}

impl std::error::Error for ProgramError {}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = &self.command;
        match &self.kind {
            ProgramErrorKind::CannotStart(error) => write!(f, "cannot run {command}: {error}"),
            ProgramErrorKind::Io(error) => write!(f, "cannot exchange data with {command}: {error}"),
            ProgramErrorKind::TimedOut { limit, waited, is_hanging } => {
                write!(f, "{command} did not end within {:.1} s", limit.as_secs_f64())?;
                if *waited >= Duration::from_secs(1) {
                    write!(
                        f,
                        ", apart from {:.1} s in which it waited for a processor,",
                        waited.as_secs_f64()
                    )?;
                }
                f.write_str(" and was killed")?;
                if *is_hanging {
                    f.write_str("; it has not ended yet, and may hang in the kernel")
                } else {
                    Ok(())
                }
            }
            ProgramErrorKind::Killed { signal, message } => {
                write!(f, "{command} was ended by signal {signal}")?;
                if message.is_empty() { Ok(()) } else { write!(f, ": {message}") }
            }
            ProgramErrorKind::TooMuchOutput(limit) => {
                write!(f, "{command} printed more than {limit} bytes and was killed")
            }
            ProgramErrorKind::StillHanging { pid } => write!(
                f,
                "{command} was not started: process {pid} of an earlier run was killed and has not ended yet; it may hang in \
                 the kernel"
            ),
            ProgramErrorKind::Interrupted => {
                write!(f, "{command} was interrupted, as this process is being stopped")
            }
        }
    }
}
