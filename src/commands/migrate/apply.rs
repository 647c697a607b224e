//! Carries a migration out.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, ServiceChange};
use portcullis_modes::cleanup::{CleanupResult, Takeover};
use portcullis_modes::iptables::Flavour;
use portcullis_modes::stale_flows::{KernelFlows, StaleFlows};
use portcullis_modes::{Mode, SyncResult};

use super::MigrateError;
use super::report::Applied;
use crate::cluster_view::NodeView;
use crate::config::Config;
use crate::daemon::mode_setup::{self, Prerequisites};
use crate::{host, sysctl};

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
    let mut takeover = Takeover::new(config.mode, flavour, drain);
    let mut host = state.host.clone();
    host.nfacct = host::ensure_nfacct();
    let (mut mode, _) = mode_setup::start_mode(config, state.options.clone(), host, prerequisites)?;
    mode_setup::route_localhost(config);
    if let Err(error) = takeover.prepare(&mode.node_facts().node_ips) {
        tracing::warn!(%error, "this machine's own connections may break when addresses of IPVS mode go");
    }

    let start = Instant::now();
    let reports = mode.sync(&state.desired, &everything(&state.desired));
    must_serve(reports.as_slice())?;
    // Only now: the rules that drop packets from other hosts to loopback addresses must be there before.
    if mode.options().serves_localhost_node_ports() {
        sysctl::enable_route_localnet();
    }
    say(&format!("\n{} mode serves, after {:.1} s", config.mode.name(), start.elapsed().as_secs_f64()))?;

    let mut applied = Applied::default();
    note(takeover.proceed(Instant::now()), &mut applied, say)?;
    // Only now: by the old rules a flow could have been led astray again.
    applied.stale_flows = forget_stale_flows(&*mode, &state.desired, &reports);
    let mut told = 0;
    while let Some(due) = takeover.next_due() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        note(takeover.proceed(Instant::now()), &mut applied, say)?;
        match takeover.drain_status() {
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
    applied.cut_off = takeover.interrupted();
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

fn must_serve(reports: &[SyncResult]) -> Result<(), MigrateError> {
    if let Some(error) = reports.iter().find_map(|report| report.error.clone()) {
        return Err(MigrateError::Sync(error));
    }
    let isolated: Vec<String> =
        reports.iter().flat_map(|report| &report.isolated).map(ToString::to_string).collect();
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

fn forget_stale_flows(mode: &dyn Mode, desired: &Desired, reports: &[SyncResult]) -> usize {
    let addresses = mode.options().node_port_addresses_among(&host::addresses(), mode.node_facts());
    match StaleFlows::new(KernelFlows::default()).delete(desired, reports, &addresses) {
        Ok(sweep) => sweep.deleted,
        Err(error) => {
            tracing::error!(%error);
            0
        }
    }
}
