//! The work of a sync on its own thread: links, routes, neighbours and FDB entries, then what depends on them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use portcullis_cluster::node::Node;
use portcullis_cluster::{Family, Name};
use portcullis_podnet::addresses::AddressStore;
use portcullis_podnet::links::{self, ForwardingTable, OwnLinks, VtepLinks, pod_mtu};
use portcullis_podnet::node_routes::{
    ForwardingChanges, NodeProblem, NodeRoutes, OwnNetwork, Reserved, vtep_mac,
};
use portcullis_podnet::{PodNetworkPlan, Uplink, egress, host_ports};

use super::monitor::Shared;
use super::reported::Problems;
use crate::config::{Config, DetectLocal, DetectLocalMode, PodNetwork};
use crate::control::{Mailbox, Wake};
use crate::daemon::drift_watch::{self, Drift};
use crate::node_network::{NodeNetwork, Problem, Severity};
use crate::truncated_list;

/// How many errors a message names.
const NAMED: usize = 3;

/// The error if there is no uplink.
const NO_UPLINK: &str = "no interface to the other nodes was found: none has an address of type InternalIP of the Node object, and there \
                         is no default route";

/// The pod network of this node. Each sync moves it to a thread, which returns it.
pub(super) struct PodNetworkWorker {
    settings: PodNetwork,
    node: Name,
    shared: Shared,
    table: ForwardingTable,
    node_network: NodeNetwork,
    /// The plan that was last applied with success.
    applied: Option<PodNetworkPlan>,
    /// The problems of the last application.
    node_problems: Vec<Problem>,
    reserved: BTreeMap<IpNet, Reserved>,
    /// The links as last read, and the VXLAN links as last wanted; `None` before the first successful sync of links.
    links: Option<(OwnLinks, VtepLinks)>,
    /// The families of whose uplink the last known one is used, as it was not found.
    missing_uplinks: [bool; 2],
    /// The kernel has what was last wanted, unless another process changed it.
    is_known: bool,
}

/// The request for a sync.
pub(super) struct PodNetworkRequest {
    /// The changed Nodes; `None` for those that were deleted.
    pub(super) nodes: Vec<(Name, Option<Node>)>,
    /// Addresses that no pod CIDR may contain, if they may have changed.
    pub(super) reserved: Option<BTreeMap<IpNet, Reserved>>,
    /// Everything is compared with the kernel.
    pub(super) is_full: bool,
}

/// Why the pod network of this node is not ready.
#[derive(Debug)]
pub(super) struct PodNetworkError {
    pub(super) message: String,
    /// A restart of the process may help. False if the cluster lacks information.
    pub(super) may_restart_help: bool,
}

/// The numbers of objects.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) nodes: usize,
}

/// The result of a sync.
pub(super) struct PodNetworkResult {
    pub(super) took: Duration,
    pub(super) is_full: bool,
    pub(super) error: Option<PodNetworkError>,
    /// The number of objects that were written.
    pub(super) changes: usize,
    /// The number of objects that another process had changed and that were restored.
    pub(super) restored: usize,
    /// The nodes of which the kernel rejects an object, with its error.
    pub(super) rejected: BTreeMap<Name, String>,
    pub(super) problems: Problems,
    pub(super) counts: Counts,
    pub(super) mtu: u32,
    /// What does not work for some traffic of pods.
    pub(super) warnings: Vec<String>,
}

impl PodNetworkResult {
    /// Returns the number of nodes with each kind of problem.
    pub(super) fn problem_counts(&self) -> Vec<(&'static str, usize)> {
        let count = |reason: &'static str| {
            let has =
                |problems: &&Vec<NodeProblem>| problems.iter().any(|problem| problem.reason() == reason);
            (reason, self.problems.values().filter(has).count())
        };
        NodeProblem::REASONS.into_iter().map(count).collect()
    }
}

/// What a sync wrote.
#[derive(Default)]
struct Written {
    changes: usize,
    restored: usize,
    is_full: bool,
}

