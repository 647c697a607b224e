//! What becomes of one connection.

use std::net::{IpAddr, SocketAddr};

use portcullis_cluster::desired::{Endpoint, ServicePort};
use portcullis_cluster::{Family, Name};

use super::answer::{Advice, ConnectionAnswer, PathAnswer, RefusalAnswer, ServiceAnswer, Verdict};
use super::client::Client;
use super::destination::{Goal, Way};
use super::entry::Entry;
use super::leading::{How, Led, Refusal, Source, lead};
use super::path::Path;
use crate::commands::world::World;
use crate::config::ProxyMode;

/// Follows a connection from the client's address to all places where it can arrive.
pub(super) fn explain(
    world: &World<'_>,
    client: &Client,
    from: IpAddr,
    goal: &Goal,
    target: &str,
) -> ConnectionAnswer {
    let to = SocketAddr::new(goal.address, goal.port);
    let mut answer = ConnectionAnswer {
        verdict: Verdict::Unreachable,
        family: Family::from_address(goal.address).as_str(),
        protocol: goal.protocol.as_str(),
        from,
        to,
        target: target.to_owned(),
        service: None,
        refusal: None,
        paths: Vec::new(),
        advice: Vec::new(),
    };
    let path = |to: SocketAddr, led: Option<(Name, &Led)>| Path {
        world,
        client,
        from,
        asked: SocketAddr::new(goal.address, goal.port),
        to,
        protocol: goal.protocol,
        led_by: led.map(|(node, _)| node),
        masqueraded: led.is_some_and(|(_, led)| led.source.is_masqueraded()),
    };
    match &goal.via {
        Way::Direct => add(&mut answer, path(to, None).answer(1)),
        Way::NotServed(refusal) => answer.refusal = Some(refused(refusal)),
        Way::Service { port, entry, node } => {
            let led = lead(world, client, from, goal.address, (port, *entry, *node));
            match &led.outcome {
                Ok(endpoints) => {
                    for endpoint in endpoints {
                        add(
                            &mut answer,
                            path(endpoint.socket(), Some((*node, &led))).answer(endpoints.len()),
                        );
                    }
                }
                Err(refusal) => match before_node(client, *node).then(|| path(to, None).answer(1)) {
                    // The client's own node judges the connection first, and drops it.
                    Some((direct, advice)) if !direct.egress.allowed => add(&mut answer, (direct, advice)),
                    _ => answer.refusal = Some(refused(refusal)),
                },
            }
            let mut about = service(world, port, *entry, node.as_str(), &led);
            if let (Err(refusal), None) = (&led.outcome, &answer.refusal) {
                about.remarks.push(format!("there it would be refused: {}", refusal.why));
            }
            answer.service = Some(about);
        }
    }
    let allowed = answer.paths.iter().filter(|path| path.allowed).count();
    answer.verdict = match (allowed, answer.paths.len()) {
        (_, 0) => Verdict::Unreachable,
        (0, _) if answer.paths.iter().all(|path| path.egress.allowed && path.ingress.allowed) => {
            Verdict::Unreachable
        }
        (0, _) => Verdict::Denied,
        (some, all) if some == all => Verdict::Allowed,
        _ => Verdict::PartlyAllowed,
    };
    answer
}

/// Whether a connection leaves the client's node before another node translates it.
fn before_node(client: &Client, node: Name) -> bool {
    client.node.is_some_and(|own| own != node)
}

fn refused(refusal: &Refusal) -> RefusalAnswer {
    RefusalAnswer {
        how: match refusal.how {
            How::Rejected => "rejected",
            How::Dropped => "dropped",
            How::NotServed => "notServed",
        },
        why: refusal.why.clone(),
        way_out: refusal.way_out.clone(),
    }
}

/// Adds a path; advice that was given before is not given again.
fn add(answer: &mut ConnectionAnswer, (path, advice): (PathAnswer, Vec<Advice>)) {
    answer.paths.push(path);
    for advice in advice {
        let same = |given: &Advice| match (&given.manifest, &advice.manifest) {
            (Some(one), Some(other)) => one == other,
            _ => *given == advice,
        };
        if !answer.advice.iter().any(same) {
            answer.advice.push(advice);
        }
    }
}

fn service(world: &World<'_>, port: &ServicePort, entry: Entry, node: &str, led: &Led) -> ServiceAnswer {
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
    if world.config.mode == ProxyMode::Ipvs && chosen.len() > 1 {
        let scheduler = port.scheduler.unwrap_or(world.config.ipvs.scheduler);
        remarks.push(format!("scheduler {} chooses among them", scheduler.name()));
    }
    let (source, source_reason) = match led.source {
        Source::Kept => ("kept", None),
        Source::Masqueraded(why) => ("masqueraded", Some(why)),
    };
    ServiceAnswer {
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
