//! The log: text for people or JSON for machines, at upstream's levels.
//!
//! Standard error may be full, closed, or a pipe that nothing reads. None of these may stop the program:
//!
//! ```text
//! daemon:    tracing ─► LineQueue ─► a thread ─► standard error      a full queue and failed writes drop lines
//! commands:  tracing ─────────────────────────► standard error      failed writes drop lines
//! ```

mod line_queue;
mod panics;

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::config::{LogFormat, Logging};
use line_queue::LineQueue;
pub use panics::exit_on_panic;

/// How long the end of the program waits for lines that have not been written yet.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The daemon's queue of lines.
static QUEUE: OnceLock<LineQueue> = OnceLock::new();

/// How lines get to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// By a thread: logging never waits for who reads the log.
    Queued,
    /// Immediately, as expected of a command.
    Direct,
}

/// Starts logging to standard error. `RUST_LOG`, where set, says more exactly what is logged.
pub fn start(logging: Logging, delivery: Delivery) {
    let level = match logging.verbosity {
        0..=3 => LevelFilter::INFO,
        4..=8 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // What libraries say below a warning is of use only to who debugs them. kube_client logs each failed request at ERROR,
    // and so do we, with what follows from it.
    let ours = format!(
        "warn,kube_client=off,portcullis={level},portcullis_cluster={level},portcullis_modes={level},\
                        portcullis_netlink={level},portcullis_lab={level}"
    );
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(ours));
    let queue = (delivery == Delivery::Queued).then(start_queue).flatten();
    let writer = match queue {
        Some(queue) => BoxMakeWriter::new(move || queue.writer()),
        None => BoxMakeWriter::new(|| Lossy(io::stderr())),
    };
    // Its own errors would be written by `eprintln!`, which panics where standard error cannot be written.
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false).with_writer(writer);
    let started = match logging.format {
        LogFormat::Text => log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    // A second start in one process (a test) keeps the first log.
    drop(started);
}

/// Starts the queue. `None` if there is no thread or file descriptor for it.
fn start_queue() -> Option<&'static LineQueue> {
    // A descriptor of its own: a thread that is stuck in a write must not hold the lock of `io::stderr`.
    let out = io::stderr().as_fd().try_clone_to_owned().ok()?;
    let queue = LineQueue::start(std::fs::File::from(out)).ok()?;
    Some(QUEUE.get_or_init(|| queue))
}

/// Writes a line about the end of the program to standard error, after the log's lines. Waits for at most a second if
/// nothing reads it, and never fails.
pub fn final_message(text: &str) {
    match QUEUE.get() {
        Some(queue) => {
            queue.push_within(format!("{text}\n").into_bytes(), LAST_LINES);
            finish();
        }
        None => drop(writeln!(io::stderr(), "{text}")),
    }
}

/// Waits until the log's lines are written, for at most a second.
pub fn finish() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(LAST_LINES);
    }
}

/// How many lines of the daemon's log were dropped since the start.
pub fn dropped_lines() -> u64 {
    QUEUE.get().map_or(0, LineQueue::dropped)
}

/// Drops what cannot be written.
struct Lossy<W>(W);

impl<W: Write> Write for Lossy<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        drop(self.0.write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        drop(self.0.flush());
        Ok(())
    }
}
