//! IPVS mode as a [`Mode`]: both families, audits and traffic counters.

use std::collections::HashMap;
use std::slice;
use std::sync::Arc;
use std::time::Instant;

use portcullis_cluster::Family;
use portcullis_cluster::desired::{Desired, ServiceChange};
use portcullis_netlink::ip_vs::{Statistics, VirtualServer};

use super::audit::AuditSchedule;
use super::errors::cannot;
use super::family_sync::{FamilySync, Inputs};
use super::kernel::IpvsKernel;
use super::options::IpvsOptions;
use super::renderer::Renderer;
use super::snapshot::NodeSnapshot;
use crate::error::SyncError;
use crate::iptables::IptablesKernel;
use crate::mode::{Mode, SyncResult};
use crate::node_facts::NodeFacts;
use crate::options::Options;
use crate::proxy_mode::ProxyMode;
use crate::sync_state::FULL_CHECK;
use crate::traffic::{ServicePortTraffic, TrafficCounts, TrafficMeter, TrafficVolume};

/// Programs Services as virtual servers of IPVS.
pub struct IpvsProxier {
    options: Options,
    facts: NodeFacts,
    kernel: Box<dyn IpvsKernel>,
    families: Vec<FamilySync>,
    audits: AuditSchedule,
    /// The time of the last comparison of all rules with the kernel.
    rules_checked: Instant,
    meter: TrafficMeter<VirtualServer>,
}

impl IpvsProxier {
    /// Returns a proxier for this kernel, and for the iptables of these families.
    pub fn new(
        ipvs: IpvsOptions,
        options: Options,
        facts: NodeFacts,
        kernel: impl IpvsKernel + 'static,
        iptables: impl IntoIterator<Item = (Family, Box<dyn IptablesKernel>)>,
    ) -> Self {
        let excluded: Arc<[_]> = ipvs.exclude_cidrs.into();
        let families = iptables.into_iter().map(|(family, iptables)| {
            let renderer = Renderer::new(family, ipvs.scheduler, &options, &facts);
            FamilySync::new(renderer, iptables, Arc::clone(&excluded))
        });
        let now = Instant::now();
        IpvsProxier {
            families: families.collect(),
            options,
            facts,
            kernel: Box::new(kernel),
            audits: AuditSchedule::new(now),
            rules_checked: now,
            meter: TrafficMeter::default(),
        }
    }

    /// [`Mode::sync`] at a given time.
    pub fn sync_at(&mut self, now: Instant, desired: &Desired, changes: &[ServiceChange]) -> Vec<SyncResult> {
        self.poll_audit(now);
        let mut node = NodeSnapshot::default();
        let inputs = Inputs { desired, options: &self.options, facts: &self.facts, now };
        let sync = |family: &mut FamilySync| family.sync(&mut *self.kernel, &mut node, changes, inputs);
        self.families.iter_mut().map(sync).collect()
    }

    /// [`Mode::check_drift`] at a given time.
    pub fn check_drift_at(&mut self, now: Instant) -> bool {
        let has_drift = self.check_rules(now);
        self.begin_audit(now);
        has_drift
    }

    fn poll_audit(&mut self, now: Instant) {
        match self.audits.poll(now) {
            None => {}
            Some(Err(error)) => tracing::warn!(%error, "cannot compare the virtual servers with the kernel"),
            Some(Ok(snapshot)) => {
                let drifted = self
                    .families
                    .iter_mut()
                    .filter_map(|family| family.end_audit(&snapshot).then_some(family.programmed.family()));
                let drifted: Vec<Family> = drifted.collect();
                if !drifted.is_empty() {
                    tracing::debug!(families = ?drifted, "another process changed objects of IPVS mode; restoring them");
                }
            }
        }
    }

    fn begin_audit(&mut self, now: Instant) {
        if !self.audits.is_due(now) {
            return;
        }
        let families = self.families.iter_mut();
        let audited =
            families.filter_map(|family| family.begin_audit().then_some(family.programmed.family()));
        let audited: Vec<Family> = audited.collect();
        if audited.is_empty() {
            return;
        }
        if let Err(error) = self.audits.begin(self.kernel.reader(), audited, now) {
            tracing::warn!(%error, "cannot compare the virtual servers with the kernel");
        }
    }

    /// Makes the next sync compare the rules with the kernel if another process may have changed them, or the last
    /// comparison was long ago. Returns true in the first case.
    fn check_rules(&mut self, now: Instant) -> bool {
        let is_overdue = now - self.rules_checked >= FULL_CHECK;
        let mut has_external_changes = false;
        for family in &mut self.families {
            let rules = &mut family.executor.rules;
            let has_changes = rules.has_external_changes();
            if has_changes || is_overdue {
                rules.mark_unverified();
            }
            has_external_changes |= has_changes;
        }
        if has_external_changes || is_overdue {
            self.rules_checked = now;
        }
        has_external_changes
    }
}

impl Mode for IpvsProxier {
    fn proxy_mode(&self) -> ProxyMode {
        ProxyMode::Ipvs
    }

    fn reconfigure(&mut self, options: Options, facts: NodeFacts) {
        if options != self.options || facts != self.facts {
            (self.options, self.facts) = (options, facts);
            self.families.iter_mut().for_each(|f| f.reconfigure(&self.options, &self.facts));
        }
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn node_facts(&self) -> &NodeFacts {
        &self.facts
    }

    fn sync(&mut self, desired: &Desired, changes: &[ServiceChange]) -> Vec<SyncResult> {
        self.sync_at(Instant::now(), desired, changes)
    }

    fn has_synced_since(&self, generation: u32) -> bool {
        self.families.iter().any(|family| family.executor.rules.has_synced_since(generation))
    }

    fn may_be_own_write(&self, generation: u32) -> bool {
        self.families.iter().any(|family| family.executor.rules.may_be_own_write(generation))
    }

    fn check_drift(&mut self) -> bool {
        self.check_drift_at(Instant::now())
    }

    fn traffic(&mut self, desired: &Desired) -> Result<Option<Vec<ServicePortTraffic>>, SyncError> {
        let statistics = self.kernel.statistics().map_err(cannot("read the counters of virtual servers"))?;
        let mut statistics: HashMap<VirtualServer, Statistics> = statistics.into_iter().collect();
        let mut counters = Vec::new();
        for family in &self.families {
            let programmed = &family.programmed;
            for port in desired.ports().filter(|port| port.family == programmed.family()) {
                for (server, _) in programmed.renderer().service(slice::from_ref(port)).servers {
                    // A virtual server of two Services counts for the first.
                    let counts = statistics.remove(&server).map(counts);
                    counters.extend(counts.map(|counts| (server, port.name.clone(), port.family, counts)));
                }
            }
        }
        Ok(Some(self.meter.read(counters)))
    }

    fn next_due(&self) -> Option<Instant> {
        self.families.iter().filter_map(FamilySync::next_due).chain(self.audits.next_poll()).min()
    }
}

fn counts(statistics: Statistics) -> TrafficCounts {
    let Statistics { connections, packets_in, packets_out, bytes_in, bytes_out } = statistics;
    TrafficCounts {
        connections,
        volume: Some(TrafficVolume { packets_in, packets_out, bytes_in, bytes_out }),
    }
}
