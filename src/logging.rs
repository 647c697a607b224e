//! The log: text for people or JSON for machines, at upstream's levels.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Logging};

/// Starts logging to standard error. `RUST_LOG`, where set, says more exactly what is logged.
pub fn start(logging: Logging) {
    let level = match logging.verbosity {
        0..=3 => LevelFilter::INFO,
        4..=8 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // What libraries say below a warning is of use only to who debugs them.
    let ours = format!(
        "warn,portcullis={level},portcullis_cluster={level},portcullis_modes={level},\
                        portcullis_netlink={level},portcullis_lab={level}"
    );
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(ours));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match logging.format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    // A second start in one process (a test) keeps the first log.
    drop(started);
}
