//! What runs beside the loop: the compiler, and the table in the kernel.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::NamespacedName;
use portcullis_netlink::conntrack::{Conntrack, DeleteCounts};
use portcullis_netlink::nf_tables::CommitSummary;
use portcullis_policy::compile::{CompiledPolicies, Compiler, PolicyChanges, Scope};
use portcullis_policy::established;
use portcullis_policy::interfaces::PodInterfaces;
use portcullis_policy::table::{DropLabels, Enforcer, PolicyOptions};

use super::pick_up::PickUp;

/// What each counter of the table counts, by its name.
pub(in crate::daemon) type CounterLabels = Arc<BTreeMap<Arc<str>, DropLabels>>;

/// Policies as they are to be enforced. It goes to a thread for each sync and comes back.
pub(in crate::daemon) struct PolicyWorker {
    /// The loop brings it up to date between syncs.
    pub(super) compiler: Compiler,
    enforcer: Enforcer,
    interfaces: PodInterfaces,
    conntrack: Option<Conntrack>,
}

/// What a sync is to do.
pub(super) struct PolicySyncRequest {
    pub(super) changes: PolicyChanges,
    pub(super) options: PolicyOptions,
    /// Unknown pods should be denied, and this node's pod ranges are not known.
    pub(super) lacks_ranges: bool,
    /// Whether connections are taken up that are older than connection tracking.
    pub(super) pick_up: PickUp,
    /// Addresses of this machine.
    pub(super) own: HashSet<IpAddr>,
    /// Interfaces of pods are to be looked for, as they are after a change of addresses.
    pub(super) look_for_interfaces: bool,
    /// Who changed the table.
    pub(super) doubt: Option<String>,
    /// Connections that are forbidden now are to be cut, but for those of this machine.
    pub(super) cut: bool,
}

/// What a sync did.
pub(in crate::daemon) struct PolicySyncResult {
    pub(in crate::daemon) committed: CommitSummary,
    pub(in crate::daemon) error: Option<String>,
    /// The process that changed the tables, and how many objects had to be restored, if any.
    pub(in crate::daemon) repaired: Option<(String, usize)>,
    /// Connections that were cut.
    pub(in crate::daemon) cut: usize,
    pub(in crate::daemon) took: Duration,
    /// Pods of this node that are known, and those that some policy isolates.
    pub(in crate::daemon) pods: (usize, usize),
    /// The only error is a fact that the cluster does not give.
    pub(in crate::daemon) lacks_facts: bool,
    /// Whether connections were taken up in this sync.
    pub(super) pick_up: PickUp,
    /// Isolated pods of which no interface was found.
    pub(super) unattached: Vec<NamespacedName>,
    /// Pods are ports of a bridge, and the kernel has no nf_tables for bridges.
    pub(super) lacks_bridge_family: bool,
    cut_failed: bool,
}

impl PolicySyncResult {
    /// The search for connections to cut is still to be done.
    pub(super) fn cut_failed(&self) -> bool {
        self.cut_failed
    }
}

impl PolicyWorker {
    pub(super) fn new(scope: Scope, enforcer: Enforcer) -> Self {
        PolicyWorker {
            compiler: Compiler::new(scope),
            enforcer,
            interfaces: PodInterfaces::default(),
            conntrack: None,
        }
    }

    pub(super) fn labels(&self) -> &CounterLabels {
        self.enforcer.table().labels()
    }

