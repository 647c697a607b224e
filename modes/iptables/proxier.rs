//! The proxier of iptables mode: both families, and their shared fingerprint of the kernel.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::Family;
use portcullis_cluster::desired::{Desired, ServiceChange, ServicePortName};

use super::chain::{ServiceChainNames, SharedChain, is_service_chain};
use super::confirmation::Confirmation;
use super::family_proxier::IptablesFamilyProxier;
use super::kernel::{Fingerprint, Flavour, IptablesKernel, has_synced_since};
use super::own_writes::{OwnWrites, WriteInterval};
use super::saved_rule::SavedRule;
use crate::error::{SyncError, SyncErrorKind};
use crate::mode::{Mode, SyncResult};
use crate::node_facts::NodeFacts;
use crate::options::Options;
use crate::progress::SyncProgress;
use crate::proxy_mode::ProxyMode;
use crate::sync_state::{FULL_CHECK, SyncState};
use crate::traffic::{ServicePortTraffic, TrafficCounts, TrafficMeter};

/// Comparisons that find no change take at most a tenth of the time: after a long one, the next is delayed.
const CHECK_SHARE: u32 = 10;

/// A comparison that took less than this delays nothing.
const LONG_CHECK: Duration = Duration::from_secs(1);

/// Programs Services with iptables.
pub struct IptablesProxier {
    options: Options,
    node_facts: NodeFacts,
    families: Vec<IptablesFamilyProxier>,
    progress: Arc<SyncProgress>,
    /// The fingerprints of the families after the last write or comparison.
    fingerprint: Option<Vec<Fingerprint>>,
    /// The fingerprints of our chains after the last write; `None` if they were not read since.
    chain_fingerprints: Option<Vec<u64>>,
    /// The fingerprint after a sync in which a write was rejected, if own writes alone can have led to it.
    after_rejection: Option<Vec<Fingerprint>>,
    checked: Instant,
    confirmation: Confirmation,
    /// The next sync compares all rules because of an external change.
    comparing_after_change: bool,
    /// Until this time, external changes cause no comparison.
    comparison_not_before: Option<Instant>,
    /// An external change was found before [`Self::comparison_not_before`].
    postponed: bool,
    /// The tool or the kernel rejected the nfacct match, although the kernel has nfacct objects.
    nfacct_rejected: bool,
    /// Traffic by family and rule.
    meter: TrafficMeter<(Family, String)>,
}

impl IptablesProxier {
    /// Returns a proxier for these kernels, one per family.
    pub fn new(
        options: Options,
        node_facts: NodeFacts,
        kernels: impl IntoIterator<Item = (Family, Box<dyn IptablesKernel>)>,
    ) -> Self {
        let progress = Arc::default();
        let families = kernels.into_iter().map(|(family, kernel)| {
            IptablesFamilyProxier::new(family, kernel, Arc::clone(&progress), &options, &node_facts)
        });
        IptablesProxier {
            families: families.collect(),
            progress,
            options,
            node_facts,
            fingerprint: None,
            chain_fingerprints: None,
            after_rejection: None,
            checked: Instant::now(),
            confirmation: Confirmation::default(),
            comparing_after_change: false,
            comparison_not_before: None,
            postponed: false,
            nfacct_rejected: false,
            meter: TrafficMeter::default(),
        }
    }

    fn read_fingerprint(&self) -> Option<Vec<Fingerprint>> {
        self.families.iter().map(|family| family.kernel.fingerprint()).collect()
    }

    fn read_chain_fingerprints(&self) -> Option<Vec<u64>> {
        self.families.iter().map(|family| family.kernel.chain_fingerprint()).collect()
    }

    /// Returns true if another process may have changed our rules since the last write. Network plugins write to
    /// nf_tables all the time; as long as the fingerprints of our own chains are unchanged, their writes do not matter.
    fn has_external_change(&mut self) -> bool {
        let now = self.read_fingerprint();
        if now.is_some() && now == self.fingerprint {
            return false;
        }
        if self.chain_fingerprints.is_some() && self.read_chain_fingerprints() == self.chain_fingerprints {
            self.fingerprint = now;
            return false;
        }
        true
    }

