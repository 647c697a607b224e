//! Standard output of commands, which ignores EPIPE.

use std::io::{self, ErrorKind, Write};

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};

use crate::progress_bar;

/// Returns true if output to a stream has colors: it is a terminal, unless `NO_COLOR` is set, or `CLICOLOR_FORCE` is set.
pub(crate) fn has_colors(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

/// A writer that discards everything once the reader has closed the pipe (`portcullis render | head -1`), so that the
/// command ends with its usual exit status.
#[derive(Debug)]
pub(crate) struct Output<W> {
    inner: W,
    is_closed: bool,
}

impl<W> Output<W> {
    /// A writer to `inner`.
    pub(crate) fn new(inner: W) -> Self {
        Output { inner, is_closed: false }
    }

    /// Returns true if the reader has closed the pipe.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }
}

impl<W: Write> Output<W> {
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
        self.unless_closed(bytes.len(), |inner| inner.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unless_closed((), Write::flush)
    }
}
