//! A running program: exchange of data with it, and its end.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;

use super::error::{ProgramError, ProgramErrorKind};
use super::output::ErrorOutput;
use super::processor_time::ProcessorTime;
use super::{BUFFER, ExternalProgram, MAX_OUTPUT, ProgramEnd, TimeLimit};
use super::{progress, running};

/// The period of checks for the end of a program whose output does not end, because another process has its pipes.
const CHECK_PERIOD: Duration = Duration::from_millis(100);

/// The period of reports of progress.
const REPORT_PERIOD: Duration = Duration::from_secs(1);

/// The longest wait for the end of a program that was killed.
const KILL_WAIT: Duration = Duration::from_secs(2);

/// The first and the longest pause between two checks for the end of a program that has closed its output.
const PAUSES: [Duration; 2] = [Duration::from_micros(100), Duration::from_millis(10)];

/// Handles output of a program.
type HandleOutput<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), ProgramErrorKind>;

/// A running program.
pub(super) struct Process<'a> {
    program: &'a ExternalProgram,
    /// `None` once its end is known.
    child: Option<Child>,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    handle_output: HandleOutput<'a>,
    printed: u64,
    errors: ErrorOutput,
    limit: TimeLimit,
    /// The last check for progress.
    checked: Checked,
    /// The reason why it must be killed.
    failure: Option<ProgramErrorKind>,
    buffer: Vec<u8>,
}

/// The state of a program at a check for progress.
#[derive(Clone, Copy)]
struct Checked {
    at: Instant,
    /// The time for which it ran, or could have run and waited for a processor.
    runnable: Duration,
    /// The number of bytes that it took or printed.
    bytes: u64,
}

/// The input of a program.
pub(super) struct Input<'p, 'a>(pub(super) &'p mut Process<'a>);

/// A program whose output is read.
trait OutputReader {
    /// Returns true if its output has ended or it must be killed.
    fn is_finished(&self) -> bool;

    /// Returns true if the program has ended. Another process may still have its pipes.
    fn has_ended(&self) -> bool;

    /// Waits for output, and reads it. Returns false if none arrived for a while.
    fn read(&mut self) -> bool;
}

/// Reads until the output ends or, as another process may have the pipes, until the program has ended and its output is read.
fn read_until_end(reader: &mut impl OutputReader) {
    while !reader.is_finished() {
        // The order matters: all that a program printed is in its pipes once it has ended.
        let has_ended = reader.has_ended();
        if !reader.read() && has_ended {
            break;
        }
    }
}

impl OutputReader for Process<'_> {
    fn is_finished(&self) -> bool {
        self.failure.is_some() || (self.stdout.is_none() && self.stderr.is_none())
    }

    fn has_ended(&self) -> bool {
        self.child.as_ref().is_some_and(running::has_ended)
    }

    fn read(&mut self) -> bool {
        self.exchange(false)
    }
}

impl<'a> Process<'a> {
    /// Starts a program. With `has_input` its input is fed and its output discarded.
    pub(super) fn start(
        program: &'a ExternalProgram,
        has_input: bool,
        handle_output: HandleOutput<'a>,
    ) -> Result<Self, ProgramError> {
        let [stdin, stdout] = match has_input {
            true => [Stdio::piped(), Stdio::null()],
            false => [Stdio::null(), Stdio::piped()],
        };
        let mut command = Command::new(&program.name);
        command.envs(program.environment.iter().map(|(name, value)| (name, value)));
        command.args(&program.arguments).stdin(stdin).stdout(stdout).stderr(Stdio::piped()).process_group(0);
        let now = Instant::now();
        let limit = TimeLimit::new(program.limit, now);
        let mut child = running::start(&program.name, &mut command).map_err(|kind| program.error(kind))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut process = Process {
            program,
            child: Some(child),
            stdin,
            stdout,
            stderr,
            handle_output,
            printed: 0,
            errors: ErrorOutput::default(),
            limit,
            checked: Checked { at: now, runnable: Duration::ZERO, bytes: 0 },
            failure: None,
            buffer: vec![0; BUFFER],
        };
        process.set_nonblocking().map_err(|error| {
            process.kill();
            program.error(ProgramErrorKind::Io(error))
        })?;
        Ok(process)
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        let pipes = [
            self.stdin.as_ref().map(AsFd::as_fd),
            self.stdout.as_ref().map(AsFd::as_fd),
            self.stderr.as_ref().map(AsFd::as_fd),
        ];
        pipes.into_iter().flatten().try_for_each(|pipe| Ok(ioctl_fionbio(pipe, true)?))
    }

