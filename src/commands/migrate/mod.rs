//! `portcullis migrate`: moves this node to another proxy mode, or reports what that would change.
//!
//! ```text
//! kernel ── current rules, connections ───────────┐
//! state ─── rules of the new mode ────────────────┼─► MigrationReport ─► text, JSON
//! node ──── prerequisites, running proxies ───────┘         └─────────► apply
//! ```

mod affected_connections;
mod apply;
mod migration_report;
mod planned_rules;
mod text;

use std::io::{self, Write};

use portcullis_modes::SyncError;

use crate::cluster_view::{self, LoadError};
use crate::config::{Config, Migrate};
use crate::daemon::{DaemonError, mode_setup};
use crate::document::Document;
use migration_report::MigrationReport;

/// An error that prevents a migration.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The cluster state cannot be read.
    #[error(transparent)]
    State(#[from] LoadError),
    /// The new mode cannot be started.
    #[error(transparent)]
    Mode(#[from] DaemonError),
    /// The new mode's rules could not be written.
    #[error("cannot write the rules of the new mode; the old mode still serves: {0}")]
    Sync(SyncError),
    /// The kernel rejected some Services.
    #[error("the new mode cannot serve all Services, so the old mode was kept as well: {0}")]
    Isolated(String),
    /// Established connections cannot be counted.
    #[error("cannot count connections: {0}")]
    Connections(#[from] portcullis_netlink::Error),
    /// The output cannot be written.
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
}

/// Prints a report about the migration, and carries it out with `--apply`. Returns true if nothing prevents the migration, or
/// if it is complete.
///
/// # Errors
/// The state or the kernel cannot be read; the new mode cannot serve.
pub fn run(config: &Config, migrate: &Migrate, out: &mut dyn Write) -> Result<bool, MigrateError> {
    let state = cluster_view::load_node(config, None)?;
    if migrate.apply {
        // A mode that does not have all Services must not replace one that may serve them.
        state.unreadable.check()?;
    }
    let prerequisites = mode_setup::check_prerequisites(config.mode);
    let mut report = MigrationReport::new(config, migrate, &state, &prerequisites)?;
    let format = migrate.output.document_format();
    let is_text = format.is_none();
    if is_text {
        text::print(&report, out)?;
        out.flush()?;
    }
    if migrate.apply && report.is_possible() && (migrate.force || report.obstacles().is_empty()) {
        // Each step appears when it is done.
        let mut print = |line: &str| {
            if !is_text {
                return Ok(());
            }
            writeln!(out, "{line}")?;
            out.flush()
        };
        report.applied = Some(apply::apply(config, &state, prerequisites?, migrate.drain, &mut print)?);
    } else if migrate.apply && is_text {
        writeln!(out, "\nNothing was changed.")?;
    }
    if let Some(format) = format {
        Document::new("Migration", &report).print(format, out)?;
    }
    state.unreadable.check()?;
    Ok(match &report.applied {
        Some(applied) => applied.left.is_empty(),
        None => report.is_possible() && report.obstacles().is_empty(),
    })
}
