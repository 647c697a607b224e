//! `portcullis explain`: traces a connection through Services and policies.
//!
//! ```text
//! --from ─► PeerArgument ────────► Client ──────┐
//!                          resolve              ├─► Target ─► Route ─► Path, one per endpoint ─► Explanation ─► text, JSON
//! --to ───► DestinationArgument ─► Destination ─┘                CompiledPolicies::evaluate
//! ```
//!
//! Endpoints come from the [`Desired`] state of the node that routes the connection, verdicts from the compiled policies:
//! the same values that are programmed into the kernel. With `--pod-network`, host ports, ways between nodes and masquerading come from
//! `PodNetworkLookup`.
//!
//! [`Desired`]: portcullis_cluster::desired::Desired

mod advice;
pub(crate) mod argument;
mod client;
mod connection;
mod error;
mod explanation;
mod frontend_text;
mod path;
mod peer_argument;
mod pod_network;
mod pod_network_text;
mod policy_decision;
mod policy_snippet;
mod probe;
mod resolve;
mod routing;
mod rules;
mod target;
mod text;
mod unserved;

use std::io::Write;

use portcullis_cluster::{Family, Index, Name, Protocol};

use self::argument::{Destination, DestinationArgument, PortArgument};
use self::client::{Client, ClientKind};
use self::connection::explain_connection;
use self::explanation::{ClientExplanation, Explanation, Verdict};
use self::peer_argument::{Peer, PeerArgument};
use self::resolve::resolve;
use super::cluster_lookup::ClusterLookup;
use super::render::families;
use crate::cluster_view;
use crate::config::{AddressFamily, Config, Explain, ProtocolArgument};
use crate::document::Document;

pub use error::ExplainError;
pub(crate) use pod_network::PodNetworkLookup;
pub use probe::{Agreement, ProbeError};

/// The result of an explanation, for the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExplainResult {
    /// Each connection can reach at least one endpoint, or not.
    Predicted {
        /// It can.
        arrives: bool,
    },
    /// Probes were sent.
    Probed(Agreement),
}

/// Prints the explanation of the connections that the arguments name.
///
/// # Errors
/// The cluster state cannot be read, or an argument names an object that does not exist or is not specific enough.
pub fn run(config: &Config, arguments: &Explain, out: &mut dyn Write) -> Result<ExplainResult, ExplainError> {
    // Malformed arguments are reported before the cluster state is read.
    client_argument(arguments)?;
    destination(arguments)?;
    let cluster = cluster_view::load_cluster(config)?;
    let mut arguments = arguments.clone();
    arguments.namespace = arguments.namespace.or_else(|| cluster.default_namespace.clone());
    let result = explain_index(config, &cluster.index, &arguments, out)?;
    cluster.unreadable.check()?;
    Ok(result)
}

/// Like [`run`], for a cluster that was already read.
///
/// # Errors
/// An argument names an object that does not exist, or is not specific enough.
pub fn explain_index(
    config: &Config,
    index: &Index,
    arguments: &Explain,
    out: &mut dyn Write,
) -> Result<ExplainResult, ExplainError> {
    let from = client_argument(arguments)?;
    let to = destination(arguments)?;
    let cluster = ClusterLookup::new(config, index);
    let explanation = explain_connections(&cluster, arguments, &from, &to)?;
    match arguments.output.document_format() {
        None => text::print(&explanation, out)?,
        Some(format) => Document::new("Explanation", &explanation).print(format, out)?,
    }
    let agreement = explanation.connections.iter().filter_map(|connection| connection.probe.as_ref());
    Ok(match agreement.map(|probe| probe.agreement).max() {
        Some(worst) => ExplainResult::Probed(worst),
        None => ExplainResult::Predicted { arrives: explanation.verdict.arrives() },
    })
}

/// The namespace of names without one.
fn namespace(arguments: &Explain) -> &str {
    arguments.namespace.as_deref().unwrap_or("default")
}

fn client_argument(arguments: &Explain) -> Result<PeerArgument, ExplainError> {
    PeerArgument::parse(&arguments.from, namespace(arguments)).map_err(ExplainError::malformed("--from"))
}