impl PodNetworkWorker {
    /// Opens the kernel's tables, without changes.
    pub(super) fn new(config: &Config, node: Name) -> Result<Self, String> {
        let settings = config.pod_network.clone().ok_or("it is off")?;
        let own = OwnNetwork::new(node.clone(), settings.mode);
        Ok(PodNetworkWorker {
            node_network: NodeNetwork::new(&settings, &cluster_cidrs(config)),
            applied: None,
            node_problems: Vec::new(),
            settings,
            node,
            shared: Shared::new(NodeRoutes::new(own)),
            table: ForwardingTable::open().map_err(|error| error.to_string())?,
            reserved: BTreeMap::new(),
            links: None,
            missing_uplinks: [false; 2],
            is_known: false,
        })
    }

    /// Returns what the monitor of external changes reads.
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Returns mailboxes that are notified when another process changes the tables of egress rules and host ports.
    pub(super) fn watch_tables(&mut self, wake: &Wake) -> Vec<Mailbox<Drift>> {
        match self.node_network.egress_socket() {
            Ok(socket) => {
                [egress::TABLE, host_ports::TABLE].map(|table| drift_watch::watch(table, socket, wake)).into()
            }
            Err(error) => {
                tracing::warn!(%error, "drift of rules of the pod network will not be detected");
                Vec::new()
            }
        }
    }

    /// Programs the changes, or everything that differs.
    pub(super) fn sync(&mut self, request: PodNetworkRequest) -> PodNetworkResult {
        let start = Instant::now();
        let (written, failed) = match self.write(request) {
            Ok(written) => (written, None),
            Err(error) => {
                self.is_known = false;
                (Written::default(), Some(PodNetworkError { message: error, may_restart_help: true }))
            }
        };
        let plan = failed.map_or_else(|| self.plan(), Err);
        let mtu = plan.as_ref().map_or(0, |plan| plan.mtu);
        let error = match plan {
            Ok(plan) => self.apply(plan, written.is_full),
            Err(error) => {
                self.applied = None;
                self.set_node_problems(self.node_network.not_ready(&error.message).problems);
                Some(error)
            }
        };
        let wanted = self.shared.lock();
        PodNetworkResult {
            took: start.elapsed(),
            is_full: written.is_full,
            error,
            changes: written.changes,
            restored: written.restored,
            rejected: self.rejected(&wanted.routes),
            problems: wanted.routes.problems().clone(),
            counts: Counts { nodes: wanted.routes.len() },
            mtu,
            warnings: self.texts(Severity::Warning),
        }
    }

    /// Applies what depends on the routes, unless it is as before. Returns what failed.
    fn apply(&mut self, plan: PodNetworkPlan, is_full: bool) -> Option<PodNetworkError> {
        if is_full || self.applied.as_ref() != Some(&plan) {
            let result = self.node_network.apply(&plan, is_full);
            self.applied = result.is_ready.then_some(plan);
            self.set_node_problems(result.problems);
        }
        let failures = self.texts(Severity::Failure);
        let message = truncated_list::clauses(&failures, NAMED);
        (!failures.is_empty()).then_some(PodNetworkError { message, may_restart_help: false })
    }

    /// Logs problems that are new. Failures are logged with the sync.
    fn set_node_problems(&mut self, problems: Vec<Problem>) {
        for problem in problems.iter().filter(|problem| !self.node_problems.contains(problem)) {
            match problem.severity {
                Severity::Failure => {}
                Severity::Warning => tracing::warn!("pod network: {}", problem.text),
                Severity::Note => tracing::info!("pod network: {}", problem.text),
            }
        }
        self.node_problems = problems;
    }

    fn texts(&self, severity: Severity) -> Vec<String> {
        let problems = self.node_problems.iter().filter(|problem| problem.severity == severity);
        problems.map(|problem| problem.text.clone()).collect()
    }

