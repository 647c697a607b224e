//! `portcullis render`: the rules for a state, without touching the kernel.

use std::io::{self, Write};

use portcullis_cluster::Family;
use portcullis_modes::iptables::RuleSet;

use crate::config::{AddressFamily, Config, ProxyMode, Render};
use crate::state::{self, StateError};

/// Why rules cannot be printed.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The state cannot be had.
    #[error(transparent)]
    State(#[from] StateError),
    /// The mode is not there yet.
    #[error("mode {0} cannot be rendered yet; --mode iptables can")]
    Mode(&'static str),
    /// The output cannot be written.
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
}

/// Prints the rules, as `iptables-save` would. Those of one family stand alone, so that they can be restored;
/// those of both have a line of comment before each.
///
/// # Errors
/// The state cannot be had, or the mode cannot be rendered.
pub fn run(config: &Config, render: &Render, out: &mut dyn Write) -> Result<(), RenderError> {
    if config.mode != ProxyMode::Iptables {
        return Err(RenderError::Mode(config.mode.name()));
    }
    let state = state::load(config, render.host.as_deref())?;
    for family in families(render.family) {
        if render.family.is_none() {
            writeln!(out, "# {family}")?;
        }
        write!(out, "{}", RuleSet::render(&state.desired, family, &state.options, &state.host))?;
    }
    Ok(())
}

/// The families asked for: one, or both.
pub fn families(asked: Option<AddressFamily>) -> Vec<Family> {
    match asked {
        Some(AddressFamily::Ipv4) => vec![Family::V4],
        Some(AddressFamily::Ipv6) => vec![Family::V6],
        None => Family::BOTH.to_vec(),
    }
}
