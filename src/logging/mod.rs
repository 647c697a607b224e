//! Logging to standard error, as text or JSON, with upstream's verbosity levels.
//!
//! Standard error may be full, closed, or a pipe without reader. None of these may block or stop the program:
//!
//! ```text
//! daemon:    tracing ─► LineQueue ─► thread ─► standard error      a full queue and failed writes drop lines,
//!                                                                  too many lines of one place are omitted
//! commands:  tracing ────────────────────────► standard error      failed writes drop lines
//! ```

mod line_budget;
mod line_queue;
mod panics;

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, Logging};
use crate::output::has_colors;
use line_budget::{BURST, LineBudget, LineLimit};
use line_queue::LineQueue;
pub use panics::exit_on_panic;

/// Time limit for writing the remaining lines at exit.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The daemon's queue of lines.
static QUEUE: OnceLock<LineQueue> = OnceLock::new();

/// The budgets of the daemon's lines.
static BUDGET: LineBudget = LineBudget::new();

/// Delivery of log lines to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// By a thread, so that logging never blocks.
    Queued,
    /// Directly, for commands.
    Direct,
}

/// Starts logging to standard error. `RUST_LOG` overrides the log levels. Commands log warnings and errors, unless a verbosity asks
/// for more.
pub fn start(logging: Logging, delivery: Delivery) {
    let level = match logging.verbosity {
        0 if delivery == Delivery::Direct => LevelFilter::WARN,
        0..=3 => LevelFilter::INFO,
        4..=8 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // Libraries log warnings only. kube_client logs each failed request at ERROR; Portcullis logs them itself, with their
    // consequences.
    let ours = format!(
        "warn,kube_client=off,portcullis={level},portcullis_cluster={level},portcullis_modes={level},\
                        portcullis_netlink={level}"
    );
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(ours));
    let queue = (delivery == Delivery::Queued).then(start_queue).flatten();
    let writer = match queue {
        Some(queue) => BoxMakeWriter::new(move || queue.writer()),
        None => BoxMakeWriter::new(|| Lossy(io::stderr())),
    };
    // tracing_subscriber writes its internal errors with `eprintln!`, which panics if standard error cannot be written.
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false).with_writer(writer);
    let limit = LineLimit((delivery == Delivery::Queued).then_some(&BUDGET));
    let started = match logging.format {
        LogFormat::Text => log.with_ansi(has_colors(&io::stderr())).finish().with(limit).try_init(),
        LogFormat::Json => log.json().flatten_event(true).finish().with(limit).try_init(),
    };
    // A second start in one process (a test) keeps the first log.
    drop(started);
}

/// Starts the queue. Returns `None` if no thread or file descriptor is available.
fn start_queue() -> Option<&'static LineQueue> {
    // A separate descriptor: a thread that blocks in a write must not hold the lock of `io::stderr`.
    let out = io::stderr().as_fd().try_clone_to_owned().ok()?;
    let queue = LineQueue::start(std::fs::File::from(out)).ok()?;
    Some(QUEUE.get_or_init(|| queue))
}

/// Writes the program's final message to standard error, after all log lines. Waits for at most a second, and never
/// fails.
pub fn final_message(text: &str) {
    report_omitted_lines();
    match QUEUE.get() {
        Some(queue) => {
            queue.push_within(format!("{text}\n").into_bytes(), FLUSH_TIMEOUT);
            finish();
        }
        None => crate::progress_bar::suspend(|| drop(writeln!(io::stderr(), "{text}"))),
    }
}

/// Waits until all log lines are written, for at most a second.
pub fn finish() {
    report_omitted_lines();
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_TIMEOUT);
    }
}

/// Logs how many lines of the daemon's log were omitted since the last call, as one place in the code logged too many.
pub fn report_omitted_lines() {
    for ((file, line), lines) in BUDGET.take_omitted() {
        tracing::warn!(
            lines,
            "omitted {lines} log lines like the last ones of {file}:{line}, as there were more than {BURST}; health and metrics \
             show the state of all objects"
        );
    }
}

/// Returns the number of lines of the daemon's log that were omitted since the start, as one place in the code logged too
/// many.
pub fn omitted_lines() -> u64 {
    BUDGET.omitted()
}

/// Returns the number of lines of the daemon's log that were dropped since the start.
pub fn dropped_lines() -> u64 {
    QUEUE.get().map_or(0, LineQueue::dropped)
}

/// Writer that discards what cannot be written.
struct Lossy<W>(W);

impl<W: Write> Write for Lossy<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Above the progress of a command.
        crate::progress_bar::suspend(|| drop(self.0.write_all(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        drop(self.0.flush());
        Ok(())
    }
}
