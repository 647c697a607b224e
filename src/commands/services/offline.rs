//! Services of manifests or an API server, as a node would serve them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Family, Index, Name, NamespacedName};
use portcullis_modes::{NodeFacts, Options};

use super::ServicesError;
use crate::cluster_view::{self, ClusterView, LoadError};
use crate::commands::cluster_lookup::ClusterLookup;
use crate::commands::endpoints_v1::has_endpoints_v1;
use crate::config::{Config, Services, Source};
use crate::host_file::HostFile;
use crate::service_report::{Isolation, ReportInput};
use crate::source::UnreadableObjects;
use crate::{host, node};

/// The cluster, and the facts of the node that serves it.
pub(super) struct Offline<'a> {
    index: Index,
    desired: Desired,
    options: Options,
    facts: NodeFacts,
    /// The addresses on which node ports are served; `None` if those of the node are not known.
    node_port_addresses: Option<Vec<IpAddr>>,
    has_endpoints_v1: Box<dyn Fn(&NamespacedName) -> bool + 'a>,
    isolated: BTreeMap<NamespacedName, Isolation>,
    health_check_failures: BTreeMap<NamespacedName, String>,
    notes: Vec<String>,
    /// The namespace of the kubeconfig's context or the service account, if there is one.
    pub(super) default_namespace: Option<String>,
    /// Objects that could not be read.
    pub(super) unreadable: UnreadableObjects,
}

/// Reads the cluster.
pub(super) fn load<'a>(config: &'a Config, arguments: &Services) -> Result<Offline<'a>, ServicesError> {
    let ClusterView { index, unreadable, default_namespace } = cluster_view::load_cluster(config)?;
    let name = match &arguments.node {
        Some(name) => {
            let name = Name::new(name);
            if index.node(&name).is_none() {
                let message = ClusterLookup::new(config, &index).unknown_node(&name);
                return Err(ServicesError::Argument { flag: "--node", message });
            }
            name
        }
        None => node::name(config).map_err(LoadError::NodeName)?,
    };
    let object = index.node(&name);
    let mut notes = Vec::new();
    if object.is_none() {
        notes.push(format!(
            "there is no Node object {name}, so its zone is unknown, and no endpoint is local; set --node"
        ));
    }
    let options = node::options(config, object);
    let file = arguments.host.as_deref().map(HostFile::read).transpose().map_err(LoadError::HostFile)?;
    let listed: Vec<IpAddr> = object.into_iter().flat_map(|node| node.ips()).collect();
    let addresses = file.map(|file| file.addresses().collect()).or_else(|| addresses(listed));
    let facts = NodeFacts {
        addresses: addresses.clone().unwrap_or_default().into(),
        node_ips: node::primary_ips(config, object, |_| None),
        ..NodeFacts::default()
    };
    let node_port_addresses = addresses.map(|all| options.node_port_addresses_among(&all, &facts));
    let desired = Desired::new(name).with_external_cidrs(&config.external_address_cidrs).with_index(&index);
    let source: &Source = &config.source;
    Ok(Offline {
        index,
        desired,
        options,
        facts,
        node_port_addresses,
        has_endpoints_v1: Box::new(|service| has_endpoints_v1(source, service)),
        isolated: BTreeMap::new(),
        health_check_failures: BTreeMap::new(),
        notes,
        default_namespace,
        unreadable,
    })
}

/// Returns the addresses of a node: those of this machine if the Node object lists one of them. `None` if none is known.
fn addresses(listed: Vec<IpAddr>) -> Option<Vec<IpAddr>> {
    let own = host::addresses();
    if listed.iter().any(|ip| own.contains(ip)) {
        return Some(own);
    }
    Some(listed).filter(|listed| !listed.is_empty())
}

impl Offline<'_> {
    /// Returns the input of the report.
    pub(super) fn input(&self, config: &Config) -> ReportInput<'_> {
        ReportInput {
            index: &self.index,
            desired: &self.desired,
            mode: config.mode,
            scheduler: config.ipvs.scheduler,
            options: &self.options,
            facts: &self.facts,
            families: &Family::BOTH,
            node_port_addresses: self.node_port_addresses.as_deref(),
            has_pods: true,
            has_all_services: true,
            has_endpoints_v1: &*self.has_endpoints_v1,
            isolated: &self.isolated,
            pending: &[],
            health_check_failures: &self.health_check_failures,
            notes: self.notes.clone(),
        }
    }
}
