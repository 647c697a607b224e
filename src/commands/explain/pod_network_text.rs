//! Prints what the pod network does with a connection.

use std::io::{self, Write};

use super::explanation::{NodeRouteExplanation, NodeWay, PodNetworkExplanation};

/// Prints a line for each thing that the pod network does; none if it only delivers the connection on one node.
pub(super) fn print(network: &PodNetworkExplanation, out: &mut dyn Write) -> io::Result<()> {
    let PodNetworkExplanation { host_port_of, masqueraded_by, route, no_route } = network;
    let lines = [
        masqueraded_by
            .as_ref()
            .map(|node| format!("masqueraded by node {node}: the destination is outside of the pod network")),
        host_port_of.as_ref().map(|node| format!("host port of node {node}, forwarded to the pod")),
        route.as_ref().map(way),
        no_route.as_ref().map(|problem| format!("NO ROUTE: {problem}")),
    ];
    lines.into_iter().flatten().try_for_each(|line| writeln!(out, "  {:<8} {line}", "network"))
}

fn way(route: &NodeRouteExplanation) -> String {
    let NodeRouteExplanation { from, to, destination, way, via } = route;
    let way = match way {
        NodeWay::Link => format!("via {via}"),
        NodeWay::Overlay => format!("in the overlay to {via}"),
        NodeWay::LinkOrOverlay => {
            format!("via {via} if both nodes are on one link, otherwise in the overlay to {via}")
        }
    };
    format!("from node {from} to node {to}: {destination} {way}")
}
