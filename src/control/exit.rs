//! The ends of the loop.

use std::path::PathBuf;
use std::time::Duration;

/// Why the loop was stopped.
#[derive(Debug)]
pub(crate) enum StopReason {
    /// SIGTERM or SIGINT.
    Signal,
    /// This configuration file changed.
    Reconfigured(PathBuf),
    /// With `--once`: the API server did not respond within this time.
    NoResponse(Duration, String),
}

/// Why the loop ended.
#[derive(Debug)]
pub(crate) enum Exit {
    /// It was stopped.
    Stopped(StopReason),
    /// With `--once`: every controller has synced once. What could not be written, one line each.
    Synced(Vec<String>),
    /// With `--once`: a first sync is held back.
    HeldBack,
}
