//! Policies, enforced beside the mode: their own thread, their own table, their own retries, so that neither waits for
//! the other.
//!
//! ```text
//! Index ─► Compiler ─changes─► Enforcer (a thread) ─► nf_tables
//!                                 ▲                       │
//!                    next sync ───┴── what others changed ┘   (nf_tables tells)
//! ```

mod interface_search;
mod link_watch;
mod pick_up;
mod worker;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::{Index, Kind, Name};
use portcullis_netlink::nf_tables::TableFamily;
use portcullis_policy::compile::Scope;
use portcullis_policy::table::{self, EnforceError, Enforcer, TABLE};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::drift_watch::{self, Drift};
use super::repairs::{Repairs, Unlogged};
use crate::config::{Established, NetworkPolicy};
use crate::{node, sysctl, truncated_list};

use interface_search::InterfaceSearch;
pub(super) use link_watch::watch as watch_links;
use pick_up::PickUp;
use worker::PolicySyncRequest;
pub(super) use worker::{CounterLabels, PolicySyncResult, PolicyWorker};

/// The first time until a failed sync is tried again; it doubles with each failure.
const FIRST_RETRY: Duration = Duration::from_millis(250);

/// The longest time until a failed sync is tried again.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// The least time between two searches for connections that are to be cut: each looks at all that are tracked.
const CUTS_APART: Duration = Duration::from_secs(1);

/// What has to be known before policies can be enforced: with less, what they allow would be dropped.
const NEEDED: [Kind; 5] =
    [Kind::Node, Kind::Namespace, Kind::Pod, Kind::NetworkPolicy, Kind::ClusterNetworkPolicy];

/// The most pods that a log line names.
const NAMED: usize = 5;

/// A sync under way.
pub(super) type RunningPolicies = JoinHandle<(PolicyWorker, PolicySyncResult)>;

/// When and with what policies are synced.
pub(super) struct Policies {
    config: NetworkPolicy,
    node: Name,
    /// `None` while it syncs.
    worker: Option<PolicyWorker>,
    retry: Option<(Instant, Duration)>,
    /// Another process changed the table, or may have: when it may be repaired.
    doubt: Option<Instant>,
    repairs: Repairs,
    /// Connections are to be searched for what is forbidden now.
    cut_wanted: bool,
    last_cut: Option<Instant>,
    /// Everything was written once.
    begun: bool,
    pick_up: PickUp,
    interfaces: InterfaceSearch,
    /// It was said that the kernel has no nf_tables for bridges.
    told_of_bridges: bool,
}

impl Policies {
    /// Opens the kernel's nf_tables for the policies' table. Changes nothing.
    ///
    /// # Errors
    /// The kernel cannot enforce policies.
    pub(super) fn enforcer(config: &NetworkPolicy) -> Result<Enforcer, EnforceError> {
        Enforcer::open(node::policy_options(config, None))
    }

    /// Prepares to enforce policies on a node, and listens to who else changes the table. `once`: this process ends after
    /// the first sync, and so cannot end what it would begin.
    pub(super) fn start(
        config: NetworkPolicy,
        node: Name,
        enforcer: Enforcer,
        once: bool,
    ) -> (Self, mpsc::Receiver<Drift>) {
        sysctl::filter_bridged_packets();
        let drift = drift_watch::watch(TABLE, enforcer.socket());
        let worker = PolicyWorker::new(Scope::Node(node), enforcer);
        let policies = Policies {
            config,
            node,
            worker: Some(worker),
            retry: None,
            doubt: None,
            repairs: Repairs::new(Instant::now()),
            cut_wanted: false,
            last_cut: None,
            begun: false,
            pick_up: PickUp::new(!once && matches!(table::read(TableFamily::Inet), Ok(None))),
            interfaces: InterfaceSearch::default(),
            told_of_bridges: false,
        };
        (policies, drift)
    }

    /// Somebody else changed the table, or may have.
    pub(super) fn drifted(&mut self, drift: &Drift, now: Instant) {
        self.doubt = Some(self.repairs.changed_by(&drift.0, now));
    }

    /// Links of this machine have changed.
    pub(super) fn links_changed(&mut self, now: Instant) {
        self.interfaces.links_changed(now);
    }

    /// Logs repairs that were not logged yet, if that is due.
    pub(super) fn log_repairs(&mut self, now: Instant) {
        if let Some(unlogged) = self.repairs.due_log(now) {
            log_repairs(unlogged, self.repairs.process());
        }
    }

    /// External changes of the table.
    pub(super) fn repairs(&self) -> &Repairs {
        &self.repairs
    }

