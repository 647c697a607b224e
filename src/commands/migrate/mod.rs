//! `portcullis migrate`: moves this node to another mode, or says what that comes to.
//!
//! ```text
//! kernel ─ what serves, what would go, connections ─┐
//! state ── what would be written ───────────────────┼─► Report ─► text, JSON
//! node ─── requirements, proxies that run ──────────┘      └────► apply
//! ```

mod apply;
mod plan;
mod report;
mod stake;
mod text;

use std::io::{self, Write};

use portcullis_modes::SyncError;

use crate::cluster_view::{self, LoadError};
use crate::config::{Config, Migrate, OutputFormat};
use crate::daemon::{DaemonError, mode_setup};
use report::Report;

/// Why a node cannot be moved.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The state cannot be had.
    #[error(transparent)]
    State(#[from] LoadError),
    /// The new mode cannot be had.
    #[error(transparent)]
    Mode(#[from] DaemonError),
    /// The new mode's rules could not be written.
    #[error("the new mode cannot be written, and the old one still serves: {0}")]
    Sync(SyncError),
    /// Services that the kernel refuses.
    #[error("the old mode still serves, too, as the new one cannot serve everything: {0}")]
    Isolated(String),
    /// Connections that are under way cannot be counted.
    #[error("cannot count connections: {0}")]
    Connections(#[from] portcullis_netlink::Error),
    /// The output cannot be written.
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
}

/// Says what a migration comes to, and with `--apply` carries it out. Says whether nothing is in its way, or whether all
/// is done.
///
/// # Errors
/// The state or the kernel cannot be read; the new mode cannot serve.
pub fn run(config: &Config, migrate: &Migrate, out: &mut dyn Write) -> Result<bool, MigrateError> {
    let state = cluster_view::load_node(config, None)?;
    if migrate.apply {
        // A mode that does not know all Services must not replace one that may serve them.
        state.unreadable.check()?;
    }
    let prerequisites = mode_setup::check_prerequisites(config.mode);
    let mut report = Report::of(config, migrate, &state, &prerequisites)?;
    let is_text = migrate.output == OutputFormat::Text;
    if is_text {
        text::print(&report, out)?;
    }
    if migrate.apply && report.is_possible() && (migrate.force || report.obstacles().is_empty()) {
        let mut say = |line: &str| if is_text { writeln!(out, "{line}") } else { Ok(()) };
        report.applied = Some(apply::apply(config, &state, prerequisites?, migrate.drain, &mut say)?);
    } else if migrate.apply && is_text {
        writeln!(out, "\nNothing was done.")?;
    }
    if !is_text {
        let text = serde_json::to_string_pretty(&report).map_err(io::Error::from)?;
        writeln!(out, "{text}")?;
    }
    state.unreadable.check()?;
    Ok(match &report.applied {
        Some(applied) => applied.left.is_empty(),
        None => report.is_possible() && report.obstacles().is_empty(),
    })
}
