//! The engine that serves Services: a proxy mode, and the work around each of its syncs.
//!
//! ```text
//! reconfigure ─► sync: keep own connections ─► write rules ─► enable route_localnet
//!                                                  │          └─► remove other modes' objects ─► delete stale flows
//!                                                  └─ failed: only delete stale flows of written families
//! ```
//!
//! The order matters. The rules that drop packets from other hosts to loopback addresses must exist before
//! `route_localnet` is set. Objects of other modes are removed only once the new rules serve. A flow that is deleted
//! before the rules are written would be created again by the old ones.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::NamespacedName;
use portcullis_cluster::desired::{Desired, ServiceChange};

use crate::cleanup::{self, CleanupResult, DrainStatus, Takeover};
use crate::error::SyncError;
use crate::mode::{IsolatedService, IsolationCause, Mode, SyncResult};
use crate::node_facts::NodeFacts;
use crate::options::Options;
use crate::progress::SyncProgress;
use crate::route_localnet;
use crate::stale_flows::{StaleFlows, StaleFlowsError, StaleFlowsResult};
use crate::traffic::ServicePortTraffic;

/// A proxy mode with the removal of other modes' objects and the deletion of stale flows.
pub struct ServiceEngine {
    mode: Box<dyn Mode>,
    takeover: Takeover,
    stale_flows: StaleFlows,
    /// The Services above the limits on their size that were logged.
    oversized: BTreeSet<NamespacedName>,
}

/// The request of one sync.
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineRequest<'a> {
    /// The Services that differ since the last sync.
    pub changes: &'a [ServiceChange],
    /// All addresses of this machine.
    pub addresses: &'a [IpAddr],
    /// Until now, rules of iptables mode protect loopback addresses from other hosts; these will be removed.
    pub replaces_iptables_guard: bool,
    /// The sync counts as failed if a Service is isolated: nothing of other modes is removed then.
    pub requires_all_services: bool,
}

/// The result of one sync.
#[derive(Debug)]
pub struct EngineResult {
    /// The results of the mode, one per family or more.
    pub syncs: Vec<SyncResult>,
    /// The removal of other modes' objects.
    pub cleanup: CleanupResult,
    /// The deletion of stale flows.
    pub stale_flows: Result<StaleFlowsResult, StaleFlowsError>,
    /// The duration of all of it.
    pub duration: Duration,
    /// The time at which the next sync must start even if nothing has changed by then.
    pub next_due: Option<Instant>,
}

impl EngineResult {
    /// Returns the error if the sync failed in a family.
    pub fn error(&self) -> Option<&SyncError> {
        self.syncs.iter().find_map(|sync| sync.error.as_ref())
    }

    /// Returns true if the sync wrote, restored and isolated nothing.
    pub fn is_idle(&self) -> bool {
        let is_idle = |sync: &SyncResult| {
            sync.error.is_none() && sync.written == 0 && sync.restored == 0 && sync.isolated.is_empty()
        };
        self.syncs.iter().all(is_idle)
    }
}

impl ServiceEngine {
    /// Returns the engine for a mode that has not synced yet.
    pub fn new(mode: Box<dyn Mode>, takeover: Takeover, stale_flows: StaleFlows) -> Self {
        ServiceEngine { mode, takeover, stale_flows, oversized: BTreeSet::new() }
    }

    /// Sets new options and node facts for the next sync.
    pub fn reconfigure(&mut self, options: Options, node_facts: NodeFacts) {
        self.mode.reconfigure(options, node_facts);
    }

    /// Records that another process changed the rules, or may have.
    pub fn note_external_change(&mut self) {
        self.mode.note_external_change();
    }

    /// Returns true if another process changed the rules; the next sync then restores them.
    pub fn check_drift(&mut self) -> bool {
        self.mode.check_drift()
    }

