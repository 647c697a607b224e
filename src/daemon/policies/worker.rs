//! The work of a policy sync on its own thread: the compiled policies, and their table in the kernel.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::{Index, Kind, NamespacedName, ObjectKey};
use portcullis_modes::IsolationCause;
use portcullis_netlink::conntrack::{Conntrack, DeleteCounts};
use portcullis_netlink::nf_tables::CommitSummary;
use portcullis_policy::compile::{CompiledPolicies, Compiler, DirtyPolicyObjects, PolicyChanges, RulesId};
use portcullis_policy::established;
use portcullis_policy::interfaces::PodInterfaces;
use portcullis_policy::table::{Enforcer, EvaluationCounts, PolicyOptions, RejectedPolicies, SearchStep};

use super::pick_up::PickUp;
use crate::control::{
    DropCounterLabels, FinishedSync, IsolatedObject, Measurements, PolicyMeasurements, RulesError,
    RulesResult,
};

/// The desired policies and their enforcement. Each sync moves it to a thread, which returns it.
pub(in crate::daemon) struct PolicyWorker {
    /// Updated by the event loop between syncs.
    compiler: Compiler,
    enforcer: Enforcer,
    /// The search for policies that the kernel rejects.
    rejected: RejectedPolicies,
    /// The tables were written once. Before that, the kernel may have those of a previous process, which an incomplete table must
    /// not replace.
    was_committed: bool,
    interfaces: PodInterfaces,
    conntrack: Option<Conntrack>,
}

/// The request for a policy sync.
pub(super) struct PolicySyncRequest {
    pub(super) changes: PolicyChanges,
    pub(super) options: PolicyOptions,
    /// True if unknown pods should be denied, but this node's pod CIDRs are unknown.
    pub(super) lacks_pod_cidrs: bool,
    /// The phase of the pickup of connections.
    pub(super) pick_up: PickUp,
    /// The addresses of this node.
    pub(super) node_addresses: HashSet<IpAddr>,
    /// True if pod interfaces have to be searched for, even if no pod address changed.
    pub(super) search_interfaces: bool,
    /// The process that may have changed the table since the last sync.
    pub(super) changed_by: Option<String>,
    /// True if established connections that policies now deny have to be terminated. Connections of this node are kept.
    pub(super) terminate: bool,
}

/// The result of a policy sync.
pub(in crate::daemon) struct PolicySyncResult {
    pub(in crate::daemon) committed: CommitSummary,
    pub(in crate::daemon) error: Option<String>,
    /// The process that changed the table, and the number of restored objects, if any.
    pub(in crate::daemon) restored: Option<(String, usize)>,
    /// The number of terminated connections.
    pub(in crate::daemon) terminated: usize,
    pub(in crate::daemon) took: Duration,
    /// The number of known pods of this node, and of isolated pods among them.
    pub(in crate::daemon) pods: (usize, usize),
    /// How profiles are evaluated.
    pub(in crate::daemon) evaluation: EvaluationCounts,
    /// True if the only error is that this node's pod CIDRs are unknown.
    pub(in crate::daemon) lacks_pod_cidrs: bool,
    /// The phase of the pickup during this sync.
    pub(super) pick_up: PickUp,
    /// Isolated pods whose interface was not found.
    pub(super) without_interface: Vec<NamespacedName>,
    /// True if pods are connected by a bridge, and the kernel has no nf_tables for bridges.
    pub(super) lacks_bridge_family: bool,
    /// True if the requested termination of connections did not succeed and has to be repeated.
    pub(super) needs_termination: bool,
    /// The kernel rejects policies, and the search for them continues: policies that changed are not enforced yet.
    pub(super) search: Option<String>,
    /// The policies that the kernel rejects, with the reasons.
    pub(super) rejected: Vec<(RulesId, String)>,
    /// The policy among them that was found by this sync.
    pub(super) found: Option<RulesId>,
    /// The time of the next sync for the search, or for the retry of a rejected policy.
    pub(super) next_due: Option<Instant>,
}

impl PolicySyncResult {
    /// Returns true if all policies are enforced, except those that the kernel rejects.
    pub(super) fn is_written(&self) -> bool {
        self.error.is_none() && self.search.is_none()
    }
}

/// The text about a search.
const SEARCHING: &str =
    "kernel rejects a policy; the search for it continues, keeping the last good rules of changed policies";

impl PolicyWorker {
    pub(super) fn new(compiler: Compiler, enforcer: Enforcer) -> Self {
        PolicyWorker {
            compiler,
            enforcer,
            rejected: RejectedPolicies::default(),
            was_committed: false,
            interfaces: PodInterfaces::default(),
            conntrack: None,
        }
    }

    /// Returns the compiled policies.
    pub(super) fn compiled(&self) -> &CompiledPolicies {
        self.compiler.compiled()
    }

    /// Returns true if the tables were written.
    pub(super) fn was_committed(&self) -> bool {
        self.was_committed
    }

