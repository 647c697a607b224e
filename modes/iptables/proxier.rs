//! The mode itself: both families, and what they share.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::Family;
use portcullis_cluster::desired::{Desired, ServiceChange, ServicePortName};

use super::chain::{Names, SharedChain, belongs_to_a_service};
use super::family_sync::IptablesFamilySync;
use super::kernel::{Fingerprint, IptablesKernel, has_synced_since};
use super::saved_rule::SavedRule;
use crate::mode::{Mode, SyncError, SyncResult};
use crate::node_facts::NodeFacts;
use crate::options::Options;
use crate::progress::SyncProgress;
use crate::sync_state::{FULL_CHECK, SyncState};
use crate::traffic::{ServicePortTraffic, TrafficCounts, TrafficMeter};

/// Comparisons that find nothing take at most a tenth of the time: after one that took long, the next waits.
const CHECK_SHARE: u32 = 10;

/// A comparison that took less than this is no burden, however often.
const LONG_CHECK: Duration = Duration::from_secs(1);

/// Serves Services by iptables.
pub struct IptablesProxier {
    options: Options,
    host: NodeFacts,
    families: Vec<IptablesFamilySync>,
    progress: Arc<SyncProgress>,
    fingerprint: Option<Fingerprint>,
    /// The shape of our chains as we left them; `None` if it was not taken since we last wrote.
    shapes: Option<Vec<u64>>,
    checked: Instant,
    /// The next sync compares everything because of an external change.
    alarmed: bool,
    /// Until then, external changes cause no comparison.
    rests_until: Option<Instant>,
    /// An external change came during the rest.
    postponed: bool,
    /// The tool or the kernel does not know the nfacct match, though there are counters.
    nfacct_refused: bool,
    /// By family and rule.
    meter: TrafficMeter<(Family, String)>,
}

impl IptablesProxier {
    /// A proxier for these kernels, one a family.
    pub fn new(
        options: Options,
        host: NodeFacts,
        kernels: impl IntoIterator<Item = (Family, Box<dyn IptablesKernel>)>,
    ) -> Self {
        let progress = Arc::default();
        let families = kernels.into_iter().map(|(family, kernel)| {
            IptablesFamilySync::new(family, kernel, Arc::clone(&progress), &options, &host)
        });
        IptablesProxier {
            families: families.collect(),
            progress,
            options,
            host,
            fingerprint: None,
            shapes: None,
            checked: Instant::now(),
            alarmed: false,
            rests_until: None,
            postponed: false,
            nfacct_refused: false,
            meter: TrafficMeter::default(),
        }
    }

    fn read_fingerprint(&self) -> Option<Fingerprint> {
        let mut all = Vec::new();
        for family in &self.families {
            all.extend(family.kernel.fingerprint()?);
        }
        Some(all)
    }

    fn read_shapes(&self) -> Option<Vec<u64>> {
        self.families.iter().map(|family| family.kernel.shape()).collect()
    }

    /// Whether somebody else may have changed our rules since we last wrote. Others write to nf_tables all the
    /// time; as long as our chains keep their shape, that is no concern of ours.
    fn somebody_wrote(&mut self) -> bool {
        let now = self.read_fingerprint();
        if now.is_some() && now == self.fingerprint {
            return false;
        }
        if self.shapes.is_some() && self.read_shapes() == self.shapes {
            self.fingerprint = now;
            return false;
        }
        true
    }

    /// Takes the shape of our chains, while they are as we left them.
    fn remember_shapes(&mut self) {
        if self.shapes.is_none() {
            let shapes = self.read_shapes();
            let still_ours = self.read_fingerprint() == self.fingerprint;
            self.shapes = shapes.filter(|_| still_ours);
        }
    }

    fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|end| now < end)
    }

    /// Makes the next sync compare everything, as another process may have changed our rules.
    fn alarm(&mut self) {
        (self.alarmed, self.postponed) = (true, false);
        self.families.iter_mut().for_each(IptablesFamilySync::suspect);
    }

    /// Notes that everything was compared. A comparison that found something was needed, so the next one does not wait.
    fn note_comparison(&mut self, reports: &[SyncResult]) {
        self.checked = Instant::now();
        let took: Duration = reports.iter().map(|r| r.duration).sum();
        let needed = !self.alarmed || reports.iter().any(|r| r.written > 0 || r.error.is_some());
        self.rests_until = (!needed && took > LONG_CHECK).then(|| self.checked + took * CHECK_SHARE);
        (self.alarmed, self.postponed) = (false, false);
    }

    /// A kernel or tool without the nfacct match refuses the base rules: better none of its counters than none
    /// of the rules.
    fn without_nfacct(&mut self, reports: &[SyncResult]) -> bool {
        let refused = |r: &SyncResult| matches!(&r.error, Some(SyncError::Rejected { .. }));
        let retry = self.host.nfacct && reports.iter().any(refused);
        if retry {
            tracing::warn!("the rules were refused; trying once more without the nfacct counters");
            self.nfacct_refused = true;
            self.reconfigure(self.options.clone(), self.host.clone());
        }
        retry
    }
}

impl Mode for IptablesProxier {
    fn name(&self) -> &'static str {
        "iptables"
    }

    fn reconfigure(&mut self, options: Options, mut host: NodeFacts) {
        host.nfacct &= !self.nfacct_refused;
        if host != self.host || options != self.options {
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
        let now = Instant::now();
        if self.postponed && !self.rests(now) {
            self.alarm();
        }
        if self.fingerprint.is_some() && self.somebody_wrote() {
            self.families.iter_mut().for_each(|f| f.positions_unsure = true);
        }
        let unsure = self.families.iter().any(|f| f.positions_unsure);
        let first = self.families.iter().any(|f| f.sync_state == SyncState::NotSynced);
        let mut reports: Vec<SyncResult> =
            self.families.iter_mut().map(|family| family.sync(desired, changes, now)).collect();
        if first && self.without_nfacct(&reports) {
            reports = self.families.iter_mut().map(|family| family.sync(desired, &[], now)).collect();
        }
        if reports.iter().any(|r| r.is_full) {
            self.note_comparison(&reports);
        }
        if reports.iter().any(|r| r.written > 0 || r.error.is_some()) {
            self.shapes = None;
        }
        // What somebody else wrote meanwhile stays suspect until it has been compared.
        let compared = reports.iter().all(|r| r.is_full && r.error.is_none());
        if compared || !unsure {
            self.fingerprint = self.read_fingerprint();
        }
        reports
    }

    /// A connection passes one of the rules that lead to a Service's chains, with its first packet.
    fn traffic(&mut self, desired: &Desired) -> Result<Option<Vec<ServicePortTraffic>>, SyncError> {
        let named = desired.ports().map(|port| (Names::of(&port.name).ending().to_owned(), &port.name));
        let named: HashMap<String, &ServicePortName> = named.collect();
        let mut counters = Vec::new();
        for family in self.families.iter().filter(|family| family.sync_state != SyncState::NotSynced) {
            for chain in [SharedChain::NatServices, SharedChain::NatNodePorts] {
                family.kernel.counted(chain.name(), &mut |line| {
                    let Some(rule) = SavedRule::parse(line) else { return };
                    let Some(((packets, bytes), target)) = rule.counters().zip(rule.target()) else { return };
                    let port = target.rsplit('-').next().and_then(|ending| named.get(ending));
                    let Some(port) = port.filter(|_| belongs_to_a_service(target)) else { return };
                    let rule = line.replacen(&format!(" -c {packets} {bytes}"), "", 1);
                    let counts = TrafficCounts { connections: packets, volume: None };
                    counters.push(((family.family, rule), (*port).clone(), family.family, counts));
                })?;
            }
        }
        Ok(Some(self.meter.read(counters)))
    }

    fn progress(&self) -> Option<Arc<SyncProgress>> {
        Some(Arc::clone(&self.progress))
    }

    fn has_synced_since(&self, generation: u32) -> bool {
        self.families
            .iter()
            .any(|f| has_synced_since(f.kernel.flavour(), self.fingerprint.as_ref(), generation))
    }

    fn check_drift(&mut self) -> bool {
        let drifted = self.somebody_wrote();
        if !drifted {
            self.remember_shapes();
        }
        self.postponed = drifted && self.rests(Instant::now());
        if drifted && !self.postponed {
            self.alarm();
        } else if self.checked.elapsed() >= FULL_CHECK {
            self.families.iter_mut().for_each(IptablesFamilySync::suspect);
        }
        drifted && !self.postponed
    }

    fn next_due(&self) -> Option<Instant> {
        self.rests_until.filter(|_| self.postponed)
    }
}