    pub(super) fn sync(&mut self, request: PolicySyncRequest) -> PolicySyncResult {
        let start = Instant::now();
        let repaired = self.repair(request.doubt.as_deref());
        let compiled = self.compiler.compiled();
        self.enforcer.apply(&request.changes, compiled);
        self.enforcer.set_options(request.options.clone(), compiled);
        self.enforcer.set_pick_up(request.pick_up.is_on());
        self.attach(&request);
        let compiled = self.compiler.compiled();
        let judged = |pod: &&_| {
            let pod: &portcullis_policy::compile::LocalPod = pod;
            pod.ingress.is_some() || pod.egress.is_some()
        };
        let pods = (compiled.pods().count(), compiled.pods().filter(judged).count());
        let mut outcome = PolicySyncResult {
            committed: CommitSummary::default(),
            error: None,
            repaired: None,
            cut: 0,
            took: Duration::ZERO,
            pods,
            lacks_facts: false,
            pick_up: request.pick_up,
            unattached: self.interfaces.missing(compiled),
            lacks_bridge_family: false,
            cut_failed: false,
        };
        match self.enforcer.sync() {
            Ok(committed) => {
                outcome.committed = committed;
                outcome.repaired = request.doubt.zip(repaired);
            }
            Err(error) => outcome.error = Some(error.to_string()),
        }
        outcome.lacks_bridge_family = !self.enforcer.has_bridge_family()
            && self.interfaces.found().iter().any(|interface| interface.is_bridge_port);
        if request.pick_up == PickUp::Ends && !request.options.audit && outcome.error.is_none() {
            match self.cut(&request.own, established::terminate_forbidden_picked_up) {
                Some(Ok(cut)) => outcome.cut = cut,
                failed => {
                    let error =
                        failed.and_then(Result::err).map(|error| error.to_string()).unwrap_or_default();
                    outcome.error =
                        Some(format!("connections that were taken up could not be judged: {error}"));
                }
            }
        }
        if request.cut {
            match self.cut(&request.own, established::terminate_forbidden).filter(|_| outcome.error.is_none())
            {
                Some(Ok(cut)) => outcome.cut += cut,
                Some(Err(error)) => {
                    outcome.cut_failed = true;
                    outcome.error =
                        Some(format!("connections that are forbidden now could not be cut: {error}"));
                }
                None => outcome.cut_failed = true,
            }
        }
        if request.lacks_ranges {
            outcome.lacks_facts = outcome.error.is_none();
            outcome.error.get_or_insert_with(|| {
                "unknown pods cannot be denied: this node's Node object is not there, or names no pod CIDRs \
                 (spec.podCIDRs); policies of known pods are enforced"
                    .to_owned()
            });
        }
        outcome.took = start.elapsed();
        outcome
    }

    /// Restores what another process changed, before changes of policies are written. Returns how many objects differed
    /// from what was last written. After a write that failed, the kernel may hold part of it, so that differences do not
    /// prove an external change.
    fn repair(&mut self, changed_by: Option<&str>) -> Option<usize> {
        changed_by?;
        let is_known = !self.enforcer.needs_sync();
        self.enforcer.request_full_sync();
        // If this fails, the sync that follows compares all again, and reports the error.
        let committed = is_known.then(|| self.enforcer.sync().ok()).flatten()?;
        Some(committed.changes.total()).filter(|objects| *objects > 0)
    }

    /// Matches pods by their interfaces, as they are known or found now.
    fn attach(&mut self, request: &PolicySyncRequest) {
        let compiled = self.compiler.compiled();
        let look =
            request.look_for_interfaces || request.doubt.is_some() || !request.changes.addresses.is_empty();
        if look && let Err(error) = self.interfaces.scan(compiled) {
            tracing::warn!(
                %error,
                "cannot look for the interfaces of pods: new pods are matched by their addresses alone"
            );
        }
        self.enforcer.set_interfaces(self.interfaces.found(), compiled);
    }

    fn cut(&mut self, own: &HashSet<IpAddr>, cut: Cut) -> Option<portcullis_netlink::Result<usize>> {
        if self.conntrack.is_none() {
            match Conntrack::open() {
                Ok(conntrack) => self.conntrack = Some(conntrack),
                Err(error) => return Some(Err(error)),
            }
        }
        let conntrack = self.conntrack.as_mut()?;
        Some(cut(conntrack, self.compiler.compiled(), own).map(|done| done.deleted))
    }
}

/// Which connections are cut.
type Cut =
    fn(&mut Conntrack, &CompiledPolicies, &HashSet<IpAddr>) -> portcullis_netlink::Result<DeleteCounts>;