    /// Returns the result of a sync, as observers read it.
    pub(super) fn finished_sync(&self, result: PolicySyncResult) -> FinishedSync {
        let (pods, isolated_pods) = result.pods;
        let isolated = |(id, reason): (RulesId, String)| IsolatedObject {
            text: format!("{id}: {reason}"),
            object: id.policy.object_key(),
            cause: IsolationCause::Rejected,
            has_rules: None,
        };
        let isolated: Vec<IsolatedObject> = result.rejected.into_iter().map(isolated).collect();
        let texts = isolated.iter().map(|isolated| &isolated.text);
        let unwritten = result.error.iter().chain(&result.search).chain(texts).cloned().collect();
        let may_restart_help = !result.lacks_pod_cidrs && result.search.is_none();
        let error = result.error.or(result.search);
        let error = error.map(|message| RulesError { message, may_restart_help });
        let sync = RulesResult {
            rules: super::RULES,
            is_full: result.committed.full,
            duration: result.took,
            restored: result.restored.map_or(0, |(_, objects)| objects),
            isolated,
            error,
        };
        let measurements = PolicyMeasurements {
            pods,
            isolated_pods,
            terminated: result.terminated,
            evaluation: result.evaluation,
            drop_labels: Arc::clone(self.enforcer.table().labels()),
        };
        FinishedSync {
            results: vec![sync],
            objects: self.compiler.compiled().rules().count(),
            unwritten,
            measurements: Measurements::Policies(measurements),
            ..FinishedSync::default()
        }
    }

    /// Returns true if all changed objects are pods, and none of them is known as a pod of this node.
    pub(super) fn has_no_local_object(&self, dirty: &DirtyPolicyObjects) -> bool {
        let is_remote = |key: &ObjectKey| key.kind == Kind::Pod && self.compiled().pod(&key.name).is_none();
        dirty.nodes.is_empty() && dirty.objects.iter().all(is_remote)
    }

    /// Compiles the policies again, given the objects that changed. Policies that the kernel rejected are held back, or tried
    /// again.
    pub(super) fn compile(
        &mut self,
        index: &Index,
        dirty: &DirtyPolicyObjects,
        now: Instant,
    ) -> PolicyChanges {
        self.rejected.prepare(&mut self.compiler, now);
        self.compiler.update(index, dirty)
    }

    /// Writes the tables. While policies are held back and the tables were never written, the kernel only validates them.
    fn write(&mut self, result: &mut PolicySyncResult) {
        let is_incomplete = !self.was_committed && self.rejected.is_searching();
        let written = match is_incomplete {
            true => self.enforcer.validate().map(|()| CommitSummary::default()),
            false => self.enforcer.sync(self.compiler.compiled()),
        };
        let now = Instant::now();
        match written {
            Ok(committed) => {
                result.found = self.rejected.accepted(&mut self.compiler, now);
                self.was_committed |= !is_incomplete;
                result.committed = committed;
                let needs_write = is_incomplete.then_some(now);
                result.next_due = needs_write.or_else(|| self.rejected.next_due(now));
                if is_incomplete || self.rejected.is_searching() {
                    result.search = Some(SEARCHING.to_owned());
                }
            }
            Err(error) if self.enforcer.may_be_caused_by_policy(&error) => {
                match self.rejected.rejected(&mut self.compiler, error.to_string()) {
                    SearchStep::HeldBack => {
                        result.next_due = Some(now);
                        result.search = Some(format!("{SEARCHING}: {error}"));
                    }
                    SearchStep::NoPolicy => {
                        result.error = Some(format!(
                            "kernel rejects the table even without the changed policies, so none of them is held back: {error}"
                        ));
                    }
                }
            }
            Err(error) => result.error = Some(error.to_string()),
        }
        let reason = |(id, reason): (&RulesId, &str)| (id.clone(), reason.to_owned());
        result.rejected = self.rejected.all().map(reason).collect();
    }

