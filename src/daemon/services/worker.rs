//! The part of the controller that runs on a thread: the engine of the proxy mode.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, ServiceChange, ServicePort};
use portcullis_cluster::{Kind, NamespacedName, ObjectKey};
use portcullis_modes::cleanup::{CleanupResult, DrainStatus};
use portcullis_modes::source_range_log::SourceRangeLog;
use portcullis_modes::stale_flows::{StaleFlowsError, StaleFlowsResult};
use portcullis_modes::{
    EngineRequest, NodeFacts, Options, ProxyMode, ServiceEngine, SyncError, SyncErrorKind, SyncProgress,
    SyncResult,
};

use crate::control::{Due, IsolatedObject, RulesError, RulesResult, ServiceMeasurements};
use crate::observe::http::TrafficResponse;

/// The engine. It moves to a thread for each sync.
pub(in crate::daemon) struct ServiceWorker {
    engine: ServiceEngine,
    /// The log of packets that source ranges drop, while it is requested.
    source_ranges: Option<(SourceRangeLog, ProxyMode)>,
    progress: Option<Arc<SyncProgress>>,
}

/// A request for a sync.
pub(super) struct ServiceSyncRequest {
    pub(super) changes: Vec<ServiceChange>,
    pub(super) options: Options,
    pub(super) node_facts: NodeFacts,
    /// All addresses of this machine.
    pub(super) addresses: Vec<IpAddr>,
    /// Why the sync is due.
    pub(super) due: Due,
    /// Another process changed the rules, or may have.
    pub(super) has_drifted: bool,
    /// The guard of loopback addresses by rules of iptables mode is to be replaced.
    pub(super) replaces_iptables_guard: bool,
}

/// The result of a sync.
pub(in crate::daemon) struct ServiceSyncResult {
    /// The result of each family.
    pub(super) families: Vec<SyncResult>,
    /// Another process had changed rules.
    had_external_changes: bool,
    pub(super) flows: Result<StaleFlowsResult, StaleFlowsError>,
    took: Duration,
    /// Services changed whose rules or health depend on the endpoints of this node.
    pub(super) local_endpoints_changed: bool,
    /// When the next sync is due even if nothing changes.
    pub(super) next_due: Option<Instant>,
    /// The mode's timer had expired, and there was nothing to write.
    pub(super) is_idle: bool,
    /// Why packets that changed source ranges drop are not logged.
    pub(super) log_error: Option<String>,
}

impl ServiceSyncResult {
    /// Returns the error if the sync failed in a family.
    pub(super) fn error(&self) -> Option<&SyncError> {
        self.families.iter().find_map(|family| family.error.as_ref())
    }

    /// Returns true if the next sync writes some of the changes.
    pub(super) fn is_deferred(&self) -> bool {
        self.families.iter().any(|family| !family.deferred.is_empty())
    }

    /// Returns the Services that the next syncs write.
    pub(super) fn deferred(&self) -> BTreeSet<NamespacedName> {
        self.families.iter().flat_map(|family| family.deferred.iter().cloned()).collect()
    }

    /// Returns what could not be written, one line each.
    pub(super) fn unwritten(&self) -> Vec<String> {
        let error = self.error().map(ToString::to_string);
        let isolated = self.families.iter().flat_map(|family| &family.isolated).map(ToString::to_string);
        let flows = self.flows.as_ref().err().map(ToString::to_string);
        error.into_iter().chain(isolated).chain(flows).collect()
    }

    /// Returns the result of each family that was written completely, as observers read it.
    pub(super) fn rules_results(&self) -> Vec<RulesResult> {
        self.families.iter().filter(|family| family.deferred.is_empty()).map(rules_result).collect()
    }

