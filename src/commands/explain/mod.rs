//! `portcullis explain`: whether a connection arrives, where, and by which rules.
//!
//! ```text
//! --from ─► Client ─┐
//!                   ├─► Goal ─► Led ─────► Path, one an endpoint ─► Answer ─► text, JSON
//! --to ─► Destination    address, Service   CompiledPolicies::evaluate
//! ```
//!
//! Endpoints come from [`Desired`] of the node that leads the connection, verdicts from what is compiled of the
//! policies: the values that are enforced.
//!
//! [`Desired`]: portcullis_cluster::desired::Desired

mod advice;
mod answer;
pub(crate) mod asked;
mod client;
mod connection;
mod destination;
mod entry;
mod error;
mod leading;
mod no_endpoints;
mod path;
mod reason;
mod snippet;
mod text;
mod unserved;

use std::io::Write;

use portcullis_cluster::{Family, Index, Name, Protocol};

use self::answer::{Answer, ClientAnswer, Verdict};
use self::asked::{Destination, End, Port};
use self::client::{Client, ClientKind};
use self::connection::explain;
use super::render::families;
use super::world::World;
use crate::cluster_view;
use crate::config::{AddressFamily, Config, Explain, OutputFormat, ProtocolArgument};

pub use error::ExplainError;

/// Prints what becomes of a connection and why. Says whether it arrives: each of those that were meant, at one
/// of its endpoints at least.
///
/// # Errors
/// The state cannot be had, or what was named is not there or does not say enough.
pub fn run(config: &Config, asked: &Explain, out: &mut dyn Write) -> Result<bool, ExplainError> {
    // What cannot be read needs no cluster to be refused.
    End::read(&asked.from).map_err(ExplainError::malformed("--from"))?;
    destination(asked)?;
    let cluster = cluster_view::load_cluster(config)?;
    let arrives = of_index(config, &cluster.index, asked, out)?;
    cluster.unreadable.check()?;
    Ok(arrives)
}

/// The same for a cluster that was read before.
///
/// # Errors
/// What was named is not there or does not say enough.
pub fn of_index(
    config: &Config,
    index: &Index,
    asked: &Explain,
    out: &mut dyn Write,
) -> Result<bool, ExplainError> {
    let from = End::read(&asked.from).map_err(ExplainError::malformed("--from"))?;
    let to = destination(asked)?;
    let world = World::of(config, index);
    let answer = answer(&world, asked, &from, &to)?;
    match asked.output {
        OutputFormat::Text => text::print(&answer, out)?,
        OutputFormat::Json => {
            let text = serde_json::to_string_pretty(&answer).map_err(std::io::Error::from)?;
            writeln!(out, "{text}")?;
        }
    }
    Ok(answer.verdict.arrives())
}

/// What `--to`, `--port` and `--protocol` say together.
fn destination(asked: &Explain) -> Result<Destination, ExplainError> {
    let mut to = Destination::read(&asked.to).map_err(ExplainError::malformed("--to"))?;
    if let Some(text) = &asked.port {
        let (port, protocol) = Port::read(text).map_err(ExplainError::malformed("--port"))?;
        if let Some(other) = to.port.as_ref().filter(|other| **other != port) {
            return Err(ExplainError::asked("--port", format!("--to already says port {other}")));
        }
        to.port = Some(port);
        set_protocol(&mut to, protocol, "--port")?;
    }
    let protocol = asked.protocol.map(|protocol| match protocol {
        ProtocolArgument::Tcp => Protocol::Tcp,
        ProtocolArgument::Udp => Protocol::Udp,
        ProtocolArgument::Sctp => Protocol::Sctp,
    });
    set_protocol(&mut to, protocol, "--protocol")?;
    Ok(to)
}

fn set_protocol(
    to: &mut Destination,
    protocol: Option<Protocol>,
    flag: &'static str,
) -> Result<(), ExplainError> {
    match (to.protocol, protocol) {
        (Some(before), Some(after)) if before != after => {
            Err(ExplainError::asked(flag, format!("{before} was said before")))
        }
        (_, None) => Ok(()),
        (_, said) => {
            to.protocol = said;
            Ok(())
        }
    }
}

fn answer(world: &World<'_>, asked: &Explain, from: &End, to: &Destination) -> Result<Answer, ExplainError> {
    let client = Client::find(world, from)?;
    let node = asked.node.as_deref().map(Name::new);
    if let Some(node) = node.filter(|node| world.index.node(*node).is_none()) {
        return Err(ExplainError::asked("--node", world.unknown_node(node)));
    }
    if let Some(own) = client.node.filter(|own| node.is_some_and(|node| node != *own)) {
        let message = format!("{} is on {own}, whose rules lead it", client.name());
        return Err(ExplainError::asked("--node", message));
    }
    let mut both = families(asked.family);
    both.retain(|family| client.address(*family).is_some());
    if let End::Address(address) = from {
        both.retain(|family| *family == Family::from_address(*address));
    }
    let (goals, reason) = match both.is_empty() {
        true => (Vec::new(), Some(without_family(&client, asked.family))),
        false => destination::find(world, &client, to, &both, node)?,
    };
    let mut connections = Vec::new();
    for goal in &goals {
        let address = client.source_towards(world, goal.address).expect("families without one are left out");
        connections.push(explain(world, &client, address, goal, &asked.to));
    }
    let worst = connections.iter().map(|connection| connection.verdict).max();
    Ok(Answer {
        verdict: worst.unwrap_or(Verdict::Unreachable),
        client: ClientAnswer {
            name: client.name(),
            kind: match client.kind {
                ClientKind::Pod(_) => "pod",
                ClientKind::OnHostNetwork(_) => "podOnHostNetwork",
                ClientKind::Node(_) => "node",
                ClientKind::Outside => "outside",
            },
            node: client.node.map(|node| node.to_string()),
            addresses: client.addresses.to_vec(),
        },
        connections,
        reason,
        notes: notes(world),
    })
}

fn without_family(client: &Client, asked: Option<AddressFamily>) -> String {
    let family = families(asked).into_iter().map(Family::as_str).collect::<Vec<_>>().join(" or ");
    format!("{} has no {family} address", client.name())
}

/// What else is worth knowing.
fn notes(world: &World<'_>) -> Vec<String> {
    let note = match &world.config.network_policy {
        _ if !world.has_policies() => return Vec::new(),
        None => {
            "this configuration does not enforce policies (no --network-policy); they are judged all the same"
        }
        Some(policy) if policy.audit => {
            "--network-policy-audit is set: what policies deny is counted, not dropped"
        }
        Some(_) => return Vec::new(),
    };
    vec![note.to_owned()]
}
