//! The rules by which nodes route a connection and enforce policies on it (`--rules`).
//!
//! They are rendered from the cluster's objects, as `render` prints them, so they show what the kernel should have. `diff` shows
//! whether it has it, and `--probe` shows which of them a packet passed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portcullis_cluster::{Family, Name, NamespacedName};
use portcullis_netlink::nf_tables::reachable_chains;
use portcullis_policy::Direction;
use portcullis_policy::table::{LookedUp, PolicyTable};

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
            for path in &connection.paths {
                let own = views.policy_rules(&node, Direction::Egress, connection.from, path.to.ip());
                rules.extend(own.filter(|own| !rules.contains(own)));
            }
        }
        if let TargetKind::Service { port, node, .. } = &target.kind {
            rules.push(views.service_rules(node, port.family, &port.name.service));
        }
        for path in &connection.paths {
            let address = path.to.ip();
            let ingress = cluster.pod_at(address).and_then(|pod| pod.node.clone());
            rules
                .extend(ingress.and_then(|node| {
                    views.policy_rules(&node, Direction::Ingress, address, connection.from)
                }));
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

    /// Returns the rules for connections of a pod with a peer in one direction. `None` if no policy isolates it, or policies are not enforced.
    fn policy_rules(
        &mut self,
        node: &Name,
        direction: Direction,
        address: IpAddr,
        peer: IpAddr,
    ) -> Option<NodeRules> {
        let pod = self.cluster.pod_at(address)?.key.to_string();
        let objects = objects_of(self.view(node).policies.as_ref()?, direction, address, peer);
        let subject = format!("policies of {pod}, {direction}");
        (!objects.is_empty()).then(|| NodeRules { node: node.to_string(), subject, objects })
    }
}

/// Returns the elements that the rules of a direction look up for a pod and a peer, and the chains to which they lead.
fn objects_of(policies: &PolicyTable, direction: Direction, pod: IpAddr, peer: IpAddr) -> Vec<ObjectRules> {
    let lookups = policies.lookups(direction, pod, peer);
    let elements: Vec<String> = lookups.iter().map(|looked_up| looked_up.element.clone()).collect();
    let maps = lookups.into_iter();
    let mut objects: Vec<ObjectRules> = maps
        .map(|LookedUp { map, element }| ObjectRules { object: format!("map {map}"), lines: vec![element] })
        .collect();
    let chains = reachable_chains(policies.table().desired(), &elements).into_iter();
    objects.extend(chains.map(|(object, lines)| ObjectRules { object, lines }));
    objects
}
