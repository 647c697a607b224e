//! The mode itself: both families, and what they share.

use std::collections::HashMap;
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::Family;
use portcullis_cluster::desired::{Desired, ServiceChange};
use portcullis_netlink::ip_vs::{Statistics, VirtualServer};

use super::audit::{Audit, Written};
use super::family_sync::FamilySync;
use super::kernel::IpvsKernel;
use super::options::IpvsOptions;
use super::service_objects::Server;
use super::write::{Held, asked};
use crate::iptables;
use crate::mode::{Mode, SyncError, SyncResult};
use crate::node_facts::NodeFacts;
use crate::options::Options;
use crate::sync_state::{FULL_CHECK, SyncState};
use crate::traffic::{ServicePortTraffic, TrafficCounts, TrafficMeter, TrafficVolume};

/// How soon to ask whether an audit is done.
const AUDIT_POLL: Duration = Duration::from_millis(200);

/// An audit takes at most this part of the time of one thread: after one that took long, the next waits.
const AUDIT_SHARE: u32 = 10;

/// Serves Services by IPVS.
pub struct IpvsProxier {
    options: Options,
    host: NodeFacts,
    kernel: Box<dyn IpvsKernel>,
    families: Vec<FamilySync>,
    audit: Option<(Audit, Instant)>,
    /// When to ask whether the audit under way is done.
    poll: Instant,
    /// No audit before this.
    next_audit: Instant,
    /// When the rules were last compared with the kernel.
    rules_checked: Instant,
    meter: TrafficMeter<VirtualServer>,
}

impl IpvsProxier {
    /// A proxier for this kernel, and for the iptables of these families.
    pub fn new(
        ipvs: IpvsOptions,
        options: Options,
        host: NodeFacts,
        kernel: impl IpvsKernel + 'static,
        iptables: impl IntoIterator<Item = (Family, Box<dyn iptables::IptablesKernel>)>,
    ) -> Self {
        let exclude: Arc<[_]> = ipvs.exclude_cidrs.into();
        let families = iptables.into_iter().map(|(family, iptables)| {
            FamilySync::new(family, iptables, ipvs.scheduler, Arc::clone(&exclude), &options, &host)
        });
        let now = Instant::now();
        IpvsProxier {
            families: families.collect(),
            options,
            host,
            kernel: Box::new(kernel),
            audit: None,
            poll: now,
            next_audit: now,
            rules_checked: now,
            meter: TrafficMeter::default(),
        }
    }

    /// [`Mode::sync`] at a time of the caller's.
    pub fn sync_at(&mut self, now: Instant, desired: &Desired, changes: &[ServiceChange]) -> Vec<SyncResult> {
        let drifted = self.take_up_audit(now);
        if drifted {
            tracing::debug!("the kernel does not hold what was written");
        }
        let (mut reports, mut held) = (Vec::new(), Held::default());
        for family in &mut self.families {
            reports.push(family.sync(&mut *self.kernel, &mut held, desired, changes, now));
        }
        reports
    }

    /// [`Mode::check_drift`] at a time of the caller's.
    pub fn check_drift_at(&mut self, now: Instant) -> bool {
        let rules = self.suspect_rules(now);
        self.begin_audit(now);
        rules
    }

    /// Takes up what an audit found, if it is done. Says whether something was otherwise than it was written.
    fn take_up_audit(&mut self, now: Instant) -> bool {
        let Some((audit, begun)) = &self.audit else { return false };
        self.poll = now + AUDIT_POLL;
        let Some(seen) = audit.finished() else { return false };
        self.next_audit = now + (now - *begun) * AUDIT_SHARE;
        let mut drifted = false;
        match &seen {
            Err(error) => tracing::warn!(%error, "cannot look whether the virtual servers still stand"),
            Ok(sight) => {
                for family in &mut self.families {
                    let Some(written) = family.written.take() else { continue };
                    if family.sync_state != SyncState::InSync {
                        continue;
                    }
                    let findings = family.judge(sight, &written);
                    drifted |= !findings.servers.is_empty() || findings.sets_or_addresses;
                    family.unsure.extend(findings.servers);
                    if findings.sets_or_addresses {
                        family.suspect();
                    }
                }
            }
        }
        self.audit = None;
        drifted
    }

    fn begin_audit(&mut self, now: Instant) {
        if self.audit.is_some() || now < self.next_audit {
            return;
        }
        // One that is not known is compared at the next sync, whatever an audit finds.
        let mut known = Vec::new();
        for family in &mut self.families {
            let is_known = family.sync_state == SyncState::InSync;
            known.extend(is_known.then_some(family.family));
            family.written = is_known.then(Written::default);
        }
        if known.is_empty() {
            return;
        }
        match Audit::begin(self.kernel.reader(), known) {
            Ok(audit) => {
                self.audit = Some((audit, now));
                self.poll = now + AUDIT_POLL;
            }
            Err(error) => tracing::warn!(%error, "cannot look whether the virtual servers still stand"),
        }
    }

    fn suspect_rules(&mut self, now: Instant) -> bool {
        let overdue = now - self.rules_checked >= FULL_CHECK;
        let mut wrote = false;
        for family in &mut self.families {
            let somebody = family.rules.somebody_wrote();
            if somebody || overdue {
                family.rules.suspect();
            }
            wrote |= somebody;
        }
        if wrote || overdue {
            self.rules_checked = now;
        }
        wrote
    }
}

fn counts(of: Statistics) -> TrafficCounts {
    let Statistics { connections, packets_in, packets_out, bytes_in, bytes_out } = of;
    TrafficCounts {
        connections,
        volume: Some(TrafficVolume { packets_in, packets_out, bytes_in, bytes_out }),
    }
}

impl Mode for IpvsProxier {
    fn name(&self) -> &'static str {
        "ipvs"
    }

    fn reconfigure(&mut self, options: Options, host: NodeFacts) {
        if options != self.options || host != self.host {
            (self.options, self.host) = (options, host);
            self.families.iter_mut().for_each(|f| f.reconfigure(&self.options, &self.host));
        }
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn node_facts(&self) -> &NodeFacts {
        &self.host
    }

    fn sync(&mut self, desired: &Desired, changes: &[ServiceChange]) -> Vec<SyncResult> {
        self.sync_at(Instant::now(), desired, changes)
    }

    fn has_synced_since(&self, generation: u32) -> bool {
        self.families.iter().any(|family| family.rules.has_synced_since(generation))
    }

    fn check_drift(&mut self) -> bool {
        self.check_drift_at(Instant::now())
    }

    fn traffic(&mut self, desired: &Desired) -> Result<Option<Vec<ServicePortTraffic>>, SyncError> {
        let counted = self.kernel.statistics().map_err(asked("read what virtual servers counted"))?;
        let mut counted: HashMap<VirtualServer, Statistics> = counted.into_iter().collect();
        let mut counters = Vec::new();
        for family in &self.families {
            for port in desired.ports().filter(|port| port.family == family.family) {
                for Server { key, .. } in family.renderer.service(slice::from_ref(port)).servers {
                    // One address and port of two Services is the first one's.
                    let counts = counted.remove(&key).map(counts);
                    counters.extend(counts.map(|counts| (key, port.name.clone(), port.family, counts)));
                }
            }
        }
        Ok(Some(self.meter.read(counters)))
    }

    fn next_due(&self) -> Option<Instant> {
        let audit = self.audit.as_ref().map(|_| self.poll);
        self.families.iter().filter_map(FamilySync::next_due).chain(audit).min()
    }
}