    pub(super) fn sync(&mut self, request: PolicySyncRequest) -> PolicySyncResult {
        let start = Instant::now();
        let restored = self.restore(request.changed_by.as_deref());
        let compiled = self.compiler.compiled();
        let observed = self.enforcer.options().observed;
        let options = PolicyOptions { observed, ..request.options.clone() };
        if !self.enforcer.set_options(options, compiled) {
            self.enforcer.apply(&request.changes, compiled);
        }
        self.enforcer.set_pick_up(request.pick_up.is_active());
        self.update_interfaces(&request);
        let compiled = self.compiler.compiled();
        let isolated = |pod: &&_| {
            let pod: &portcullis_policy::compile::LocalPod = pod;
            pod.ingress.is_some() || pod.egress.is_some()
        };
        let pods = (compiled.pods().count(), compiled.pods().filter(isolated).count());
        let mut result = PolicySyncResult {
            committed: CommitSummary::default(),
            error: None,
            restored: None,
            terminated: 0,
            took: Duration::ZERO,
            pods,
            evaluation: self.enforcer.table().evaluation_counts(),
            lacks_pod_cidrs: false,
            pick_up: request.pick_up,
            without_interface: self.interfaces.missing(compiled),
            lacks_bridge_family: false,
            needs_termination: false,
            search: None,
            rejected: Vec::new(),
            found: None,
            next_due: None,
        };
        self.write(&mut result);
        if result.is_written() {
            result.restored = request.changed_by.zip(restored);
        }
        result.lacks_bridge_family = !self.enforcer.has_bridge_family()
            && self.interfaces.found().iter().any(|interface| interface.is_bridge_port);
        if request.pick_up == PickUp::Ending && !request.options.audit && result.is_written() {
            match self.terminate(&request.node_addresses, established::terminate_denied_picked_up) {
                Some(Ok(terminated)) => result.terminated = terminated,
                failed => {
                    let error =
                        failed.and_then(Result::err).map(|error| error.to_string()).unwrap_or_default();
                    result.error = Some(format!(
                        "could not terminate denied connections that conntrack picked up: {error}"
                    ));
                }
            }
        }
        if request.terminate {
            let done = self.terminate(&request.node_addresses, established::terminate_denied);
            match done.filter(|_| result.is_written()) {
                Some(Ok(terminated)) => result.terminated += terminated,
                Some(Err(error)) => {
                    result.needs_termination = true;
                    result.error =
                        Some(format!("could not terminate connections that policies now deny: {error}"));
                }
                None => result.needs_termination = true,
            }
        }
        if request.lacks_pod_cidrs {
            result.lacks_pod_cidrs = result.error.is_none() && result.search.is_none();
            result.error.get_or_insert_with(|| {
                "unknown pods cannot be denied: this node's Node object does not exist or has no pod CIDRs \
                 (spec.podCIDRs); policies of known pods are enforced"
                    .to_owned()
            });
        }
        result.took = start.elapsed();
        result
    }

    /// Logs drops to an NFLOG group, or no longer. If the kernel rejects that, the table stays as it is.
    ///
    /// # Errors
    /// The kernel's message.
    pub(super) fn log_drops(&mut self, group: Option<u16>, pick_up: PickUp) -> Result<(), String> {
        self.set_observed(group, pick_up);
        let written = self.enforcer.sync(self.compiler.compiled());
        if written.is_err() && group.is_some() {
            self.set_observed(None, pick_up);
        }
        written.map(drop).map_err(|error| error.to_string())
    }

    fn set_observed(&mut self, group: Option<u16>, pick_up: PickUp) {
        let compiled = self.compiler.compiled();
        self.enforcer.set_observed(group, compiled);
        self.enforcer.set_pick_up(pick_up.is_active());
        self.enforcer.set_interfaces(self.interfaces.found(), compiled);
    }

    /// Returns true if the kernel's tables may differ from the desired ones.
    pub(super) fn needs_sync(&self) -> bool {
        self.enforcer.needs_sync()
    }

    /// Returns the labels of the drop counters.
    pub(super) fn drop_labels(&self) -> &DropCounterLabels {
        self.enforcer.table().labels()
    }

    /// Restores the table after an external change, before changes of policies are written. Returns the number of objects
    /// that differed from the last written table. After a failed write the kernel may have part of it, so differences
    /// do not prove an external change, and `None` is returned.
    fn restore(&mut self, changed_by: Option<&str>) -> Option<usize> {
        changed_by?;
        let is_kernel_table_known = !self.enforcer.needs_sync();
        self.enforcer.request_full_sync();
        // If this fails, the next sync compares the whole table again and reports the error.
        let committed =
            is_kernel_table_known.then(|| self.enforcer.sync(self.compiler.compiled()).ok()).flatten()?;
        Some(committed.changes.total()).filter(|objects| *objects > 0)
    }

    /// Updates the interfaces by which the table matches pods, after a search if one is needed.
    fn update_interfaces(&mut self, request: &PolicySyncRequest) {
        let compiled = self.compiler.compiled();
        let needs_search = request.search_interfaces
            || request.changed_by.is_some()
            || !request.changes.addresses.is_empty();
        if needs_search && let Err(error) = self.interfaces.scan(compiled) {
            tracing::warn!(
                %error,
                "cannot search for pod interfaces; policies match new pods only by their addresses"
            );
        }
        self.enforcer.set_interfaces(self.interfaces.found(), compiled);
    }

    /// Terminates connections with `delete`. Returns the number of deleted conntrack entries.
    fn terminate(
        &mut self,
        node_addresses: &HashSet<IpAddr>,
        delete: DeleteDenied,
    ) -> Option<portcullis_netlink::Result<usize>> {
        if self.conntrack.is_none() {
            match Conntrack::open() {
                Ok(conntrack) => self.conntrack = Some(conntrack),
                Err(error) => return Some(Err(error)),
            }
        }
        let conntrack = self.conntrack.as_mut()?;
        Some(delete(conntrack, self.compiler.compiled(), node_addresses).map(|done| done.deleted))
    }
}

/// A function that deletes the conntrack entries of denied connections.
type DeleteDenied =
    fn(&mut Conntrack, &CompiledPolicies, &HashSet<IpAddr>) -> portcullis_netlink::Result<DeleteCounts>;