    /// Writes links, routes, neighbours and FDB entries.
    fn write(&mut self, request: PodNetworkRequest) -> Result<Written, String> {
        let is_own_changed = request.nodes.iter().any(|(name, _)| *name == self.node);
        let has_new_reserved = request.reserved.is_some();
        if let Some(reserved) = request.reserved {
            self.reserved = reserved;
        }
        let (mut changes, needs_other_links) = {
            let mut wanted = self.shared.lock();
            let before = wanted.routes.underlays();
            let nodes = request.nodes.iter().map(|(name, node)| (name.clone(), node.as_ref()));
            let changes = wanted.routes.update(nodes);
            let needs_other_links = wanted.routes.underlays() != before;
            (changes, needs_other_links)
        };
        let is_full = request.is_full || !self.is_known;
        if !self.shared.lock().routes.internal_ips().iter().any(Option::is_some) {
            // Without the addresses of this node all routes would be removed.
            self.is_known = false;
            return Ok(Written::default());
        }
        let mut repairs = 0;
        if is_full || is_own_changed || needs_other_links || has_new_reserved {
            let (own_changes, repaired) = self.sync_links()?;
            changes.extend(own_changes);
            repairs = repaired;
        }
        if !is_full {
            self.table.write(&changes).map_err(|error| error.to_string())?;
            return Ok(Written { changes: changes.len(), restored: 0, is_full });
        }
        let (wanted, vteps) = {
            let wanted = self.shared.lock();
            (wanted.routes.wanted().clone(), wanted.routes.own().vteps)
        };
        let expected = self.is_known.then_some(&changes);
        let written = self.table.restore(&wanted, vteps, expected).map_err(|error| error.to_string())?;
        let pods = self.restore_pod_routes();
        // What changed because of Nodes or of links is no external change.
        let unexpected = written.len().saturating_sub(changes.len());
        let restored = if self.is_known { repairs + unexpected } else { 0 } + pods;
        self.is_known = true;
        Ok(Written { changes: written.len(), restored, is_full })
    }

