//! Input of a report: what a node knows about its Services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use portcullis_cluster::desired::{Desired, RoutingContext};
use portcullis_cluster::{Family, Index, IpvsScheduler, NamespacedName};
use portcullis_modes::{NodeFacts, Options, ProxyMode};

/// What a node knows about its Services. The daemon has all of it; commands that read manifests or an API server know nothing
/// of the kernel.
pub struct ReportInput<'a> {
    /// The objects of the cluster.
    pub index: &'a Index,
    /// The Services that the node must serve.
    pub desired: &'a Desired,
    /// The proxy mode.
    pub mode: ProxyMode,
    /// The scheduler of Services that select none; only IPVS mode uses it.
    pub scheduler: IpvsScheduler,
    /// The options of the rules.
    pub options: &'a Options,
    /// The facts of the node.
    pub facts: &'a NodeFacts,
    /// The families that the node serves.
    pub families: &'a [Family],
    /// The addresses on which node ports are served; `None` if they are not known.
    pub node_port_addresses: Option<&'a [IpAddr]>,
    /// The index has the pods of the cluster.
    pub has_pods: bool,
    /// The index has all Services. A daemon does not watch those that it does not serve.
    pub has_all_services: bool,
    /// Returns true if there is an Endpoints object (v1) that no controller copies to EndpointSlices.
    pub has_endpoints_v1: &'a dyn Fn(&NamespacedName) -> bool,
    /// The Services that the kernel rejects.
    pub isolated: &'a BTreeMap<NamespacedName, Isolation>,
    /// The Services of which a change is not programmed yet, in several sets.
    pub pending: &'a [&'a BTreeSet<NamespacedName>],
    /// The Services whose health check node port is not served, with the reason.
    pub health_check_failures: &'a BTreeMap<NamespacedName, String>,
    /// Remarks about the whole report.
    pub notes: Vec<String>,
}

/// The isolation of a Service: the kernel rejects it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// The error.
    pub message: String,
    /// The time of the first rejection.
    pub since: Timestamp,
    /// The families in which it has no rules, as no version of it was accepted.
    pub without_rules: Vec<Family>,
}

impl ReportInput<'_> {
    /// Returns the properties of the node on which the routing of connections depends.
    pub(super) fn routing_context(&self, family: Family) -> RoutingContext {
        self.mode.routing_context(family, self.options, self.facts)
    }

    /// Returns true if node ports of a family are served on an address of the node, or may be.
    pub(super) fn serves_node_ports(&self, family: Family) -> bool {
        self.node_port_addresses
            .is_none_or(|addresses| addresses.iter().any(|ip| Family::from_address(*ip) == family))
    }
}
