//! The rules by which nodes route a connection and enforce policies on it (`--rules`).
//!
//! They are rendered from the cluster's objects, as `render` prints them, so they show what the kernel should have. `diff` shows
//! whether it has it, and `--probe` shows which of them a packet passed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portcullis_cluster::{Family, Name, NamespacedName};
use portcullis_netlink::nf_tables::reachable_chains;
use portcullis_policy::table::PolicyTable;

use super::explanation::{ConnectionExplanation, NodeRules};
use super::target::{Target, TargetKind};
use crate::cluster_view::{FactsSource, NodeView, node_view};
use crate::commands::cluster_lookup::ClusterLookup;
use crate::proxy_modes::{ObjectRules, driver};

/// Adds the rules of each connection to its explanation. Connections and targets are in the same order.
pub(super) fn add_rules(
    cluster: &ClusterLookup<'_>,
    targets: &[Target],
    connections: &mut [ConnectionExplanation],
) {
    let mut views = Views { cluster, by_node: BTreeMap::new() };
    for (target, connection) in targets.iter().zip(connections) {
        let mut rules: Vec<NodeRules> = Vec::new();
        let egress = cluster.pod_at(connection.from).and_then(|pod| pod.node.clone());
        if let Some(node) = egress {
            rules.extend(views.policy_rules(&node, "egress", connection.from));
        }
        if let TargetKind::Service { port, node, .. } = &target.kind {
            rules.push(views.service_rules(node, port.family, &port.name.service));
        }
        for path in &connection.paths {
            let address = path.to.ip();
            let ingress = cluster.pod_at(address).and_then(|pod| pod.node.clone());
            rules.extend(ingress.and_then(|node| views.policy_rules(&node, "ingress", address)));
        }
        connection.rules = Some(rules);
    }
}

/// What each node of a connection is to serve and enforce.
struct Views<'a> {
    cluster: &'a ClusterLookup<'a>,
    by_node: BTreeMap<Name, NodeView>,
}

impl Views<'_> {
    fn view(&mut self, node: &Name) -> &NodeView {
        let ClusterLookup { config, index, .. } = self.cluster;
        self.by_node.entry(node.clone()).or_insert_with(|| {
            let facts = match self.cluster.is_this_machine(node) {
                true => FactsSource::ThisMachine,
                false => FactsSource::NodeObject,
            };
            node_view(config, node.clone(), index, &facts)
        })
    }

    fn service_rules(&mut self, node: &Name, family: Family, service: &NamespacedName) -> NodeRules {
        let config = self.cluster.config;
        let objects = driver(config.mode).service_rules(config, self.view(node), family, service);
        let subject = format!("Service {service}, {} mode, {family}", config.mode.name());
        NodeRules { node: node.to_string(), subject, objects }
    }

    /// Returns the rules for connections of a pod in one direction. `None` if no policy isolates it, or policies are not enforced.
    fn policy_rules(&mut self, node: &Name, direction: &str, address: IpAddr) -> Option<NodeRules> {
        let pod = self.cluster.pod_at(address)?.key.to_string();
        let objects = objects_of(self.view(node).policies.as_ref()?, direction, address);
        let subject = format!("policies of {pod}, {direction}");
        (!objects.is_empty()).then(|| NodeRules { node: node.to_string(), subject, objects })
    }
}

/// Returns the elements of the maps of a direction that have an address, and the chains to which they lead.
fn objects_of(policies: &PolicyTable, direction: &str, address: IpAddr) -> Vec<ObjectRules> {
    let table = policies.table().desired();
    let address = address.to_string();
    let mut objects = Vec::new();
    for (name, set) in
        table.sets.iter().filter(|(name, set)| set.spec.is_map() && name.starts_with(direction))
    {
        let lines = set.elements.iter().map(|(key, element)| set.line(key, element).to_string());
        let mut own: Vec<String> = lines.filter(|line| line.split(' ').next() == Some(&*address)).collect();
        own.sort_unstable();
        if !own.is_empty() {
            objects.push(ObjectRules { object: format!("map {name}"), lines: own });
        }
    }
    let elements: Vec<String> = objects.iter().flat_map(|object| object.lines.clone()).collect();
    let chains = reachable_chains(table, &elements).into_iter();
    objects.extend(chains.map(|(object, lines)| ObjectRules { object, lines }));
    objects
}
