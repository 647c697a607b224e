//! Programs that this process runs: the iptables tools, modprobe, and the exec plugin of a kubeconfig.
//!
//! A program may hang, print without end, or be killed. None of these may stop a sync for ever, take memory without limit, or keep
//! this process from ending:
//!
//! ```text
//! start in a process group ─► feed input, read output ─► exit ─► status
//!                                    │ time limit, too much output, interrupt_all
//!                                    └─► SIGKILL to the group ─► error; if it still does not end, no further run is started
//! ```
//!
//! The time limit grows with the bytes that the program takes and prints, so that it fits restores of any size. It includes the
//! wait for the xtables lock, but not waits for a processor: on a busy machine, a program that works is not killed.

mod error;
mod modprobe;
mod output;
mod process;
mod processor_time;
mod progress;
mod running;
#[cfg(test)]
mod tests;
mod time_limit;

use std::io::{self, BufWriter, Write};
use std::process::ExitStatus;
use std::time::Duration;

pub use error::{ProgramError, ProgramErrorKind};
pub use modprobe::modprobe;
use output::Lines;
use process::{Input, Process};
pub use progress::report_progress;
pub use running::{interrupt_all, timeouts};
use time_limit::TimeLimit;
pub use time_limit::set_time_limit;

/// The largest output of a program in bytes: over a million rules.
const MAX_OUTPUT: u64 = 512 << 20;

/// The largest output in bytes that is kept as a whole.
const MAX_TEXT: usize = 1 << 20;

/// The size of the buffer for input.
const BUFFER: usize = 64 * 1024;

/// A program with its arguments, to be run without a terminal. Its input is empty unless it is fed.
#[derive(Clone, Debug)]
pub struct ExternalProgram {
    name: String,
    arguments: Vec<String>,
    /// Variables in addition to those of this process.
    environment: Vec<(String, String)>,
    limit: Duration,
}

/// The end of a program that ran.
#[derive(Clone, Debug)]
pub struct ProgramEnd {
    /// Its exit status.
    pub status: ExitStatus,
    /// The last lines of its error output.
    pub message: String,
}

impl ExternalProgram {
    /// Returns a program that is found in `PATH`, with the [time limit](set_time_limit) of all programs.
    pub fn new(name: impl Into<String>) -> Self {
        let limit = time_limit::configured();
        ExternalProgram { name: name.into(), arguments: Vec::new(), environment: Vec::new(), limit }
    }

    /// Adds arguments.
    #[must_use]
    pub fn with_arguments<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments.extend(arguments.into_iter().map(str::to_owned));
        self
    }

    /// Sets variables of its environment, in addition to those of this process.
    #[must_use]
    pub fn with_environment<'a>(mut self, variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.environment.extend(variables);
        self
    }

    /// Sets another time limit than that of all programs.
    #[must_use]
    pub fn with_time_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Prolongs the time limit.
    #[must_use]
    pub fn with_more_time(mut self, more: Duration) -> Self {
        self.limit += more;
        self
    }

    /// Returns the program with its arguments, as in a shell.
    pub fn command_line(&self) -> String {
        std::iter::once(&self.name).chain(&self.arguments).map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    /// Runs it with the input that `write` writes; its output is discarded.
    ///
    /// # Errors
    /// It could not be run to its end. If it ends before it has read all of its input, its status counts.
    pub fn feed(
        &self,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<ProgramEnd, ProgramError> {
        let mut ignore = |_: &[u8]| Ok(());
        let mut process = Process::start(self, true, &mut ignore)?;
        let mut input = BufWriter::with_capacity(BUFFER, Input(&mut process));
        // A program that rejects its input stops reading; its error message matters more than the broken pipe.
        let written = write(&mut input).and_then(|()| input.flush());
        drop(input.into_parts());
        let end = process.finish()?;
        match written {
            Err(error) if end.status.success() => Err(self.error(ProgramErrorKind::Io(error))),
            _ => Ok(end),
        }
    }

    /// Runs it, and calls `line` with each line that it prints. Bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// It could not be run to its end.
    pub fn read_lines(&self, line: &mut dyn FnMut(&str)) -> Result<ProgramEnd, ProgramError> {
        let mut lines = Lines::default();
        let end = Process::start(self, false, &mut |bytes| lines.push(bytes, line))?.finish()?;
        lines.finish(line);
        Ok(end)
    }

    /// Runs it, and returns its output. Bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// It could not be run to its end.
    pub fn output(&self) -> Result<(ProgramEnd, String), ProgramError> {
        let mut output = Vec::new();
        let mut keep = |bytes: &[u8]| {
            output.extend_from_slice(bytes);
            if output.len() > MAX_TEXT {
                Err(ProgramErrorKind::TooMuchOutput(MAX_TEXT as u64))
            } else {
                Ok(())
            }
        };
        let end = Process::start(self, false, &mut keep)?.finish()?;
        Ok((end, String::from_utf8_lossy(&output).into_owned()))
    }

    fn error(&self, kind: ProgramErrorKind) -> ProgramError {
        ProgramError { command: self.command_line(), kind }
    }
}
