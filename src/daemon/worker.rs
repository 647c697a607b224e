//! What runs beside the loop: the mode and everything that talks to the kernel, one sync at a time.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, ServiceChange, ServicePort};
use portcullis_modes::cleanup::{self, CleanupResult, Takeover};
use portcullis_modes::stale_flows::{StaleFlows, StaleFlowsError, StaleFlowsResult};
use portcullis_modes::{Mode, SyncError, SyncResult};
use portcullis_modes::{NodeFacts, Options};

use super::schedule::Due;
use crate::http::TrafficResponse;
use crate::{host, sysctl};

/// The node as it is to be served. It goes to a thread for each sync and comes back.
pub(super) struct Worker {
    mode: Box<dyn Mode>,
    /// What is to be served; the loop brings it up to date between syncs.
    pub(super) desired: Desired,
    stale_flows: StaleFlows,
    /// What other modes left is still to be removed.
    takeover: Option<Takeover>,
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
    /// Somebody else had written rules.
    pub(super) drifted: bool,
    pub(super) flows: Result<StaleFlowsResult, StaleFlowsError>,
    pub(super) took: Duration,
    /// Services changed for which it counts what is on this node.
    pub(super) local: bool,
    /// When the mode wants to be called, whatever else happens.
    pub(super) next_due: Option<Instant>,
    /// Why it was due.
    due: Due,
}

impl ServiceSyncResult {
    /// Why it failed as a whole, if it did.
    pub(super) fn error(&self) -> Option<&SyncError> {
        self.reports.iter().find_map(|report| report.error.as_ref())
    }

    /// Whether it was a call of the mode's own at which nothing came up.
    pub(super) fn is_idle(&self) -> bool {
        let idle =
            |r: &SyncResult| r.error.is_none() && r.written == 0 && r.restored == 0 && r.isolated.is_empty();
        self.due == Due::Upkeep && self.reports.iter().all(idle)
    }
}

impl Worker {
    /// A worker that removes what other modes than the serving one left, once that serves everything.
    pub(super) fn new(
        mode: Box<dyn Mode>,
        desired: Desired,
        stale_flows: StaleFlows,
        takeover: Takeover,
    ) -> Self {
        Worker { mode, desired, stale_flows, takeover: Some(takeover) }
    }

    pub(super) fn sync(&mut self, request: ServiceSyncRequest) -> ServiceSyncResult {
        let start = Instant::now();
        self.mode.reconfigure(request.options, request.host);
        if request.suspect {
            self.mode.note_external_change();
        }
        let drifted = request.due == Due::Check && self.mode.check_drift();
        if let Some(takeover) = &self.takeover
            && let Err(error) = takeover.prepare(&self.mode.node_facts().node_ips)
        {
            tracing::warn!(%error, "this machine's own connections may break when addresses of IPVS mode go");
        }
        self.stale_flows.add_changes(&request.changes);
        let mut reports = self.mode.sync(&self.desired, &request.changes);
        if reports.iter().all(|report| report.error.is_none()) {
            // Only now: the rules that drop packets from other hosts to loopback addresses must be there before.
            if self.mode.options().serves_localhost_node_ports() {
                sysctl::enable_route_localnet();
            }
            if request.inherits_guard {
                reports.extend(self.replace_inherited_guard());
            }
            self.tidy();
        }
        // Only now: before the new rules stood, a flow could have been led astray again.
        let addresses = self.node_port_addresses(&request.addresses);
        let flows = self.stale_flows.delete(&self.desired, &reports, &addresses);
        let counts =
            |p: &ServicePort| p.internal_local || p.external_local || p.health_check_node_port.is_some();
        let local = request.changes.iter().any(|c| c.before.iter().chain(c.after.iter()).any(counts));
        let takeover = self.takeover.as_ref().and_then(Takeover::next_due);
        let next_due = self.mode.next_due().into_iter().chain(takeover).min();
        ServiceSyncResult {
            reports,
            drifted,
            flows,
            took: start.elapsed(),
            local,
            next_due,
            due: request.due,
        }
    }

    /// Resets `route_localnet`, or else has this mode's own rules guard loopback addresses, before those of iptables mode
    /// go.
    fn replace_inherited_guard(&mut self) -> Vec<SyncResult> {
        log_cleanup(&cleanup::reset_unneeded_route_localnet());
        if !host::accepts_loopback(self.mode.options()) {
            return Vec::new();
        }
        let host = NodeFacts { route_localnet: true, ..self.mode.node_facts().clone() };
        self.mode.reconfigure(self.mode.options().clone(), host);
        self.mode.sync(&self.desired, &[])
    }

    /// Removes what other modes left, and IPVS once its connections have ended.
    fn tidy(&mut self) {
        let Some(takeover) = &mut self.takeover else { return };
        let before = takeover.drain_status();
        let done = takeover.proceed(Instant::now());
        log_cleanup(&done);
        match takeover.drain_status() {
            Some(waiting) if before.is_none() => {
                tracing::info!(connections = waiting.connections, servers = waiting.servers, at_most = ?waiting.remaining,
                    "connections through IPVS live on; their virtual servers go when they have ended");
            }
            Some(waiting) => {
                tracing::debug!(connections = waiting.connections, "connections through IPVS live on");
            }
            None => {}
        }
        if takeover.is_done() {
            self.takeover = None;
        }
    }

    /// Those of this machine's addresses on which node ports are served.
    pub(super) fn node_port_addresses(&self, all: &[IpAddr]) -> Vec<IpAddr> {
        self.mode.options().node_port_addresses_among(all, self.mode.node_facts())
    }

    /// Whether the rules were written or compared at this generation of nf_tables or later.
    pub(super) fn has_synced_since(&self, generation: u32) -> bool {
        self.mode.has_synced_since(generation)
    }

    /// What Services have served.
    pub(super) fn traffic(&mut self) -> TrafficResponse {
        self.mode.traffic(&self.desired)
    }

    /// The options of the last sync.
    pub(super) fn options(&self) -> &Options {
        self.mode.options()
    }
}

fn log_cleanup(done: &CleanupResult) {
    done.removed.iter().for_each(|removed| tracing::info!(%removed, "removed what another mode left"));
    done.not_removed.iter().for_each(|left| tracing::warn!(%left, "another mode left this, and it stays"));
    done.kept.iter().for_each(|kept| tracing::info!("kept {kept}"));
}