    /// Closes its input, reads the rest of its output, and waits for its end.
    pub(super) fn finish(mut self) -> Result<ProgramEnd, ProgramError> {
        self.stdin = None;
        read_until_end(&mut self);
        let mut pause = PAUSES[0];
        while self.failure.is_none() && !self.has_ended() {
            self.check_limits();
            thread::sleep(pause);
            pause = (pause * 2).min(PAUSES[1]);
        }
        if let Some(failure) = self.failure.take() {
            let failure = self.fail(failure);
            return Err(self.program.error(failure));
        }
        let mut child = self.child.take().expect("it has not been waited for");
        let status =
            running::end(&mut child).map_err(|error| self.program.error(ProgramErrorKind::Io(error)))?;
        let message = std::mem::take(&mut self.errors).into_text();
        match status.signal() {
            Some(_) if running::is_interrupted() => Err(self.program.error(ProgramErrorKind::Interrupted)),
            Some(signal) => Err(self.program.error(ProgramErrorKind::Killed { signal, message })),
            None => Ok(ProgramEnd { status, message }),
        }
    }

    /// Kills the program, and returns the reason with what is known then.
    fn fail(&mut self, failure: ProgramErrorKind) -> ProgramErrorKind {
        let has_ended = self.kill();
        match failure {
            ProgramErrorKind::TimedOut { limit, waited, .. } => {
                running::count_timeout(&self.program.name);
                ProgramErrorKind::TimedOut { limit, waited, is_hanging: !has_ended }
            }
            other => other,
        }
    }

    /// Kills the program with its process group. Returns true if it has ended.
    fn kill(&mut self) -> bool {
        let Some(mut child) = self.child.take() else { return true };
        running::kill_group(&child);
        let start = Instant::now();
        while !running::has_ended(&child) {
            if start.elapsed() > KILL_WAIT {
                running::abandon(&self.program.name, child);
                return false;
            }
            thread::sleep(PAUSES[1]);
        }
        // Its status does not matter.
        let _ = running::end(&mut child);
        true
    }