    /// Returns the measurements that follow from the result alone.
    pub(super) fn measurements(&self) -> ServiceMeasurements {
        let tables = self.families.iter().flat_map(|f| f.tables.iter().map(|table| (f.family, *table)));
        let has_failed_restore = |family: &&SyncResult| {
            let kind = family.error.as_ref().map(SyncError::kind);
            matches!(
                kind,
                Some(
                    SyncErrorKind::ToolFailed
                        | SyncErrorKind::ToolUnusable
                        | SyncErrorKind::Locked
                        | SyncErrorKind::SearchIncomplete
                )
            )
        };
        ServiceMeasurements {
            tables: tables.collect(),
            failed_restores: self.families.iter().filter(has_failed_restore).map(|f| f.family).collect(),
            stale_flows: self.flows.as_ref().ok().map(|flows| (flows.duration, flows.by_family().collect())),
            ..ServiceMeasurements::default()
        }
    }

    /// Logs the result of each family, for debugging.
    pub(super) fn log(&self) {
        for SyncResult { family, is_full, written, duration, restored, .. } in &self.families {
            tracing::debug!(%family, full = is_full, lines = written, took = ?duration, "synced");
            if self.had_external_changes && *is_full && *restored == 0 {
                tracing::debug!(%family, "another process changed rules, but none of this proxy's");
            }
        }
    }

    /// Logs the first successful sync. `start` is when the daemon started.
    pub(super) fn log_first(&self, desired: &Desired, start: Instant) {
        let (services, ports) = (desired.services().len(), desired.ports().count());
        let endpoints: usize = desired.ports().map(|port| port.endpoints.serving().len()).sum();
        let isolated: usize = self.families.iter().map(|family| family.isolated.len()).sum();
        tracing::info!(
            services,
            ports,
            endpoints,
            isolated,
            took = ?self.took,
            since_start = ?start.elapsed(),
            "first sync is done"
        );
    }
}

impl ServiceWorker {
    /// Creates a worker. `progress`: the counters of the mode's running syncs.
    pub(in crate::daemon) fn new(engine: ServiceEngine, progress: Option<Arc<SyncProgress>>) -> Self {
        ServiceWorker { engine, source_ranges: None, progress }
    }

    /// Programs the changes of `desired` into the kernel, and deletes stale flows.
    pub(super) fn sync(&mut self, desired: &Desired, request: ServiceSyncRequest) -> ServiceSyncResult {
        let logged =
            self.source_ranges.is_some().then(|| (request.options.clone(), request.node_facts.clone()));
        self.engine.reconfigure(request.options, request.node_facts);
        if request.has_drifted {
            self.engine.note_external_change();
        }
        let had_external_changes = request.due == Due::FullSync && self.engine.check_drift();
        let draining = self.engine.drain_status();
        let result = self.engine.sync(
            desired,
            EngineRequest {
                changes: &request.changes,
                addresses: &request.addresses,
                replaces_iptables_guard: request.replaces_iptables_guard,
                requires_all_services: false,
            },
        );
        let log_error =
            self.source_ranges.as_mut().zip(logged).and_then(|((log, mode), (options, facts))| {
                log.update(*mode, desired, &options, &facts).err()
            });
        log_cleanup(&result.cleanup);
        log_drain(draining, self.engine.drain_status());
        let is_local = |p: &ServicePort| {
            p.internal_policy.is_local() || p.external_policy.is_local() || p.health_check_node_port.is_some()
        };
        let local_endpoints_changed =
            request.changes.iter().any(|c| c.before.iter().chain(c.after.iter()).any(is_local));
        ServiceSyncResult {
            is_idle: request.due == Due::Timer && result.is_idle(),
            families: result.syncs,
            had_external_changes,
            flows: result.stale_flows,
            took: result.duration,
            local_endpoints_changed,
            next_due: result.next_due,
            log_error: log_error.map(|error| error.to_string()),
        }
    }

    /// Returns this machine's addresses on which node ports are served.
    pub(super) fn node_port_addresses(&self, all: &[IpAddr]) -> Vec<IpAddr> {
        self.engine.node_port_addresses(all)
    }