    /// Reads the fingerprints of our chains while the chains are as last written.
    fn record_chain_fingerprints(&mut self) {
        if self.chain_fingerprints.is_none() {
            let chain_fingerprints = self.read_chain_fingerprints();
            let unchanged = self.read_fingerprint() == self.fingerprint;
            self.chain_fingerprints = chain_fingerprints.filter(|_| unchanged);
        }
    }

    fn own_writes(&self) -> Vec<OwnWrites> {
        self.families.iter().map(IptablesFamilyProxier::own_writes).collect()
    }

    /// Returns the fingerprint after the writes of a sync; the one before it if another process wrote at the same time, so
    /// that the next check compares all rules.
    fn end_writes(&mut self, interval: &WriteInterval) -> Option<Vec<Fingerprint>> {
        let (after, own) = (self.read_fingerprint(), self.own_writes());
        self.after_rejection = None;
        if !interval.is_disturbed(after.as_deref(), &own) {
            return after;
        }
        self.after_rejection = after.filter(|after| interval.may_be_own(after, &own));
        tracing::debug!(
            "another process wrote iptables rules during a sync, or a write was rejected in part; comparing the rules"
        );
        self.chain_fingerprints = None;
        self.families.iter_mut().for_each(|family| family.positions_unreliable = true);
        interval.before().map(<[Fingerprint]>::to_vec)
    }

    /// Plans the comparison that follows own writes with the legacy tool. `compared`: this sync compared all rules.
    fn plan_confirmation(&mut self, interval: &WriteInterval, compared: bool, now: Instant) {
        if self.families.iter().all(|family| family.kernel.flavour() == Flavour::Nft) {
            return;
        }
        if compared {
            self.confirmation.record_comparison(self.families.iter().map(|f| f.comparison_took).sum());
        }
        if interval.has_written(&self.own_writes()) {
            self.confirmation.record_write(now);
        }
    }

    fn is_throttled(&self, now: Instant) -> bool {
        self.comparison_not_before.is_some_and(|end| now < end)
    }

    /// Makes the next sync compare all rules, as another process may have changed them.
    fn request_comparison(&mut self) {
        (self.comparing_after_change, self.postponed) = (true, false);
        self.families.iter_mut().for_each(IptablesFamilyProxier::mark_unverified);
    }

    /// Records a comparison of all rules. If it found a change, the next one is not delayed.
    fn record_comparison(&mut self, results: &[SyncResult]) {
        self.checked = Instant::now();
        let took: Duration = results.iter().map(|r| r.duration).sum();
        let needed =
            !self.comparing_after_change || results.iter().any(|r| r.written > 0 || r.error.is_some());
        self.comparison_not_before =
            (!needed && took > LONG_CHECK).then(|| self.checked + took * CHECK_SHARE);
        (self.comparing_after_change, self.postponed) = (false, false);
    }

    /// Retries without the nfacct counters if the base rules were rejected: a kernel or tool may lack the nfacct match.
    /// Returns true if there is something to retry.
    fn retries_without_nfacct(&mut self, results: &[SyncResult]) -> bool {
        let is_rejected =
            |r: &SyncResult| r.error.as_ref().is_some_and(|error| error.kind() == SyncErrorKind::ToolFailed);
        let retry = self.node_facts.iptables.nfacct && results.iter().any(is_rejected);
        if retry {
            tracing::warn!("the kernel rejected the rules; retrying without the nfacct counters");
            self.nfacct_rejected = true;
            self.reconfigure(self.options.clone(), self.node_facts.clone());
        }
        retry
    }

