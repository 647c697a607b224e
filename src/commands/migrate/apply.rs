//! Carries a migration out.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, ServiceChange};
use portcullis_modes::cleanup::{CleanupResult, Takeover};
use portcullis_modes::iptables::Flavour;
use portcullis_modes::stale_flows::{KernelFlows, StaleFlows};
use portcullis_modes::{EngineRequest, EngineResult, ServiceEngine};

use super::MigrateError;
use super::report::Applied;
use crate::cluster_view::NodeView;
use crate::config::Config;
use crate::daemon::mode_setup::{self, Prerequisites};
use crate::host;

/// Writes the new mode, and then removes what others left. `say` is told what happens, a line each.
///
/// # Errors
/// The new mode cannot serve everything. Nothing of the old one is removed then.
pub(super) fn apply(
    config: &Config,
    state: &NodeView,
    prerequisites: Prerequisites,
    drain: Duration,
    say: &mut dyn FnMut(&str) -> io::Result<()>,
) -> Result<Applied, MigrateError> {
    let flavour = prerequisites.tools.as_ref().map_or(Flavour::Nft, |tools| tools.flavour);
    let mut host = state.host.clone();
    host.nfacct = host::ensure_nfacct();
    let (mode, _) = mode_setup::start_mode(config, state.options.clone(), host, prerequisites)?;
    mode_setup::route_localhost(config);
    let takeover = Takeover::new(config.mode, flavour, drain);
    let mut engine = ServiceEngine::new(mode, takeover, StaleFlows::new(KernelFlows::default()));

    let result = engine.sync(
        &state.desired,
        EngineRequest {
            changes: &everything(&state.desired),
            addresses: &host::addresses(),
            requires_all_services: true,
            ..EngineRequest::default()
        },
    );
    must_serve(&result)?;
    let syncs: Duration = result.syncs.iter().map(|sync| sync.duration).sum();
    say(&format!("\n{} mode serves, after {:.1} s", config.mode.name(), syncs.as_secs_f64()))?;

    let mut applied = Applied::default();
    note(result.cleanup, &mut applied, say)?;
    applied.stale_flows = result.stale_flows.map_or_else(
        |error| {
            tracing::error!(%error);
            0
        },
        |flows| flows.deleted,
    );
    let mut told = 0;
    while let Some(due) = engine.next_removal() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        note(engine.remove_other_modes(Instant::now()), &mut applied, say)?;
        match engine.drain_status() {
            Some(waiting) if waiting.connections != told => {
                told = waiting.connections;
                let (servers, left) = (waiting.servers, waiting.remaining.as_secs());
                say(&format!(
                    "{told} connections through {servers} virtual servers live on, {left} s at most"
                ))?;
            }
            Some(_) => {}
            None => {}
        }
    }
    applied.cut_off = engine.interrupted_connections();
    if applied.cut_off > 0 {
        say(&format!(
            "{} connections through IPVS had not ended in time, and were cut off",
            applied.cut_off
        ))?;
    }
    Ok(applied)
}

/// Everything is new to a mode that begins.
fn everything(desired: &Desired) -> Vec<ServiceChange> {
    let new = |(name, ports): (&_, &Arc<[_]>)| ServiceChange {
        name: Clone::clone(name),
        before: Arc::default(),
        after: Arc::clone(ports),
    };
    desired.services().iter().map(new).collect()
}

fn must_serve(result: &EngineResult) -> Result<(), MigrateError> {
    if let Some(error) = result.error() {
        return Err(MigrateError::Sync(error.clone()));
    }
    let isolated: Vec<String> =
        result.syncs.iter().flat_map(|sync| &sync.isolated).map(ToString::to_string).collect();
    if isolated.is_empty() { Ok(()) } else { Err(MigrateError::Isolated(isolated.join("; "))) }
}

fn note(
    done: CleanupResult,
    applied: &mut Applied,
    say: &mut dyn FnMut(&str) -> io::Result<()>,
) -> Result<(), MigrateError> {
    for removed in done.removed.iter().map(ToString::to_string) {
        say(&format!("removed {removed}"))?;
        applied.removed.push(removed);
    }
    for kept in &done.kept {
        say(&format!("kept {kept}"))?;
    }
    for left in done.not_removed.iter().map(ToString::to_string) {
        say(&format!("left {left}"))?;
        applied.left.push(left);
    }
    Ok(())
}
