//! What the loop tells the outside: metrics, health, and the answers to load balancers.

use std::collections::BTreeMap;
use std::time::SystemTime;

use jiff::Timestamp;
use portcullis_cluster::desired::Desired;
use portcullis_cluster::index::Touched;
use portcullis_cluster::{Family, Index, Name, NamespacedName};
use portcullis_modes::{Report, SyncError};

use super::worker::Outcome;
use crate::config::Config;
use crate::metrics::{Extent, Metrics, TrafficPolicy};
use crate::source::Source;

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {0}")]
pub enum ServeError {}

/// Everything that shows how the daemon fares.
pub(super) struct Telemetry {
    metrics: Metrics,
    families: Vec<Family>,
    isolated: BTreeMap<Family, Vec<NamespacedName>>,
    /// When the changes happened that the running sync writes.
    trigger_times: Vec<Timestamp>,
}

impl Telemetry {
    pub(super) async fn start(
        config: &Config,
        source: &Source,
        node: Name,
        families: &[Family],
    ) -> Result<Self, ServeError> {
        let _ = node;
        let metrics = Metrics::new(config.mode);
        let health = source.health().clone();
        metrics.read_source(move || health.snapshot());
        Ok(Telemetry {
            metrics,
            families: families.to_vec(),
            isolated: BTreeMap::new(),
            trigger_times: Vec::new(),
        })
    }

    /// Something was heard that makes a sync necessary.
    pub(super) fn queued(&mut self, index: &Index) {
        let now = SystemTime::now();
        let touched = index.touched();
        self.families.iter().for_each(|family| self.metrics.sync_queued(*family, now));
        self.metrics.set_pending(touched.services.len(), touched.services.len());
    }

    /// A sync starts.
    pub(super) fn started(&mut self, _index: &Index, touched: &Touched) {
        self.metrics.changed(touched.services.len(), touched.services.len());
        self.metrics.set_pending(0, 0);
        self.trigger_times.extend(&touched.trigger_times);
    }

    /// A sync ended.
    pub(super) fn synced(&mut self, outcome: &Outcome) {
        let now = SystemTime::now();
        for report in &outcome.reports {
            self.report(report, now);
        }
        if let Ok(sweep) = &outcome.flows {
            if sweep.suspects > 0 {
                self.metrics.conntrack_reconciled(Family::V4, sweep.took, sweep.deleted as u64);
            }
        }
        if outcome.error().is_none() {
            let now = Timestamp::now();
            for trigger in std::mem::take(&mut self.trigger_times) {
                let took = now.duration_since(trigger).unsigned_abs();
                self.families.iter().for_each(|family| self.metrics.network_programmed(*family, took));
            }
        }
    }

    fn report(&mut self, report: &Report, now: SystemTime) {
        let (family, extent) = (report.family, if report.full { Extent::Full } else { Extent::Partial });
        self.metrics.sync_ended(family, extent, report.took);
        match &report.error {
            None => self.metrics.synced(family, now),
            Some(error) => {
                self.metrics.sync_failed(family);
                if matches!(error, SyncError::Refused { .. } | SyncError::Locked { .. }) {
                    self.metrics.restore_failed(family, extent);
                }
            }
        }
        self.metrics.drift_repaired(family, report.repaired);
        let isolated: Vec<NamespacedName> = report.isolated.iter().map(|i| i.service.clone()).collect();
        let before = self.isolated.entry(family).or_default();
        self.metrics.set_isolated(family, before, &isolated);
        *before = isolated;
    }

    /// Answers load balancers about the endpoints that are on this node now.
    pub(super) fn serve_health_checks(&mut self, desired: &Desired) {
        let count = |family: Family, internal: bool| {
            let ports = desired.ports().filter(|p| p.family == family && p.endpoints.exist());
            let local = |p: &&_| -> bool {
                let p: &portcullis_cluster::desired::ServicePort = p;
                if internal { p.internal_local } else { p.external_local }
            };
            ports.filter(local).filter(|p| p.endpoints.for_local().next().is_none()).count()
        };
        for family in &self.families {
            self.metrics.set_no_local_endpoints(*family, TrafficPolicy::Internal, count(*family, true));
            self.metrics.set_no_local_endpoints(*family, TrafficPolicy::External, count(*family, false));
        }
    }

    pub(super) async fn stop(self) {}
}
