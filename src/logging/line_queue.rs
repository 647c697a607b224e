//! Bounded queue of log lines for a file that may be slow, full or blocked. Lines that do not fit are dropped and counted.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Maximum number of queued lines.
const LINES: usize = 4096;

/// Maximum number of queued bytes.
const BYTES: usize = 4 << 20;

/// Pause before retrying while the file or the queue is full.
const PAUSE: Duration = Duration::from_millis(20);

/// Minimum interval between two lines that report dropped lines.
const DROPS_REPORTED: Duration = Duration::from_secs(10);

/// A bounded queue of lines, and the thread that writes them.
#[derive(Debug)]
pub(super) struct LineQueue {
    messages: SyncSender<Message>,
    counts: Arc<Counts>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Request for a notification when all earlier lines are written.
    Flush(SyncSender<()>),
}

#[derive(Debug, Default)]
struct Counts {
    waiting_bytes: AtomicUsize,
    dropped_lines: AtomicU64,
}

impl LineQueue {
    /// Starts the writing thread.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be created.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (messages, queued) = sync_channel(LINES);
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        thread::Builder::new().name("log".into()).spawn(move || write_lines(&queued, out, &shared))?;
        Ok(LineQueue { messages, counts })
    }

    /// Returns a writer that queues lines and never blocks.
    pub(super) fn writer(&self) -> LineWriter<'_> {
        LineWriter(self)
    }

    /// Returns the number of lines that did not fit or could not be written.
    pub(super) fn dropped(&self) -> u64 {
        self.counts.dropped_lines.load(Ordering::Relaxed)
    }

    /// Queues a line, waiting for space for up to `timeout`.
    pub(super) fn push_within(&self, line: Vec<u8>, timeout: Duration) {
        let (until, size) = (Instant::now() + timeout, line.len());
        self.counts.waiting_bytes.fetch_add(size, Ordering::Relaxed);
        if !self.send_until(Message::Line(line), until) {
            self.counts.drop_line(size);
        }
    }

    /// Waits until the lines queued so far are written.
    pub(super) fn flush(&self, timeout: Duration) {
        let until = Instant::now() + timeout;
        let (done, written) = sync_channel(1);
        if self.send_until(Message::Flush(done), until) {
            let _late = written.recv_timeout(until.saturating_duration_since(Instant::now()));
        }
    }

    fn send_until(&self, mut message: Message, until: Instant) -> bool {
        loop {
            match self.messages.try_send(message) {
                Ok(()) => return true,
                Err(TrySendError::Full(back)) if Instant::now() < until => message = back,
                Err(_) => return false,
            }
            thread::sleep(PAUSE);
        }
    }

    fn push(&self, line: &[u8]) {
        let waiting = self.counts.waiting_bytes.fetch_add(line.len(), Ordering::Relaxed);
        let fits = waiting + line.len() <= BYTES;
        if !fits || self.messages.try_send(Message::Line(line.to_vec())).is_err() {
            self.counts.drop_line(line.len());
        }
    }
}

impl Counts {
    /// Counts a line that was removed from the queue without being written.
    fn drop_line(&self, size: usize) {
        self.waiting_bytes.fetch_sub(size, Ordering::Relaxed);
        self.dropped_lines.fetch_add(1, Ordering::Relaxed);
    }
}

/// Queues each write as one line; `tracing_subscriber` makes one for each event.
pub(super) struct LineWriter<'a>(&'a LineQueue);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(queued: &Receiver<Message>, mut out: impl Write, counts: &Counts) {
    let (mut reported, mut last_report) = (0, None);
    for message in queued {
        let line = match message {
            Message::Line(line) => line,
            Message::Flush(done) => {
                // The waiting thread may have timed out.
                let _ = done.try_send(());
                continue;
            }
        };
        if write(&mut out, &line).is_err() {
            counts.drop_line(line.len());
            continue;
        }
        counts.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
        let dropped = counts.dropped_lines.load(Ordering::Relaxed);
        let due = last_report.is_none_or(|at: Instant| at.elapsed() >= DROPS_REPORTED);
        if dropped > reported && due {
            tracing::warn!(
                lines = dropped - reported,
                "lines of the log were dropped: standard error could not take them"
            );
            (reported, last_report) = (dropped, Some(Instant::now()));
        }
    }
}

/// Writes a whole line, even if another process has set the file to non-blocking.
fn write(out: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match out.write(line) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => line = &line[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// File whose next writes fail with `failures`, or block while `stuck` is locked.
    #[derive(Clone, Default)]
    struct File {
        taken: Arc<Mutex<Vec<u8>>>,
        failures: Arc<Mutex<Vec<ErrorKind>>>,
        stuck: Arc<Mutex<()>>,
    }

    impl Write for File {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            drop(self.stuck.lock().expect("no panic"));
            if let Some(kind) = self.failures.lock().expect("no panic").pop() {
                return Err(kind.into());
            }
            // A few bytes at a time.
            let some = bytes.len().min(3);
            self.taken.lock().expect("no panic").extend(&bytes[..some]);
            Ok(some)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const TIMEOUT: Duration = Duration::from_secs(30);

    #[test]
    fn lines_are_written_whole_or_counted() {
        use ErrorKind::{BrokenPipe, Interrupted, StorageFull, WouldBlock};
        // Failures of the file, its content after writing the lines "first" and "second", and the number of dropped lines.
        let rows: [(&[ErrorKind], &str, u64); 4] = [
            (&[], "first\nsecond\n", 0),
            (&[WouldBlock, Interrupted], "first\nsecond\n", 0),
            (&[StorageFull], "second\n", 1),
            (&[BrokenPipe, BrokenPipe], "", 2),
        ];
        for (failures, expected, dropped) in rows {
            let file = File::default();
            file.failures.lock().expect("no panic").extend(failures);
            let queue = LineQueue::start(file.clone()).expect("a thread");
            for line in ["first\n", "second\n"] {
                queue.writer().write_all(line.as_bytes()).expect("it never fails");
            }
            queue.flush(TIMEOUT);
            assert_eq!(
                String::from_utf8_lossy(&file.taken.lock().expect("no panic")),
                expected,
                "{failures:?}"
            );
            assert_eq!(queue.dropped(), dropped, "{failures:?}");
        }
    }

    #[test]
    fn a_blocked_file_does_not_block_logging() {
        // Too many lines, and too many bytes.
        for size in [10, BYTES / 8] {
            let file = File::default();
            let stuck = file.stuck.lock().expect("no panic");
            let queue = LineQueue::start(file.clone()).expect("a thread");
            let line = vec![b'x'; size];
            for _ in 0..LINES + 10 {
                queue.writer().write_all(&line).expect("it never fails");
            }
            assert!(queue.dropped() >= 8, "{size}: {}", queue.dropped());
            assert!(queue.counts.waiting_bytes.load(Ordering::Relaxed) <= BYTES);
            let begun = Instant::now();
            queue.push_within(b"last\n".to_vec(), Duration::from_millis(50));
            queue.flush(Duration::from_millis(50));
            assert!(begun.elapsed() < TIMEOUT);
            drop(stuck);
            // The file is writable again: the queued lines are written.
            queue.flush(TIMEOUT);
            assert!(file.taken.lock().expect("no panic").starts_with(&line[..10]));
        }
    }
}
