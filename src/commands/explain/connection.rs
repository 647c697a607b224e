//! The explanation of one connection.

use std::net::{IpAddr, SocketAddr};

use portcullis_cluster::desired::{Endpoint, ServicePort};
use portcullis_cluster::{Family, Name};

use super::client::Client;
use super::entry::Entry;
use super::explanation::{
    Advice, ConnectionExplanation, NoRouteExplanation, PathExplanation, ServiceExplanation, Verdict,
};
use super::path::Path;
use super::routing::{NoRoute, NoRouteKind, Route, Source, lead};
use super::target::{Target, TargetKind};
use crate::commands::cluster_lookup::ClusterLookup;
use crate::config::ProxyMode;

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
    };
    let path = |to: SocketAddr, led: Option<(Name, &Route)>| Path {
        cluster,
        client,
        from,
        client_destination: SocketAddr::new(target.address, target.port),
        to,
        protocol: target.protocol,
        routed_by: led.map(|(node, _)| node),
        masqueraded: led.is_some_and(|(_, led)| led.source.is_masqueraded()),
    };
    match &target.kind {
        TargetKind::Direct => add(&mut explanation, path(to, None).explain(1)),
        TargetKind::NotServed(no_route) => explanation.no_route = Some(refused(no_route)),
        TargetKind::Service { port, entry, node } => {
            let led = lead(cluster, client, from, target.address, (port, *entry, *node));
            match &led.outcome {
                Ok(endpoints) => {
                    for endpoint in endpoints {
                        add(
                            &mut explanation,
                            path(endpoint.socket(), Some((*node, &led))).explain(endpoints.len()),
                        );
                    }
                }
                Err(no_route) => match before_node(client, *node).then(|| path(to, None).explain(1)) {
                    // The client's own node judges the connection first, and drops it.
                    Some((direct, advice)) if !direct.egress.allowed => {
                        add(&mut explanation, (direct, advice))
                    }
                    _ => explanation.no_route = Some(refused(no_route)),
                },
            }
            let mut about = service(cluster, port, *entry, node.as_str(), &led);
            if let (Err(no_route), None) = (&led.outcome, &explanation.no_route) {
                about.remarks.push(format!("that node would not route it: {}", no_route.reason));
            }
            explanation.service = Some(about);
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

/// Whether a connection leaves the client's node before another node translates it.
fn before_node(client: &Client, node: Name) -> bool {
    client.node.is_some_and(|own| own != node)
}

fn refused(no_route: &NoRoute) -> NoRouteExplanation {
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

fn service(
    cluster: &ClusterLookup<'_>,
    port: &ServicePort,
    entry: Entry,
    node: &str,
    led: &Route,
) -> ServiceExplanation {
    let chosen = led.outcome.as_ref().map_or(&[] as &[Endpoint], Vec::as_slice);
    let ready = port.endpoints.serving().iter().filter(|endpoint| endpoint.is_ready()).count();
    let mut remarks = Vec::new();
    if !chosen.is_empty() && chosen.iter().all(|endpoint| !endpoint.is_ready()) {
        remarks.push("none is ready: those that still serve while they terminate take over".to_owned());
    }
    if !led.local_only && !chosen.is_empty() && chosen.len() < ready {
        remarks.push(format!("topology hints keep connections near {node}"));
    }
    if led.local_only && chosen.iter().any(|endpoint| !endpoint.is_local()) {
        remarks.push(format!("node {node} has none, and IPVS then leads to those elsewhere"));
    }
    if cluster.config.mode == ProxyMode::Ipvs && chosen.len() > 1 {
        let scheduler = port.scheduler.unwrap_or(cluster.config.ipvs.scheduler);
        remarks.push(format!("scheduler {} chooses among them", scheduler.name()));
    }
    let (source, source_reason) = match led.source {
        Source::Kept => ("kept", None),
        Source::Masqueraded(why) => ("masqueraded", Some(why)),
    };
    ServiceExplanation {
        port: port.name.to_string(),
        entry: entry.as_str(),
        node: node.to_owned(),
        traffic_policy: if led.local_only { "Local" } else { "Cluster" },
        chosen: chosen.len(),
        ready,
        total: port.endpoints.total(),
        affinity_seconds: port.affinity,
        source,
        source_reason,
        remarks,
    }
}