    /// When a sync is due though nothing more happens; `None` while only news can make one due.
    pub(super) fn next(&self) -> Option<Instant> {
        let may_cut = self.cut_wanted && !self.pick_up.is_on();
        let cut = may_cut.then(|| self.last_cut.map(|at| at + CUTS_APART)).flatten();
        [self.retry.map(|(at, _)| at), cut, self.doubt, self.interfaces.next(), self.pick_up.next()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Starts a sync if one is due. `addresses` are this machine's.
    pub(super) fn start_if_due(
        &mut self,
        index: &mut Index,
        addresses: &[IpAddr],
        now: Instant,
    ) -> Option<RunningPolicies> {
        if !NEEDED.iter().all(|kind| index.is_listed(*kind)) {
            return None;
        }
        let may_cut = self.last_cut.is_none_or(|at| now >= at + CUTS_APART);
        let due = !self.begun && self.retry.is_none()
            || !index.dirty_policy_objects().is_empty()
            || self.doubt.is_some_and(|at| now >= at)
            || self.retry.is_some_and(|(at, _)| now >= at)
            || self.interfaces.is_due(now)
            || self.pick_up.next().is_some_and(|end| now >= end)
            || (self.cut_wanted && may_cut && !self.pick_up.is_on());
        if !due {
            return None;
        }
        let mut worker = self.worker.take()?;
        let touched = index.take_dirty_policy_objects();
        let changes = worker.compiler.update(index, &touched);
        if self.config.established == Established::Cut && !self.config.audit {
            // What changed before this daemon was there is not known, and may forbid what is open.
            self.cut_wanted |= !self.begun || changes.may_forbid();
        }
        let forbids = self.config.established == Established::Cut && changes.may_forbid();
        self.pick_up.end_if_due(now, forbids);
        let cut = self.cut_wanted && may_cut && !self.pick_up.is_on();
        if cut {
            self.last_cut = Some(now);
            self.cut_wanted = false;
        }
        let doubt = self.doubt.take_if(|at| now >= *at).map(|_| {
            self.repairs.started(now);
            self.repairs.process().to_owned()
        });
        let own_node = index.node(self.node);
        let request = PolicySyncRequest {
            changes,
            options: node::policy_options(&self.config, own_node),
            lacks_ranges: node::lacks_pod_ranges(&self.config, own_node),
            look_for_interfaces: self.interfaces.start_if_due(now) || self.retry.is_some(),
            doubt,
            cut,
            pick_up: self.pick_up,
            own: addresses.iter().copied().collect::<HashSet<IpAddr>>(),
        };
        Some(tokio::task::spawn_blocking(move || {
            let outcome = worker.sync(request);
            (worker, outcome)
        }))
    }

    /// A sync ended.
    pub(super) fn finish(&mut self, worker: PolicyWorker, outcome: &PolicySyncResult, now: Instant) {
        self.worker = Some(worker);
        self.tell_of_interfaces(outcome, now);
        if let Some(error) = &outcome.error {
            tracing::error!(%error, "policies could not be written; the last good rules stay, and it is tried again");
            let wait = self.retry.map_or(FIRST_RETRY, |(_, wait)| (wait * 2).min(LAST_RETRY));
            self.retry = Some((now + wait, wait));
            self.cut_wanted |= outcome.cut_failed();
            return;
        }
        self.retry = None;
        self.pick_up.synced(outcome.pick_up, now);
        if !self.begun {
            self.begun = true;
            let extent = outcome.committed.changes;
            tracing::info!(took = ?outcome.took, changed = extent.total(), "NetworkPolicies are enforced");
        }
        if let Some((who, objects)) = &outcome.repaired {
            let logged = self.repairs.repaired(*objects, now);
            if let Some(unlogged) = logged {
                log_repairs(unlogged, who);
            }
        }
        if outcome.cut > 0 {
            tracing::info!(connections = outcome.cut, "connections that policies forbid now were cut");
        }
    }

    /// Warns of pods that policies match by their addresses of the API alone.
    fn tell_of_interfaces(&mut self, outcome: &PolicySyncResult, now: Instant) {
        let unattached = self.interfaces.take(outcome.unattached.clone(), now);
        if !unattached.is_empty() {
            tracing::warn!(
                count = unattached.len(),
                pods = truncated_list::names(&unattached, NAMED),
                "no interface of these pods was found (no veth pair leads to their addresses): NetworkPolicies match \
                 them by their addresses alone, and not their link-local, multicast and broadcast packets"
            );
        }
        if outcome.lacks_bridge_family && !self.told_of_bridges {
            self.told_of_bridges = true;
            tracing::warn!(
                "this kernel has no nf_tables for bridges (CONFIG_NF_TABLES_BRIDGE): NetworkPolicies match pods that a \
                 bridge joins by their addresses alone, and not their link-local, multicast and broadcast packets"
            );
        }
    }

    /// What each counter of the table counts, as of the last sync.
    pub(super) fn labels(&self) -> Option<CounterLabels> {
        self.worker.as_ref().map(|worker| Arc::clone(worker.labels()))
    }
}

fn log_repairs(Unlogged { repairs, objects }: Unlogged, process: &str) {
    tracing::warn!(
        repairs,
        objects,
        by = process,
        "another process changed the NetworkPolicy table; restored it"
    );
}