    /// Returns true if the rules were written or compared at this nf_tables generation or a later one.
    pub(super) fn has_synced_since(&self, generation: u32) -> bool {
        self.engine.has_synced_since(generation)
    }

    /// Returns true if nothing shows that another process wrote until this nf_tables generation, as a write of this process was rejected
    /// in part.
    pub(super) fn may_be_own_write(&self, generation: u32) -> bool {
        self.engine.may_be_own_write(generation)
    }

    /// Reads the traffic of Services.
    pub(super) fn traffic(&mut self, desired: &Desired) -> TrafficResponse {
        self.engine.traffic(desired)
    }

    /// Logs packets that source ranges drop to an NFLOG group, or no longer.
    ///
    /// # Errors
    /// The kernel's message.
    pub(super) fn log_source_ranges(
        &mut self,
        group: Option<u16>,
        mode: ProxyMode,
        desired: &Desired,
        options: &Options,
        facts: &NodeFacts,
    ) -> Result<(), String> {
        // Dropping a log removes its table.
        self.source_ranges.take_if(|(log, _)| Some(log.group()) != group);
        let Some(group) = group else { return Ok(()) };
        let mut log = match self.source_ranges.take() {
            Some((log, _)) => log,
            None => SourceRangeLog::open(group)
                .map_err(|error| error.to_string())?
                .ok_or("this kernel has no nf_tables (CONFIG_NF_TABLES)")?,
        };
        log.update(mode, desired, options, facts).map_err(|error| error.to_string())?;
        self.source_ranges = Some((log, mode));
        Ok(())
    }

    /// Returns the progress counters of a running sync.
    pub(super) fn progress(&self) -> Option<Arc<SyncProgress>> {
        self.progress.clone()
    }

    /// Returns the options of the last sync.
    pub(super) fn options(&self) -> &Options {
        self.engine.options()
    }
}

fn rules_result(result: &SyncResult) -> RulesResult {
    let isolated = result.isolated.iter().map(|isolated| IsolatedObject {
        object: ObjectKey { kind: Kind::Service, name: isolated.service.clone() },
        cause: isolated.cause,
        text: isolated.to_string(),
        has_rules: Some(isolated.has_rules),
    });
    RulesResult {
        rules: result.family.as_str(),
        is_full: result.is_full,
        duration: result.duration,
        restored: result.restored,
        isolated: isolated.collect(),
        error: result.error.as_ref().map(|error| RulesError {
            message: error.to_string(),
            may_restart_help: error.kind() != SyncErrorKind::SearchIncomplete,
        }),
    }
}

fn log_cleanup(cleanup: &CleanupResult) {
    let CleanupResult { removed, not_removed, kept, .. } = cleanup;
    removed.iter().for_each(|object| tracing::info!(%object, "removed an object of another proxy mode"));
    not_removed
        .iter()
        .for_each(|object| tracing::warn!(%object, "cannot remove an object of another proxy mode"));
    kept.iter().for_each(|object| tracing::info!("kept {object}"));
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

#[cfg(test)]
mod tests {
    use portcullis_cluster::Family;

    use super::*;

    #[test]
    fn search_for_rejected_services_is_no_reason_for_a_restart() {
        for (kind, may_help) in
            [(SyncErrorKind::SearchIncomplete, false), (SyncErrorKind::ToolUnusable, true)]
        {
            let result = SyncResult {
                family: Family::V4,
                is_full: true,
                duration: Duration::from_secs(1),
                written: 0,
                tables: Vec::new(),
                restored: 0,
                deferred: Vec::new(),
                isolated: Vec::new(),
                error: Some(SyncError::new(kind, "rejected")),
            };
            let error = rules_result(&result).error.expect("it failed");
            assert_eq!(error.may_restart_help, may_help, "{kind:?}");
        }
    }
}
