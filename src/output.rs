//! Standard output of the commands that print and end.

use std::io::{self, ErrorKind, Write};

/// Writes until the reader has seen enough (`portcullis render | head -1`). From then on nothing is written and nothing
/// fails, so that the command ends as usual, and with the exit status that its answer has.
#[derive(Debug)]
pub(crate) struct Output<W> {
    inner: W,
    reader_gone: bool,
}

impl<W> Output<W> {
    /// Writes to this.
    pub(crate) fn new(inner: W) -> Self {
        Output { inner, reader_gone: false }
    }
}

impl<W: Write> Output<W> {
    fn unless_gone<T>(&mut self, done: T, write: impl FnOnce(&mut W) -> io::Result<T>) -> io::Result<T> {
        if self.reader_gone {
            return Ok(done);
        }
        match write(&mut self.inner) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.reader_gone = true;
                Ok(done)
            }
            result => result,
        }
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unless_gone(bytes.len(), |inner| inner.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unless_gone((), Write::flush)
    }
}