/// Combines `--to`, `--port` and `--protocol`.
fn destination(arguments: &Explain) -> Result<DestinationArgument, ExplainError> {
    let mut to = DestinationArgument::parse(&arguments.to, namespace(arguments))
        .map_err(ExplainError::malformed("--to"))?;
    if let Some(text) = &arguments.port {
        let (port, protocol) = PortArgument::parse(text).map_err(ExplainError::malformed("--port"))?;
        if let Some(other) = to.port.as_ref().filter(|other| **other != port) {
            return Err(ExplainError::argument("--port", format!("--to has another port, {other}")));
        }
        to.port = Some(port);
        set_protocol(&mut to, protocol, "--port")?;
    }
    let protocol = arguments.protocol.map(|protocol| match protocol {
        ProtocolArgument::Tcp => Protocol::Tcp,
        ProtocolArgument::Udp => Protocol::Udp,
        ProtocolArgument::Sctp => Protocol::Sctp,
    });
    set_protocol(&mut to, protocol, "--protocol")?;
    Ok(to)
}

fn set_protocol(
    to: &mut DestinationArgument,
    protocol: Option<Protocol>,
    flag: &'static str,
) -> Result<(), ExplainError> {
    match (to.protocol, protocol) {
        (Some(before), Some(after)) if before != after => {
            Err(ExplainError::argument(flag, format!("another protocol was given before, {before}")))
        }
        (_, None) => Ok(()),
        (_, given) => {
            to.protocol = given;
            Ok(())
        }
    }
}

fn explain_connections(
    cluster: &ClusterLookup<'_>,
    arguments: &Explain,
    from: &PeerArgument,
    to: &DestinationArgument,
) -> Result<Explanation, ExplainError> {
    let node = arguments.node.as_deref().map(Name::new);
    let from = resolve(cluster, "--from", from, None, node.as_ref())?;
    let client = Client::find(cluster, &from.peer)?;
    let resolved = resolve(cluster, "--to", &to.peer, Some(&client), node.as_ref())?;
    let to = Destination { peer: resolved.peer, port: to.port.clone(), protocol: to.protocol };
    if let Some(node) = node.as_ref().filter(|node| cluster.index.node(node).is_none()) {
        return Err(ExplainError::argument("--node", cluster.unknown_node(node)));
    }
    if let Some(own) = client.node.as_ref().filter(|own| node.as_ref().is_some_and(|node| node != *own)) {
        let message = format!("{} runs on {own}, whose rules route its connections", client.name());
        return Err(ExplainError::argument("--node", message));
    }
    let mut both = families(arguments.family);
    both.retain(|family| client.address(*family).is_some());
    if let Peer::Address(address) = &from.peer {
        both.retain(|family| *family == Family::from_address(*address));
    }
    let (targets, reason) = match both.is_empty() {
        true => (Vec::new(), Some(without_family(&client, arguments.family))),
        false => target::find(cluster, &client, &to, &both, node)?,
    };
    let mut connections = Vec::new();
    for target in &targets {
        let address = client
            .source_address(cluster, target.address)
            .expect("families without an address were left out");
        connections.push(explain_connection(cluster, &client, address, target, &arguments.to));
    }
    if arguments.rules {
        rules::add_rules(cluster, &targets, &mut connections);
    }
    if arguments.probe {
        probe::probe_all(cluster, &client, arguments, &mut connections)?;
    }
    let worst = connections.iter().map(|connection| connection.verdict).max();
    Ok(Explanation {
        verdict: worst.unwrap_or(Verdict::Unreachable),
        client: ClientExplanation {
            name: client.name(),
            kind: match client.kind {
                ClientKind::Pod(_) => "pod",
                ClientKind::OnHostNetwork(_) => "podOnHostNetwork",
                ClientKind::Node(_) => "node",
                ClientKind::Outside => "outside",
            },
            node: client.node.as_ref().map(|node| node.to_string()),
            addresses: client.addresses.to_vec(),
        },
        connections,
        reason,
        notes: from.note.into_iter().chain(resolved.note).chain(notes(cluster)).collect(),
    })
}

fn without_family(client: &Client, requested: Option<AddressFamily>) -> String {
    let family = families(requested).into_iter().map(Family::as_str).collect::<Vec<_>>().join(" or ");
    format!("{} has no {family} address", client.name())
}

/// Returns notes about the configuration.
fn notes(cluster: &ClusterLookup<'_>) -> Vec<String> {
    let note = match &cluster.config.network_policy {
        _ if !cluster.has_policies() => return Vec::new(),
        None => {
            "this configuration does not enforce policies (--network-policy is not set); they are evaluated anyway"
        }
        Some(policy) if policy.audit => {
            "--network-policy-audit is set: denied packets are counted, not dropped"
        }
        Some(_) => return Vec::new(),
    };
    vec![note.to_owned()]
}
