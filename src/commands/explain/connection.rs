//! The explanation of one connection.

use std::net::{IpAddr, SocketAddr};

use portcullis_cluster::desired::{Endpoint, Frontend};
use portcullis_cluster::{Family, Name, Protocol};

use super::client::Client;
use super::explanation::{
    Advice, ConnectionExplanation, NoRouteExplanation, PathExplanation, ServiceExplanation, Verdict,
};
use super::frontend_text::kind_name;
use super::path::Path;
use super::routing::{NoRoute, NoRouteKind, ServiceConnection, ServiceRoute, masquerade_reason};
use super::target::{Target, TargetKind};
use crate::commands::cluster_lookup::ClusterLookup;

/// Traces a connection from the client's address to every endpoint that it can reach.
pub(super) fn explain_connection(
    cluster: &ClusterLookup<'_>,
    client: &Client,
    from: IpAddr,
    target: &Target,
    argument: &str,
) -> ConnectionExplanation {
    let to = SocketAddr::new(target.address, target.port);
    let mut explanation = ConnectionExplanation {
        verdict: Verdict::Unreachable,
        family: Family::from_address(target.address).as_str(),
        protocol: target.protocol.as_str(),
        from,
        to,
        target: argument.to_owned(),
        service: None,
        no_route: None,
        paths: Vec::new(),
        advice: Vec::new(),
        rules: None,
        probe: None,
    };
    let path = |to: SocketAddr, route: Option<(&Name, &ServiceRoute)>| Path {
        cluster,
        client,
        from,
        client_destination: SocketAddr::new(target.address, target.port),
        to,
        protocol: target.protocol,
        routed_by: route.map(|(node, _)| node.clone()),
        masqueraded: route.is_some_and(|(_, route)| route.masquerade.is_some()),
        is_host_port: false,
    };
    match &target.kind {
        TargetKind::Direct => {
            let path = host_port(cluster, to, target.protocol).map_or(path(to, None), |(node, pod)| Path {
                routed_by: Some(node),
                is_host_port: true,
                ..path(pod, None)
            });
            add(&mut explanation, path.explain(1));
        }
        TargetKind::NotServed(no_route) => explanation.no_route = Some(explain_no_route(no_route)),
        TargetKind::Service { port, frontend, node } => {
            let frontend = port.frontends().find(|other| other.address == *frontend);
            let frontend = frontend.expect("the port was found by its frontend");
            let connection =
                ServiceConnection { cluster, client, from, to: target.address, frontend, node: node.clone() };
            let route = connection.route();
            match &route.endpoints {
                Ok(endpoints) => {
                    for endpoint in endpoints {
                        let path = path(endpoint.socket(), Some((node, &route)));
                        add(&mut explanation, path.explain(endpoints.len()));
                    }
                }
                Err(no_route) => match before_node(client, node).then(|| path(to, None).explain(1)) {
                    // Policies on the client's own node come first, and deny the connection.
                    Some((direct, advice)) if !direct.egress.allowed => {
                        add(&mut explanation, (direct, advice))
                    }
                    _ => explanation.no_route = Some(explain_no_route(no_route)),
                },
            }
            let mut service = explain_service(cluster, &frontend, node.as_str(), &route);
            if let (Err(no_route), None) = (&route.endpoints, &explanation.no_route) {
                service.remarks.push(format!("that node would not route it: {}", no_route.reason));
            }
            explanation.service = Some(service);
        }
    }
    let allowed = explanation.paths.iter().filter(|path| path.allowed).count();
    explanation.verdict = match (allowed, explanation.paths.len()) {
        (_, 0) => Verdict::Unreachable,
        (0, _) if explanation.paths.iter().all(|path| path.egress.allowed && path.ingress.allowed) => {
            Verdict::Unreachable
        }
        (0, _) => Verdict::Denied,
        (some, all) if some == all => Verdict::Allowed,
        _ => Verdict::PartlyAllowed,
    };
    explanation
}

/// Returns the node that forwards a host port, and the address and port of the pod.
fn host_port(cluster: &ClusterLookup<'_>, to: SocketAddr, protocol: Protocol) -> Option<(Name, SocketAddr)> {
    let network = cluster.pod_network.as_ref()?;
    let node = cluster.node_at(to.ip())?;
    let (_, pod) = network.host_port(&node, to, protocol)?;
    Some((node, pod))
}

/// Returns true if a connection leaves the client's node before another node routes it.
fn before_node(client: &Client, node: &Name) -> bool {
    client.node.as_ref().is_some_and(|own| own != node)
}

fn explain_no_route(no_route: &NoRoute) -> NoRouteExplanation {
    NoRouteExplanation {
        kind: match no_route.kind {
            NoRouteKind::Rejected => "rejected",
            NoRouteKind::Dropped => "dropped",
            NoRouteKind::NotServed => "notServed",
        },
        reason: no_route.reason.clone(),
        hint: no_route.hint.clone(),
    }
}

/// Adds a path; advice that was given before is not given again.
fn add(explanation: &mut ConnectionExplanation, (path, advice): (PathExplanation, Vec<Advice>)) {
    explanation.paths.push(path);
    for advice in advice {
        let same = |given: &Advice| match (&given.manifest, &advice.manifest) {
            (Some(one), Some(other)) => one == other,
            _ => *given == advice,
        };
        if !explanation.advice.iter().any(same) {
            explanation.advice.push(advice);
        }
    }
}

fn explain_service(
    cluster: &ClusterLookup<'_>,
    frontend: &Frontend<'_>,
    node: &str,
    route: &ServiceRoute,
) -> ServiceExplanation {
    let port = frontend.port;
    let selected = route.endpoints.as_ref().map_or(&[] as &[Endpoint], Vec::as_slice);
    let ready = port.endpoints.serving().iter().filter(|endpoint| endpoint.is_ready()).count();
    let is_local_policy = route.policy.is_local();
    let mut remarks = Vec::new();
    if !selected.is_empty() && selected.iter().all(|endpoint| !endpoint.is_ready()) {
        remarks.push("no endpoint is ready, so terminating endpoints that still serve are used".to_owned());
    }
    if !is_local_policy && !selected.is_empty() && selected.len() < ready {
        remarks.push(format!("topology hints keep connections near {node}"));
    }
    if is_local_policy && selected.iter().any(|endpoint| !endpoint.is_local()) {
        remarks.push(format!("node {node} has no endpoint, so IPVS falls back to endpoints on other nodes"));
    }
    if cluster.config.mode.capabilities().has_schedulers && selected.len() > 1 {
        let scheduler = port.scheduler.unwrap_or(cluster.config.ipvs.scheduler);
        remarks.push(format!("scheduler {} selects the endpoint", scheduler.name()));
    }
    ServiceExplanation {
        port: port.name.to_string(),
        frontend: kind_name(frontend.kind),
        node: node.to_owned(),
        traffic_policy: route.policy.as_str(),
        chosen: selected.len(),
        ready,
        total: port.endpoints.total(),
        affinity_seconds: port.affinity,
        source: if route.masquerade.is_some() { "masqueraded" } else { "kept" },
        source_reason: route.masquerade.map(masquerade_reason),
        remarks,
    }
}
