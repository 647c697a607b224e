//! Carries out a migration.

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
use super::migration_report::Applied;
use crate::cluster_view::NodeView;
use crate::config::Config;
use crate::control::Wake;
use crate::daemon::mode_setup::{self, Prerequisites};
use crate::host;
use crate::progress_bar;
use crate::proxy_modes;

/// Writes the rules of the new mode, then removes those of other modes. Reports each step as a line to `print`.
///
/// # Errors
/// The new mode cannot serve all Services; nothing of the old mode is removed then.
pub(super) fn apply(
    config: &Config,
    state: &NodeView,
    prerequisites: Prerequisites,
    drain: Duration,
    print: &mut dyn FnMut(&str) -> io::Result<()>,
) -> Result<Applied, MigrateError> {
    let flavour = prerequisites.tools.as_ref().map_or(Flavour::Nft, |tools| tools.flavour);
    let mut host = state.host.clone();
    host.iptables.nfacct = host::ensure_nfacct();
    let (mode, _) = proxy_modes::driver(config.mode).start(
        config,
        state.options.clone(),
        host,
        prerequisites,
        &Wake::default(),
    )?;
    mode_setup::route_localhost(config);
    let takeover = Takeover::new(config.mode, flavour, drain);
    let mut engine = ServiceEngine::new(mode, takeover, StaleFlows::new(KernelFlows::default()));

    progress_bar::start("writing the rules of the new mode");
    let result = engine.sync(
        &state.desired,
        EngineRequest {
            changes: &all_as_changes(&state.desired),
            addresses: &host::addresses(),
            requires_all_services: true,
            ..EngineRequest::default()
        },
    );
    check_served(&result)?;
    let syncs: Duration = result.syncs.iter().map(|sync| sync.duration).sum();
    print(&format!("\n{} mode serves after {:.1} s", config.mode.name(), syncs.as_secs_f64()))?;

    let mut applied = Applied::default();
    record(result.cleanup, &mut applied, print)?;
    applied.stale_flows = result.stale_flows.map_or_else(
        |error| {
            tracing::error!(%error);
            0
        },
        |flows| flows.deleted,
    );
    let mut reported = 0;
    while let Some(due) = engine.next_removal() {
        progress_bar::start("waiting for connections through IPVS to end");
        thread::sleep(due.saturating_duration_since(Instant::now()));
        record(engine.remove_other_modes(Instant::now()), &mut applied, print)?;
        match engine.drain_status() {
            Some(waiting) if waiting.connections != reported => {
                reported = waiting.connections;
                let (servers, left) = (waiting.servers, waiting.remaining.as_secs());
                print(&format!(
                    "waiting for {reported} connections through {servers} virtual servers, up to {left} s"
                ))?;
            }
            Some(_) => {}
            None => {}
        }
    }
    applied.terminated = engine.interrupted_connections();
    if applied.terminated > 0 {
        print(&format!(
            "{} connections through IPVS did not end in time and were terminated",
            applied.terminated
        ))?;
    }
    Ok(applied)
}

/// Returns every Service as a change, for the first sync of a mode.
fn all_as_changes(desired: &Desired) -> Vec<ServiceChange> {
    let new = |(name, ports): (&_, &Arc<[_]>)| ServiceChange {
        name: Clone::clone(name),
        before: Arc::default(),
        after: Arc::clone(ports),
    };
    desired.services().iter().map(new).collect()
}

fn check_served(result: &EngineResult) -> Result<(), MigrateError> {
    if let Some(error) = result.error() {
        return Err(MigrateError::Sync(error.clone()));
    }
    let isolated: Vec<String> =
        result.syncs.iter().flat_map(|sync| &sync.isolated).map(ToString::to_string).collect();
    if isolated.is_empty() { Ok(()) } else { Err(MigrateError::Isolated(isolated.join("; "))) }
}

fn record(
    done: CleanupResult,
    applied: &mut Applied,
    print: &mut dyn FnMut(&str) -> io::Result<()>,
) -> Result<(), MigrateError> {
    for removed in done.removed.iter().map(ToString::to_string) {
        print(&format!("removed {removed}"))?;
        applied.removed.push(removed);
    }
    for kept in &done.kept {
        print(&format!("kept {kept}"))?;
    }
    for left in done.not_removed.iter().map(ToString::to_string) {
        print(&format!("left {left}"))?;
        applied.left.push(left);
    }
    Ok(())
}