    /// Makes the kernel serve `desired`.
    pub fn sync(&mut self, desired: &Desired, request: EngineRequest<'_>) -> EngineResult {
        let start = Instant::now();
        if let Err(error) = self.takeover.prepare(&self.mode.node_facts().node_ips) {
            tracing::warn!(%error,
                "this machine's own connections may break when the addresses of IPVS mode are removed");
        }
        self.stale_flows.add_changes(request.changes);
        let mut syncs = self.mode.sync(desired, request.changes);
        self.report_oversized(desired, &mut syncs);
        let is_serving = syncs
            .iter()
            .all(|sync| sync.error.is_none() && (sync.isolated.is_empty() || !request.requires_all_services));
        let mut cleanup = CleanupResult::default();
        if is_serving {
            if self.mode.options().serves_localhost_node_ports() {
                route_localnet::enable();
            }
            if request.replaces_iptables_guard {
                cleanup.append(cleanup::reset_unneeded_route_localnet());
                syncs.extend(self.add_loopback_guard(desired));
            }
            cleanup.append(self.takeover.proceed(Instant::now()));
        }
        let stale_flows = match is_serving || !request.requires_all_services {
            true => {
                let addresses = self.node_port_addresses(request.addresses);
                self.stale_flows.delete(desired, &syncs, &addresses)
            }
            false => Ok(StaleFlowsResult::default()),
        };
        let next_due = self.mode.next_due().into_iter().chain(self.takeover.next_due()).min();
        EngineResult { syncs, cleanup, stale_flows, duration: start.elapsed(), next_due }
    }

    /// Adds the Services above the limits on their size to the isolated ones, and logs the new ones.
    fn report_oversized(&mut self, desired: &Desired, syncs: &mut [SyncResult]) {
        for (service, size) in desired.oversized() {
            if self.oversized.insert(service.clone()) {
                tracing::error!(%service, "cannot program Service: {size}; it keeps its last rules within the limit, all other Services are served");
            }
            let kept = desired.services().get(service).map_or(&[][..], |ports| ports);
            for sync in &mut *syncs {
                sync.isolated.push(IsolatedService {
                    service: service.clone(),
                    cause: IsolationCause::TooLarge,
                    reason: size.to_string(),
                    has_rules: kept.iter().any(|port| port.family == sync.family),
                });
            }
        }
        self.oversized.retain(|service| {
            let is_oversized = desired.oversized().contains_key(service);
            if !is_oversized {
                tracing::info!(%service, "Service is within the limits on its size again");
            }
            is_oversized
        });
    }

    /// Writes the mode's own rule that protects loopback addresses, before that of iptables mode is removed, if
    /// `route_localnet` is still set.
    fn add_loopback_guard(&mut self, desired: &Desired) -> Vec<SyncResult> {
        if !route_localnet::needs_guard(self.mode.options()) {
            return Vec::new();
        }
        let node_facts = NodeFacts { route_localnet: true, ..self.mode.node_facts().clone() };
        self.mode.reconfigure(self.mode.options().clone(), node_facts);
        self.mode.sync(desired, &[])
    }

    /// Continues the removal of other modes' objects, without a sync. Call it at [`ServiceEngine::next_removal`].
    pub fn remove_other_modes(&mut self, now: Instant) -> CleanupResult {
        self.takeover.proceed(now)
    }

    /// Returns the time of the next [`ServiceEngine::remove_other_modes`]; `None` before the first successful sync, and
    /// once everything is removed.
    pub fn next_removal(&self) -> Option<Instant> {
        self.takeover.next_due()
    }

    /// Returns the IPVS connections for whose end the removal of IPVS mode waits.
    pub fn drain_status(&self) -> Option<DrainStatus> {
        self.takeover.drain_status()
    }

    /// Returns the number of IPVS connections that had not ended in time.
    pub fn interrupted_connections(&self) -> u64 {
        self.takeover.interrupted()
    }

    /// Returns those of this machine's addresses on which node ports are served.
    pub fn node_port_addresses(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        self.mode.options().node_port_addresses_among(addresses, self.mode.node_facts())
    }

    /// Returns true if the rules were written or compared at this nf_tables generation or a later one.
    pub fn has_synced_since(&self, generation: u32) -> bool {
        self.mode.has_synced_since(generation)
    }

    /// Returns true if nothing shows that another process wrote until this nf_tables generation, as a write of this process was rejected
    /// in part.
    pub fn may_be_own_write(&self, generation: u32) -> bool {
        self.mode.may_be_own_write(generation)
    }

    /// Returns the traffic of all Service ports, if the mode has counters.
    ///
    /// # Errors
    /// The counters could not be read.
    pub fn traffic(&mut self, desired: &Desired) -> Result<Option<Vec<ServicePortTraffic>>, SyncError> {
        self.mode.traffic(desired)
    }

    /// Returns the progress counters of a long sync.
    pub fn progress(&self) -> Option<Arc<SyncProgress>> {
        self.mode.progress()
    }

    /// Returns the options of the last sync.
    pub fn options(&self) -> &Options {
        self.mode.options()
    }
}
