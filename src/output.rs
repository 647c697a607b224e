//! Standard output of commands, which ignores EPIPE.

use std::io::{self, ErrorKind, IsTerminal, StdoutLock, Write};

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::progress_bar;

/// Returns true if output to a stream has colors: it is a terminal, unless `NO_COLOR` is set, or `CLICOLOR_FORCE` is set.
pub(crate) fn has_colors(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

/// Returns true if the reader of standard output has closed it, which a command notices by itself only when it writes.
pub(crate) fn is_stdout_closed() -> bool {
    let stdout = io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now))
        .is_ok_and(|_| polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP))
}

/// The bytes that are written with one system call if the output is no terminal.
const BUFFER: usize = 64 << 10;

/// A writer that discards everything once the reader has closed the pipe (`portcullis render | head -1`), so that the
/// command ends with its usual exit status. What is buffered is written by `flush`; without it, only if no error occurs.
#[derive(Debug)]
pub(crate) struct Output<W: Write> {
    inner: W,
    buffer: Vec<u8>,
    /// The size at which the buffer is written.
    capacity: usize,
    is_closed: bool,
}

impl Output<StdoutLock<'static>> {
    /// Returns a writer to standard output. Lines appear on a terminal immediately; other readers get large parts.
    pub(crate) fn stdout() -> Self {
        let stdout = io::stdout();
        let capacity = if stdout.is_terminal() { 0 } else { BUFFER };
        Output::with_capacity(capacity, stdout.lock())
    }
}

impl<W: Write> Output<W> {
    /// Returns a writer to `inner` without a buffer.
    pub(crate) fn new(inner: W) -> Self {
        Output::with_capacity(0, inner)
    }

    fn with_capacity(capacity: usize, inner: W) -> Self {
        Output { inner, buffer: Vec::new(), capacity, is_closed: false }
    }

    /// Returns true if the reader has closed the pipe.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        self.unless_closed((), |inner| inner.write_all(&buffer))?;
        // The memory is used again.
        buffer.clear();
        self.buffer = buffer;
        Ok(())
    }

    fn unless_closed<T>(&mut self, done: T, write: impl FnOnce(&mut W) -> io::Result<T>) -> io::Result<T> {
        if self.is_closed {
            return Ok(done);
        }
        progress_bar::finish_before_output();
        match write(&mut self.inner) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(done)
            }
            result => result,
        }
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.capacity == 0 {
            return self.unless_closed(bytes.len(), |inner| inner.write(bytes));
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= self.capacity {
            self.write_buffer()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_buffer()?;
        self.unless_closed((), Write::flush)
    }
}

impl<W: Write> Drop for Output<W> {
    /// Writes the buffer after an error or a panic, whose message says more than an error of this write.
    fn drop(&mut self) {
        drop(self.write_buffer());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that closes the pipe after a number of writes.
    struct Pipe {
        writes: Vec<usize>,
        limit: usize,
    }

    impl Write for &mut Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.writes.len() == self.limit {
                return Err(ErrorKind::BrokenPipe.into());
            }
            self.writes.push(bytes.len());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_in_large_parts_to_readers_other_than_a_terminal() {
        let mut pipe = Pipe { writes: Vec::new(), limit: usize::MAX };
        let mut out = Output::with_capacity(BUFFER, &mut pipe);
        for number in 0..100_000 {
            writeln!(out, "line {number}").expect("the pipe is open");
        }
        out.flush().expect("the pipe is open");
        drop(out);
        let bytes: usize = (0..100_000).map(|number| format!("line {number}\n").len()).sum();
        assert_eq!(pipe.writes.iter().sum::<usize>(), bytes);
        assert!(pipe.writes.len() <= bytes / BUFFER + 1, "{} writes", pipe.writes.len());
    }

    #[test]
    fn closed_pipe_is_no_error_and_found_at_the_flush() {
        let mut pipe = Pipe { writes: Vec::new(), limit: 0 };
        let mut out = Output::with_capacity(BUFFER, &mut pipe);
        writeln!(out, "line").expect("it is buffered");
        assert!(!out.is_closed());
        out.flush().expect("a closed pipe is no error");
        assert!(out.is_closed());
    }
}
