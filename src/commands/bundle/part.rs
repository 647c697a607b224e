//! The parts of a support archive: each has a limit of its size and of its time.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// The largest part in bytes, before compression.
pub(super) const MAX_PART: usize = 16 << 20;

/// The time limit of a part.
pub(super) const PART_LIMIT: Duration = Duration::from_secs(20);

/// A part of the archive.
pub(super) struct Part {
    /// Its file in the archive.
    pub(super) name: String,
    /// Its content, for the index.
    pub(super) description: &'static str,
    collect: Collect,
}

type Collect = Box<dyn FnOnce(&mut PartBuffer) -> Result<(), PartError> + Send>;

/// Why a part has no content, or only some.
#[derive(Debug)]
pub(super) enum PartError {
    /// There is nothing to collect on this node or with this configuration.
    NotApplicable(String),
    /// It could not be collected.
    Failed(String),
}

impl PartError {
    pub(super) fn failed(reason: impl ToString) -> Self {
        PartError::Failed(reason.to_string())
    }

    pub(super) fn not_applicable(reason: impl ToString) -> Self {
        PartError::NotApplicable(reason.to_string())
    }
}

impl From<io::Error> for PartError {
    fn from(error: io::Error) -> Self {
        PartError::Failed(error.to_string())
    }
}

/// What was collected of a part.
pub(super) struct CollectedPart {
    pub(super) bytes: Vec<u8>,
    pub(super) error: Option<PartError>,
    pub(super) duration: Duration,
}

/// The content of a part up to the limit of its size.
#[derive(Clone, Default)]
pub(super) struct PartBuffer {
    bytes: Arc<Mutex<Vec<u8>>>,
    is_truncated: bool,
}

impl Part {
    pub(super) fn new(
        name: impl Into<String>,
        description: &'static str,
        collect: impl FnOnce(&mut PartBuffer) -> Result<(), PartError> + Send + 'static,
    ) -> Self {
        Part { name: name.into(), description, collect: Box::new(collect) }
    }

    /// Collects the part on a thread of its own, and gives up at the time limit; what was collected until then is kept.
    pub(super) fn collect(self, limit: Duration) -> CollectedPart {
        let (start, buffer) = (Instant::now(), PartBuffer::default());
        let (sender, receiver) = mpsc::channel();
        let mut of_thread = buffer.clone();
        let collect = self.collect;
        let run = move || {
            let result = collect(&mut of_thread);
            let truncated = format!("it is larger than {} MiB; the rest is missing", MAX_PART >> 20);
            let result = if of_thread.is_truncated { Err(PartError::Failed(truncated)) } else { result };
            // The receiver has given up if this fails.
            let _ = sender.send(result);
        };
        let error = match thread::Builder::new().name("bundle-part".into()).spawn(run) {
            Err(error) => Some(PartError::failed(error)),
            Ok(_) => match receiver.recv_timeout(limit) {
                Ok(result) => result.err(),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    Some(PartError::Failed(format!("it was not complete after {} s", limit.as_secs_f64())))
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    Some(PartError::failed("collecting it failed unexpectedly"))
                }
            },
        };
        let bytes = std::mem::take(&mut *buffer.bytes.lock().unwrap_or_else(PoisonError::into_inner));
        CollectedPart { bytes, error, duration: start.elapsed() }
    }
}

impl PartBuffer {
    /// Replaces the content by the last bytes of a text, from the start of a line, if it is too large.
    pub(super) fn write_tail(&mut self, bytes: &[u8]) -> io::Result<()> {
        let excess = bytes.len().saturating_sub(MAX_PART);
        let tail = match excess {
            0 => bytes,
            _ => {
                let start = bytes[excess..]
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .map_or(excess, |at| excess + at + 1);
                &bytes[start..]
            }
        };
        self.write_all(tail)
    }
}

impl Write for PartBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut content = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_PART.saturating_sub(content.len());
        if room == 0 && !bytes.is_empty() {
            self.is_truncated = true;
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the part is too large"));
        }
        let taken = bytes.len().min(room);
        content.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_that_hangs_keeps_what_was_collected() {
        let part = Part::new("a", "", |out| {
            out.write_all(b"first")?;
            thread::sleep(Duration::from_secs(600));
            Ok(())
        });
        let collected = part.collect(Duration::from_millis(200));
        assert_eq!(collected.bytes, b"first");
        assert!(
            matches!(collected.error, Some(PartError::Failed(reason)) if reason.contains("not complete after"))
        );
    }

    #[test]
    fn part_is_truncated_at_its_limit_and_says_so() {
        let part = Part::new("a", "", |out| {
            loop {
                out.write_all(&[b'x'; 1 << 20])?;
            }
        });
        let collected = part.collect(PART_LIMIT);
        assert_eq!(collected.bytes.len(), MAX_PART);
        assert!(
            matches!(collected.error, Some(PartError::Failed(reason)) if reason.contains("larger than 16 MiB"))
        );
    }

    #[test]
    fn tail_of_a_log_starts_with_a_whole_line() {
        let mut log = b"oldest line\n".repeat(MAX_PART / 12 + 10);
        log.extend_from_slice(b"newest line\n");
        let mut buffer = PartBuffer::default();
        buffer.write_tail(&log).expect("it fits");
        let bytes = buffer.bytes.lock().expect("no thread panicked");
        assert!(bytes.len() <= MAX_PART && bytes.len() > MAX_PART - 12);
        assert!(bytes.starts_with(b"oldest line\n") && bytes.ends_with(b"\nnewest line\n"));
    }
}