    /// Adds routes to pods of this node that another process removed. Returns their number.
    fn restore_pod_routes(&mut self) -> usize {
        let store = AddressStore::open(&self.settings.state_dir, &[], &[]);
        let restored = store.map_err(|error| error.to_string()).and_then(|store| {
            let listing = store.attachments().map_err(|error| error.to_string())?;
            links::restore_pod_routes(self.table.rtnetlink(), &listing.attachments)
                .map_err(|error| error.to_string())
        });
        restored.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot check the routes to pods of this node");
            0
        })
    }

    /// Reads the links of this node, and creates or repairs the VXLAN links. Returns the changes that follow for routes, and the number
    /// of repairs of links that another process had changed.
    fn sync_links(&mut self) -> Result<(ForwardingChanges, usize), String> {
        let (internal, underlays, pod_cidrs) = {
            let wanted = self.shared.lock();
            let routes = &wanted.routes;
            (routes.internal_ips(), routes.underlays(), routes.own_pod_cidrs().to_vec())
        };
        let rtnetlink = self.table.rtnetlink();
        let mut own = OwnLinks::read(rtnetlink, internal).map_err(|error| error.to_string())?;
        let is_missing =
            |uplinks: &[Option<_>; 2]| [0, 1].map(|at| internal[at].is_some() && uplinks[at].is_none());
        let missing = is_missing(&own.uplinks);
        match &self.links {
            // An uplink that loses its address for a moment must not cut the ways to all nodes.
            Some((last, _)) => own.keep_missing(last, missing),
            None if own.uplinks.iter().all(Option::is_none) => return Err(NO_UPLINK.to_owned()),
            None => {}
        }
        let underlays = if self.settings.mode.has_overlay() { underlays } else { [false; 2] };
        let vtep_links =
            VtepLinks::new(self.settings.vxlan, vtep_mac(&self.node), &own, underlays, &pod_cidrs);
        let is_same = self.links.as_ref().is_some_and(|(_, last)| *last == vtep_links);
        let (vteps, repairs) = vtep_links
            .ensure(rtnetlink)
            .map_err(|error| format!("cannot set up the VXLAN link of the overlay: {error}"))?;
        let mut reserved = self.reserved.clone();
        reserved.extend(own.gateways.iter().map(|gateway| (IpNet::from(*gateway), Reserved::Gateway)));
        let mut wanted = self.shared.lock();
        let uplinks = own.uplinks.iter().flatten().map(|uplink| uplink.index);
        wanted.links = uplinks.chain(vteps.iter().flatten().copied()).collect();
        wanted.lacks_link = missing.contains(&true);
        let network = OwnNetwork {
            on_link: own.on_link.clone(),
            vteps,
            reserved,
            ..OwnNetwork::new(self.node.clone(), self.settings.mode)
        };
        let changes = wanted.routes.set_own(network);
        self.links = Some((own, vtep_links));
        self.missing_uplinks = missing;
        Ok((changes, if is_same { repairs.total() } else { 0 }))
    }

    /// Returns the nodes of which the kernel rejects an object: another program has a route to their pods, for example.
    fn rejected(&self, routes: &NodeRoutes) -> BTreeMap<Name, String> {
        let of_node = self
            .table
            .rejected()
            .iter()
            .filter_map(|(key, error)| Some((routes.node_of(key)?.clone(), format!("{key}: {error}"))));
        of_node.collect()
    }

    /// Returns this node's part of the pod network.
    ///
    /// # Errors
    /// Why the node is not ready.
    fn plan(&self) -> Result<PodNetworkPlan, PodNetworkError> {
        let wanted = self.shared.lock();
        let routes = &wanted.routes;
        let lacking = |message: String| PodNetworkError { message, may_restart_help: false };
        let pod_cidrs = routes.own_pod_cidrs().to_vec();
        if !routes.contains(&self.node) {
            return Err(lacking(format!("the Node object of this node ({}) does not exist", self.node)));
        }
        if pod_cidrs.is_empty() {
            return Err(lacking(
                "this node has no pod CIDRs (spec.podCIDRs); the controller manager assigns them with --allocate-node-cidrs"
                    .to_owned(),
            ));
        }
        if let Some(problem) = routes.problems().get(&self.node).and_then(|problems| problems.first()) {
            return Err(lacking(format!("this node: {problem}")));
        }
        let uplinks = self.links.as_ref().map_or([None, None], |(own, _)| own.uplinks.clone());
        if self.is_without_uplink(&pod_cidrs, &uplinks) {
            return Err(lacking(NO_UPLINK.to_owned()));
        }
        let mtu = pod_mtu(&uplinks, self.settings.mode.has_overlay()).unwrap_or_default();
        let mut seen = BTreeSet::new();
        let distinct =
            uplinks.into_iter().flatten().filter(|uplink| seen.insert((uplink.index, uplink.address)));
        Ok(PodNetworkPlan {
            node: self.node.clone(),
            mode: self.settings.mode,
            wiring: self.settings.wiring,
            pod_cidrs,
            cluster_pod_cidrs: Arc::new(routes.pod_cidrs().clone()),
            mtu: self.settings.mtu.map_or(mtu, std::num::NonZeroU32::get),
            uplinks: distinct.collect(),
        })
    }

    /// Returns true if other nodes cannot be reached over a family of the pod CIDRs. The overlay needs one of any family.
    fn is_without_uplink(&self, pod_cidrs: &[IpNet], uplinks: &[Option<Uplink>; 2]) -> bool {
        let has = |at: usize| uplinks[at].is_some() && !self.missing_uplinks[at];
        match self.settings.mode.has_overlay() {
            true => !has(0) && !has(1),
            false => pod_cidrs.iter().any(|cidr| !has(usize::from(Family::from_net(cidr) == Family::V6))),
        }
    }
}

/// Returns the CIDRs of `--cluster-cidr`, which contain the pods of all nodes.
fn cluster_cidrs(config: &Config) -> Vec<IpNet> {
    match &config.detect_local {
        DetectLocalMode::Fixed(DetectLocal::Cidrs(cidrs)) => cidrs.to_vec(),
        _ => Vec::new(),
    }
}