    /// Sets the failure at the time limit, or if this process is being stopped, and reports progress.
    fn check_limits(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.checked.at) >= REPORT_PERIOD || self.limit.left(now).is_none() {
            self.check_progress(now);
        }
        if running::is_interrupted() {
            self.failure.get_or_insert(ProgramErrorKind::Interrupted);
        } else if self.limit.left(now).is_none() {
            let (limit, waited) = (self.limit.limit(), self.limit.waited());
            self.failure.get_or_insert(ProgramErrorKind::TimedOut { limit, waited, is_hanging: false });
        }
    }

    /// Reads the program's processor time, and reports progress.
    fn check_progress(&mut self, now: Instant) {
        let Some(child) = &self.child else { return };
        let ProcessorTime { used, waited, is_runnable } = ProcessorTime::of(child.id());
        self.limit.set_waited(waited);
        if is_runnable && used < self.limit.limit() && self.limit.left(now).is_none() {
            self.limit.wait_on(now, CHECK_PERIOD);
        }
        let before = self.checked;
        self.checked = Checked { at: now, runnable: used + waited, bytes: self.limit.bytes() };
        // A program that waits for something, and looks for it again and again, makes no progress.
        let works =
            self.checked.runnable.saturating_sub(before.runnable) * 2 >= now.duration_since(before.at);
        if works || self.checked.bytes > before.bytes {
            progress::advanced();
        }
    }

    /// Waits until the program prints something or, with `can_write`, takes input, and reads what it printed. Returns false if
    /// nothing happened for a while.
    fn exchange(&mut self, can_write: bool) -> bool {
        self.check_limits();
        if self.failure.is_some() {
            return true;
        }
        let left = self.limit.left(Instant::now()).unwrap_or_default().min(CHECK_PERIOD);
        let ready = match self.wait_for_pipes(can_write, left) {
            Ok(ready) => ready,
            Err(error) => {
                self.failure = Some(ProgramErrorKind::Io(error));
                return true;
            }
        };
        if ready.contains(&Pipe::Output) {
            self.read_output();
        }
        if ready.contains(&Pipe::Errors) {
            self.read_errors();
        }
        !ready.is_empty()
    }

    fn wait_for_pipes(&self, can_write: bool, timeout: Duration) -> io::Result<Vec<Pipe>> {
        let mut pipes: Vec<(Pipe, BorrowedFd<'_>, PollFlags)> = Vec::with_capacity(3);
        if let Some(input) = self.stdin.as_ref().filter(|_| can_write) {
            pipes.push((Pipe::Input, input.as_fd(), PollFlags::OUT));
        }
        if let Some(output) = &self.stdout {
            pipes.push((Pipe::Output, output.as_fd(), PollFlags::IN));
        }
        if let Some(errors) = &self.stderr {
            pipes.push((Pipe::Errors, errors.as_fd(), PollFlags::IN));
        }
        let mut polled: Vec<PollFd<'_>> =
            pipes.iter().map(|(_, pipe, flags)| PollFd::from_borrowed_fd(*pipe, *flags)).collect();
        let timeout = Timespec::try_from(timeout).expect("a tenth of a second");
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = pipes.iter().zip(&polled).filter(|(_, polled)| !polled.revents().is_empty());
        Ok(ready.map(|((pipe, ..), _)| *pipe).collect())
    }

    fn read_output(&mut self) {
        let Some(output) = &mut self.stdout else { return };
        match output.read(&mut self.buffer) {
            Ok(0) => self.stdout = None,
            Ok(read) => {
                self.printed += read as u64;
                self.limit.add_bytes(read);
                let handled = (self.handle_output)(&self.buffer[..read]);
                let total = match self.printed > MAX_OUTPUT {
                    true => Err(ProgramErrorKind::TooMuchOutput(MAX_OUTPUT)),
                    false => Ok(()),
                };
                self.failure = handled.and(total).err();
            }
            Err(error) if is_transient(&error) => {}
            Err(error) => self.failure = Some(ProgramErrorKind::Io(error)),
        }
    }

    /// Reads error output, which does not prolong the time limit.
    fn read_errors(&mut self) {
        let Some(errors) = &mut self.stderr else { return };
        match errors.read(&mut self.buffer) {
            Ok(0) => self.stderr = None,
            Ok(read) => self.errors.push(&self.buffer[..read]),
            Err(error) if is_transient(&error) => {}
            Err(error) => self.failure = Some(ProgramErrorKind::Io(error)),
        }
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A pipe to or from a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pipe {
    Input,
    Output,
    Errors,
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl Write for Input<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let process = &mut *self.0;
        loop {
            if process.failure.is_some() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let Some(input) = &mut process.stdin else { return Err(io::ErrorKind::BrokenPipe.into()) };
            match input.write(bytes) {
                Ok(written) => {
                    process.limit.add_bytes(written);
                    return Ok(written);
                }
                Err(error) if is_transient(&error) => {
                    process.exchange(true);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that prints a text and ends after a number of waits for its output.
    struct Printer {
        waits_until_end: usize,
        is_text_read: bool,
    }

    impl OutputReader for Printer {
        fn is_finished(&self) -> bool {
            false
        }

        fn has_ended(&self) -> bool {
            self.waits_until_end == 0
        }

        fn read(&mut self) -> bool {
            if self.has_ended() {
                return !std::mem::replace(&mut self.is_text_read, true);
            }
            // It prints and ends just after this wait.
            self.waits_until_end -= 1;
            false
        }
    }

    #[test]
    fn output_of_a_program_that_ends_between_a_wait_and_the_check_is_read() {
        for waits_until_end in 0..3 {
            let mut printer = Printer { waits_until_end, is_text_read: false };
            read_until_end(&mut printer);
            assert!(printer.is_text_read, "the program ended after {waits_until_end} waits");
        }
    }
}