    /// [`Mode::sync`] at a given time.
    pub fn sync_at(&mut self, now: Instant, desired: &Desired, changes: &[ServiceChange]) -> Vec<SyncResult> {
        if self.postponed && !self.is_throttled(now) {
            self.request_comparison();
        }
        if self.confirmation.take_due(now) {
            self.families.iter_mut().for_each(IptablesFamilyProxier::mark_unverified);
        }
        let interval = WriteInterval::new(self.read_fingerprint(), self.own_writes());
        if self.fingerprint.is_some() && self.has_external_change() {
            self.families.iter_mut().for_each(|f| f.positions_unreliable = true);
        }
        let unreliable = self.families.iter().any(|f| f.positions_unreliable);
        let is_first = self.families.iter().any(|f| f.sync_state == SyncState::NotSynced);
        let mut results: Vec<SyncResult> =
            self.families.iter_mut().map(|family| family.sync(desired, changes, now)).collect();
        if is_first && self.retries_without_nfacct(&results) {
            results = self.families.iter_mut().map(|family| family.sync(desired, &[], now)).collect();
        }
        if results.iter().any(|r| r.is_full) {
            self.record_comparison(&results);
        }
        if results.iter().any(|r| r.written > 0 || r.error.is_some()) {
            self.chain_fingerprints = None;
        }
        // Until everything has been compared, external changes made meanwhile remain unverified.
        let compared = results.iter().all(|r| r.is_full && r.error.is_none());
        if compared || !unreliable {
            self.fingerprint = self.end_writes(&interval);
        }
        self.plan_confirmation(&interval, compared, now);
        results
    }
}

impl Mode for IptablesProxier {
    fn proxy_mode(&self) -> ProxyMode {
        ProxyMode::Iptables
    }

    fn reconfigure(&mut self, options: Options, mut node_facts: NodeFacts) {
        node_facts.iptables.nfacct &= !self.nfacct_rejected;
        if node_facts != self.node_facts || options != self.options {
            (self.options, self.node_facts) = (options, node_facts);
            self.families.iter_mut().for_each(|f| f.reconfigure(&self.options, &self.node_facts));
        }
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn node_facts(&self) -> &NodeFacts {
        &self.node_facts
    }

    fn sync(&mut self, desired: &Desired, changes: &[ServiceChange]) -> Vec<SyncResult> {
        self.sync_at(Instant::now(), desired, changes)
    }

    /// Each connection passes one of the rules that jump to a Service's chains, with its first packet.
    fn traffic(&mut self, desired: &Desired) -> Result<Option<Vec<ServicePortTraffic>>, SyncError> {
        let named =
            desired.ports().map(|port| (ServiceChainNames::new(&port.name).hash().to_owned(), &port.name));
        let named: HashMap<String, &ServicePortName> = named.collect();
        let mut counters = Vec::new();
        for family in self.families.iter().filter(|family| family.sync_state != SyncState::NotSynced) {
            for chain in [SharedChain::NatServices, SharedChain::NatNodePorts] {
                family.kernel.dump_counters(chain.name(), &mut |line| {
                    let Some(rule) = SavedRule::parse(line) else { return };
                    let Some(((packets, bytes), target)) = rule.counters().zip(rule.target()) else { return };
                    let port = target.rsplit('-').next().and_then(|ending| named.get(ending));
                    let Some(port) = port.filter(|_| is_service_chain(target)) else { return };
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
        has_synced_since(self.fingerprint.as_deref().unwrap_or_default(), generation)
    }

    fn may_be_own_write(&self, generation: u32) -> bool {
        has_synced_since(self.after_rejection.as_deref().unwrap_or_default(), generation)
    }

    fn check_drift(&mut self) -> bool {
        let changed = self.has_external_change();
        if !changed {
            self.record_chain_fingerprints();
        }
        self.postponed = changed && self.is_throttled(Instant::now());
        if changed && !self.postponed {
            self.request_comparison();
        } else if self.checked.elapsed() >= FULL_CHECK {
            self.families.iter_mut().for_each(IptablesFamilyProxier::mark_unverified);
        }
        changed && !self.postponed
    }

    fn next_due(&self) -> Option<Instant> {
        let is_searching = self.families.iter().any(|family| !family.search.is_empty());
        let search = is_searching.then(Instant::now);
        let postponed = self.comparison_not_before.filter(|_| self.postponed);
        [postponed, search, self.confirmation.due()].into_iter().flatten().min()
    }
}
