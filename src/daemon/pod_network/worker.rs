//! The work of a sync on its own thread: links, routes, neighbours and FDB entries, then what depends on them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use portcullis_cluster::Name;
use portcullis_cluster::node::Node;
use portcullis_podnet::PodNetworkPlan;
use portcullis_podnet::addresses::AddressStore;
use portcullis_podnet::links::{self, ForwardingTable, OwnLinks, VtepLinks};
use portcullis_podnet::node_routes::{ForwardingChanges, NodeRoutes, OwnNetwork, Reserved};

use super::monitor::Shared;
use super::reported::Problems;
use crate::config::{Config, PodNetwork};
use crate::control::{Mailbox, Wake};
use crate::daemon::drift_watch::{self, Drift};
use crate::node_network::cleanup::TABLES;
use crate::node_network::planning::{self, NO_UPLINK, cluster_cidrs};
use crate::node_network::{NodeNetwork, Problem, Severity};
use crate::truncated_list;

/// How many errors a message names.
const NAMED: usize = 3;

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
    /// The addresses of Services, if these have an interface and may have changed.
    pub(super) service_addresses: Option<Vec<IpAddr>>,
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
    /// The MTU of pods' interfaces; `None` if the node is not ready for lack of information.
    pub(super) mtu: Option<u32>,
    /// The pod CIDRs of this node; empty if it is not ready.
    pub(super) pod_cidrs: Vec<IpNet>,
    /// The number of attachments of ended pods whose addresses were returned.
    pub(super) leaked_attachments: usize,
    /// What does not work for some traffic of pods.
    pub(super) warnings: Vec<String>,
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

    /// Returns the folder of the plugin's records.
    pub(super) fn state_dir(&self) -> &Path {
        &self.settings.state_dir
    }

    /// Returns what the monitor of external changes reads.
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Returns mailboxes that are notified when another process changes the tables of egress rules and host ports.
    pub(super) fn watch_tables(&mut self, wake: &Wake) -> Vec<Mailbox<Drift>> {
        match self.node_network.egress_socket() {
            Ok(socket) => TABLES.map(|table| drift_watch::watch(table, socket, wake)).into(),
            Err(error) => {
                tracing::warn!(%error, "drift of rules of the pod network will not be detected");
                Vec::new()
            }
        }
    }

    /// Programs the changes, or everything that differs.
    pub(super) fn sync(&mut self, mut request: PodNetworkRequest) -> PodNetworkResult {
        let start = Instant::now();
        // First, as Services get their addresses at this moment.
        if let Some(addresses) = request.service_addresses.take() {
            self.node_network.set_service_addresses(addresses);
        }
        let (written, failed) = match self.write(request) {
            Ok(written) => (written, None),
            Err(error) => {
                self.is_known = false;
                (Written::default(), Some(PodNetworkError { message: error, may_restart_help: true }))
            }
        };
        let plan = failed.map_or_else(|| self.plan(), Err);
        let mtu = plan.as_ref().ok().map(|plan| plan.mtu);
        let pod_cidrs = plan.as_ref().map_or_else(|_| Vec::new(), |plan| plan.pod_cidrs.clone());
        let (error, leaked_attachments) = match plan {
            Ok(plan) => self.apply(plan, written.is_full),
            Err(error) => {
                self.applied = None;
                self.set_node_problems(self.node_network.not_ready(&error.message).problems);
                (Some(error), 0)
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
            pod_cidrs,
            leaked_attachments,
            warnings: self.texts(Severity::Warning),
        }
    }

    /// Applies what depends on the routes, unless it is as before. Returns what failed, and the number of attachments of ended pods.
    fn apply(&mut self, plan: PodNetworkPlan, is_full: bool) -> (Option<PodNetworkError>, usize) {
        let mut leaked_attachments = 0;
        if is_full || self.applied.as_ref() != Some(&plan) {
            let result = self.node_network.apply(&plan, is_full);
            self.applied = result.is_ready.then_some(plan);
            self.set_node_problems(result.problems);
            leaked_attachments = result.leaked_attachments;
        }
        let failures = self.texts(Severity::Failure);
        let message = truncated_list::clauses(&failures, NAMED);
        let error = (!failures.is_empty()).then_some(PodNetworkError { message, may_restart_help: false });
        (error, leaked_attachments)
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
        let internal = self.shared.lock().routes.internal_ips();
        let rtnetlink = self.table.rtnetlink();
        let mut own = OwnLinks::read(rtnetlink, internal).map_err(|error| error.to_string())?;
        let missing = planning::missing_uplinks(&self.shared.lock().routes, &own);
        match &self.links {
            // An uplink that loses its address for a moment must not cut the ways to all nodes.
            Some((last, _)) => own.keep_missing(last, missing),
            None if own.uplinks.iter().all(Option::is_none) => return Err(NO_UPLINK.to_owned()),
            None => {}
        }
        let vtep_links = planning::vtep_links(&self.shared.lock().routes, &self.settings, &own);
        let is_same = self.links.as_ref().is_some_and(|(_, last)| *last == vtep_links);
        let (vteps, repairs) = vtep_links
            .ensure(rtnetlink)
            .map_err(|error| format!("cannot set up the VXLAN link of the overlay: {error}"))?;
        let mut wanted = self.shared.lock();
        let uplinks = own.uplinks.iter().flatten().map(|uplink| uplink.index);
        wanted.links = uplinks.chain(vteps.iter().flatten().copied()).collect();
        wanted.lacks_link = missing.contains(&true);
        let network = planning::own_network(&wanted.routes, &own, vteps, &self.reserved);
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
        let uplinks = self.links.as_ref().map_or([None, None], |(own, _)| own.uplinks.clone());
        let plan = planning::plan(&self.shared.lock().routes, &self.settings, uplinks, self.missing_uplinks);
        plan.map_err(|message| PodNetworkError { message, may_restart_help: false })
    }
}
