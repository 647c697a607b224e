//! The worker beside the loop: everything that talks to the kernel for Services, one sync at a time.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, ServiceChange, ServicePort};
use portcullis_modes::cleanup::{CleanupResult, DrainStatus};
use portcullis_modes::stale_flows::{StaleFlowsError, StaleFlowsResult};
use portcullis_modes::{EngineRequest, NodeFacts, Options, ServiceEngine, SyncError, SyncResult};

use super::schedule::Due;
use crate::http::TrafficResponse;

/// The engine, and the Services that it must serve. It moves to a thread for each sync.
pub(super) struct Worker {
    engine: ServiceEngine,
    /// The desired state; the loop updates it between syncs.
    pub(super) desired: Desired,
}

/// What a sync is to do.
pub(super) struct ServiceSyncRequest {
    pub(super) changes: Vec<ServiceChange>,
    pub(super) options: Options,
    pub(super) host: NodeFacts,
    /// All addresses of this machine.
    pub(super) addresses: Vec<IpAddr>,
    /// Why it is due.
    pub(super) due: Due,
    /// Somebody else changed what the mode wrote.
    pub(super) suspect: bool,
    /// Loopback addresses are guarded by rules of iptables mode, which another mode takes over from.
    pub(super) inherits_guard: bool,
}

/// What a sync did.
pub(super) struct ServiceSyncResult {
    pub(super) reports: Vec<SyncResult>,
    /// Another process had changed the rules.
    pub(super) drifted: bool,
    pub(super) flows: Result<StaleFlowsResult, StaleFlowsError>,
    pub(super) took: Duration,
    /// Services changed whose rules or health depend on the endpoints of this node.
    pub(super) local: bool,
    /// The time of the next sync, even if nothing has changed by then.
    pub(super) next_due: Option<Instant>,
    /// The sync was upkeep that found nothing to do.
    pub(super) is_idle: bool,
}

impl ServiceSyncResult {
    /// Returns the error if the sync failed in a family.
    pub(super) fn error(&self) -> Option<&SyncError> {
        self.reports.iter().find_map(|report| report.error.as_ref())
    }
}

impl Worker {
    pub(super) fn new(engine: ServiceEngine, desired: Desired) -> Self {
        Worker { engine, desired }
    }

    pub(super) fn sync(&mut self, request: ServiceSyncRequest) -> ServiceSyncResult {
        self.engine.reconfigure(request.options, request.host);
        if request.suspect {
            self.engine.note_external_change();
        }
        let drifted = request.due == Due::Check && self.engine.check_drift();
        let draining = self.engine.drain_status();
        let result = self.engine.sync(
            &self.desired,
            EngineRequest {
                changes: &request.changes,
                addresses: &request.addresses,
                replaces_iptables_guard: request.inherits_guard,
                requires_all_services: false,
            },
        );
        log_cleanup(&result.cleanup);
        log_drain(draining, self.engine.drain_status());
        let counts = |p: &ServicePort| {
            p.internal_policy.is_local() || p.external_policy.is_local() || p.health_check_node_port.is_some()
        };
        let local = request.changes.iter().any(|c| c.before.iter().chain(c.after.iter()).any(counts));
        ServiceSyncResult {
            is_idle: request.due == Due::Upkeep && result.is_idle(),
            reports: result.syncs,
            drifted,
            flows: result.stale_flows,
            took: result.duration,
            local,
            next_due: result.next_due,
        }
    }

    /// Returns those of this machine's addresses on which node ports are served.
    pub(super) fn node_port_addresses(&self, all: &[IpAddr]) -> Vec<IpAddr> {
        self.engine.node_port_addresses(all)
    }

    /// Returns true if the rules were written or compared at this nf_tables generation or a later one.
    pub(super) fn has_synced_since(&self, generation: u32) -> bool {
        self.engine.has_synced_since(generation)
    }

    /// Returns the traffic of all Service ports.
    pub(super) fn traffic(&mut self) -> TrafficResponse {
        self.engine.traffic(&self.desired)
    }

    /// Returns the options of the last sync.
    pub(super) fn options(&self) -> &Options {
        self.engine.options()
    }
}

fn log_cleanup(cleanup: &CleanupResult) {
    cleanup
        .removed
        .iter()
        .for_each(|object| tracing::info!(%object, "removed an object of another proxy mode"));
    cleanup
        .not_removed
        .iter()
        .for_each(|object| tracing::warn!(%object, "cannot remove an object of another proxy mode"));
    cleanup.kept.iter().for_each(|object| tracing::info!("kept {object}"));
}

fn log_drain(before: Option<DrainStatus>, now: Option<DrainStatus>) {
    let Some(now) = now else { return };
    if before.is_none() {
        tracing::info!(connections = now.connections, servers = now.servers, at_most = ?now.remaining,
            "waiting for the end of connections through IPVS before removing their virtual servers");
    } else {
        tracing::debug!(connections = now.connections, "waiting for the end of connections through IPVS");
    }
}
