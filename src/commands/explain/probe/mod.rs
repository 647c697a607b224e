//! `explain --probe`: sends one packet of a connection, traces it through the rules of this node, and compares the result with
//! the prediction.
//!
//! ```text
//! namespace ─► Packet (a socket in the client's network namespace) ─► Response ─┐
//! Tracing: the pod's namespace, the node's ─► steps ─► trace_end ──────────────┴► ProbeResult ─► Comparison
//!                                                       └ untraced: routes, iptables legacy, IPVS
//! ```

mod agreement;
mod explained_steps;
mod explanation;
mod namespace;
mod outcome;
mod packet;
mod step;
mod text;
mod tracing;
mod untraced;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use portcullis_cluster::{Name, NamespacedName, Protocol};
use portcullis_netlink::nf_tables::TracedFlow;
use portcullis_netlink::route::Rtnetlink;
use portcullis_policy::table::TABLE as POLICY_TABLE;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use self::explanation::Agreement;
pub(super) use self::explanation::ProbeExplanation;
pub(super) use self::text::print;

use self::agreement::Comparison;
use self::explained_steps::explain_steps;
use self::namespace::Namespace;
use self::outcome::Observation;
use self::packet::{Packet, Response};
use self::step::{Place, Step};
use self::tracing::Tracing;
use self::untraced::ThisNode;
use super::client::{Client, ClientKind};
use super::explanation::ConnectionExplanation;
use crate::commands::cluster_lookup::ClusterLookup;
use crate::config::Explain;
use crate::privileges;

/// Maximum number of connections to probe: each is a packet on a real network.
const MAX_CONNECTIONS: usize = 4;

/// The wait for an error in response after a rule dropped the packet, and for events after the response.
const AFTERWARDS: Duration = Duration::from_millis(200);

/// An error that prevents a probe.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The privilege is missing.
    #[error(
        "--probe needs root: it traces packets and enters the client's network namespace (CAP_NET_ADMIN, CAP_SYS_ADMIN)"
    )]
    Privilege,
    /// The client is not on this node.
    #[error("--probe: {0}")]
    Client(String),
    /// No network namespace has the pod's address.
    #[error(
        "--probe: no network namespace of this machine has the address {address} of {pod}: run it on the pod's node, in the \
         PID namespace of the node, or use --netns PATH"
    )]
    NoNamespace {
        /// The pod.
        pod: String,
        /// Its address.
        address: IpAddr,
    },
    /// Several network namespaces have the pod's address.
    #[error(
        "--probe: {count} network namespaces of this machine have the address {address} of {pod}: use --netns PATH"
    )]
    AmbiguousNamespace {
        /// The pod.
        pod: String,
        /// Its address.
        address: IpAddr,
        /// The number of namespaces.
        count: usize,
    },
    /// A network namespace cannot be entered.
    #[error("--probe: network namespace {}: {source}", .path.display())]
    Namespace {
        /// The file.
        path: PathBuf,
        /// The system call's error.
        source: io::Error,
    },
    /// The socket cannot be opened.
    #[error("--probe: cannot open a {protocol} socket from {from}: {source}")]
    Socket {
        /// The protocol.
        protocol: Protocol,
        /// The source address.
        from: IpAddr,
        /// The system call's error.
        source: io::Error,
    },
    /// Packets cannot be traced.
    #[error("--probe: cannot trace packets (this needs nf_tables and Linux 5.12): {0}")]
    Trace(#[source] portcullis_netlink::Error),
    /// The network cannot be read.
    #[error("--probe: {0}")]
    Netlink(#[from] portcullis_netlink::Error),
    /// There are too many connections.
    #[error(
        "--probe sends a packet for each connection, and there are {0}, of at most {MAX_CONNECTIONS}: name a port (--port), or a family (--family)"
    )]
    TooMany(usize),
}

/// Probes all connections, and adds the explanations to them.
pub(super) fn probe_all(
    cluster: &ClusterLookup<'_>,
    client: &Client,
    arguments: &Explain,
    connections: &mut [ConnectionExplanation],
) -> Result<(), ProbeError> {
    if connections.len() > MAX_CONNECTIONS {
        return Err(ProbeError::TooMany(connections.len()));
    }
    if !privileges::is_root() {
        return Err(ProbeError::Privilege);
    }
    let this_node = crate::node::name(cluster.config).ok().filter(|name| cluster.index.node(name).is_some());
    for connection in connections {
        let probe = Probe::new(client, arguments, connection, this_node.as_ref())?;
        connection.probe = Some(probe.run(connection)?);
    }
    Ok(())
}

/// Finds the network namespace of a client.
fn of_pod(
    client: &Client,
    pod: &NamespacedName,
    address: IpAddr,
    this_node: Option<&Name>,
) -> Result<Namespace, ProbeError> {
    let elsewhere = client.node.as_ref().filter(|node| this_node.is_some_and(|this| this != *node));
    match (namespace::of_pod(&format!("pod {pod}"), address, elsewhere.is_none()), elsewhere) {
        (Err(ProbeError::NoNamespace { .. }), Some(node)) => Err(ProbeError::Client(format!(
            "pod {pod} runs on node {node}, and its network namespace is not on this machine: run it there"
        ))),
        (found, _) => found,
    }
}

/// A probe of one connection.
struct Probe<'a> {
    client: &'a Client,
    /// The client's network namespace; `None` for this one.
    namespace: Option<Namespace>,
    protocol: Protocol,
    to: SocketAddr,
    time_limit: Duration,
}

impl<'a> Probe<'a> {
    fn new(
        client: &'a Client,
        arguments: &Explain,
        connection: &ConnectionExplanation,
        this_node: Option<&Name>,
    ) -> Result<Self, ProbeError> {
        let namespace = match (&arguments.netns, &client.kind) {
            (Some(path), _) => Some(Namespace::open(path)?).filter(|namespace| !namespace.is_own()),
            (None, ClientKind::Pod(key)) => Some(of_pod(client, key, connection.from, this_node)?),
            (None, ClientKind::Node(_) | ClientKind::OnHostNetwork(_)) => {
                if !client.addresses.iter().any(|address| namespace::has_address(*address)) {
                    return Err(ProbeError::Client(format!(
                        "{} is not on this machine: run it on {}",
                        client.name(),
                        client.node.as_ref().map_or("that node".to_owned(), |node| format!("node {node}"))
                    )));
                }
                None
            }
            (None, ClientKind::Outside) => {
                return Err(ProbeError::Client(format!(
                    "{} is neither a pod nor a node, so no packet can be sent from it: use a pod or a node as --from",
                    client.name()
                )));
            }
        };
        let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let protocol =
            all.into_iter().find(|protocol| protocol.as_str() == connection.protocol).unwrap_or_default();
        let time_limit = arguments.probe_timeout;
        Ok(Probe { client, namespace, protocol, to: connection.to, time_limit })
    }

    fn run(&self, connection: &ConnectionExplanation) -> Result<ProbeExplanation, ProbeError> {
        let from = Some(connection.from).filter(|_| self.namespace.is_some());
        let open = || Packet::new(self.protocol, from, self.to);
        let socket_error =
            |source| ProbeError::Socket { protocol: self.protocol, from: connection.from, source };
        let (mut packet, mut traces) = match &self.namespace {
            None => (open(), Vec::new()),
            Some(namespace) => {
                let (packet, trace) = namespace.run(|| {
                    let packet = open();
                    let trace =
                        packet.as_ref().ok().map(|packet| Tracing::start(Place::Pod, &self.flow(packet)));
                    (packet, trace)
                })?;
                (packet, trace.transpose()?.into_iter().collect())
            }
        };
        let packet = match &mut packet {
            Ok(packet) => packet,
            // The kernel chooses the source address by the route.
            Err(error)
                if from.is_none()
                    && matches!(error.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH)) =>
            {
                let errno = error.raw_os_error().unwrap_or(libc::ENETUNREACH);
                let from = SocketAddr::new(connection.from, 0);
                return self.explain(connection, from, &[], Response::NotSent(errno));
            }
            Err(_) => return Err(socket_error(packet.err().expect("an error"))),
        };
        traces.push(Tracing::start(Place::Node, &self.flow(packet))?);
        packet.send();
        let response = self.wait(packet, &mut traces)?;
        let mut steps = Vec::new();
        for trace in traces {
            steps.extend(trace.finish()?);
        }
        let from = packet.from;
        self.explain(connection, from, &steps, response)
    }

    fn flow(&self, packet: &Packet) -> TracedFlow {
        TracedFlow {
            source: packet.from.ip(),
            source_port: packet.from.port(),
            destination: packet.to.ip(),
            destination_port: packet.to.port(),
            protocol: self.protocol.number(),
        }
    }

    /// Waits for the response, and for the events until then.
    fn wait(&self, packet: &Packet, traces: &mut [Tracing]) -> Result<Response, ProbeError> {
        let mut until = Instant::now() + self.time_limit;
        let mut was_dropped = false;
        let mut response = None;
        loop {
            for trace in traces.iter_mut() {
                if trace.collect()? && !was_dropped {
                    was_dropped = true;
                    until = until.min(Instant::now() + AFTERWARDS);
                }
            }
            if response.is_none() {
                response = packet.response();
                if response.is_some() {
                    // Another processor may still be sending events.
                    until = until.min(Instant::now() + AFTERWARDS / 4);
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(response.unwrap_or(Response::Nothing));
            }
            let mut files: Vec<PollFd<'_>> =
                traces.iter().map(|trace| PollFd::new(trace, PollFlags::IN)).collect();
            if response.is_none() {
                files.push(PollFd::new(packet, PollFlags::IN | PollFlags::OUT));
            }
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut files, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    return Err(ProbeError::Trace(portcullis_netlink::Error::Io {
                        action: "wait for trace events",
                        source: error.into(),
                    }));
                }
            }
            if self.protocol == Protocol::Udp && response.is_none() {
                // A UDP socket is always writable.
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    fn explain(
        &self,
        connection: &ConnectionExplanation,
        from: SocketAddr,
        steps: &[Step],
        response: Response,
    ) -> Result<ProbeExplanation, ProbeError> {
        let this_node = ThisNode::new(Rtnetlink::open()?)?;
        let observation = Observation {
            steps,
            response,
            protocol: self.protocol,
            from,
            to: self.to,
            is_pod: self.namespace.is_some(),
            time_limit: self.time_limit,
        };
        let result = observation.result(&this_node);
        let comparison = Comparison {
            prediction: connection,
            result: &result,
            protocol: self.protocol,
            node: self.client.node.as_ref().map(|node| node.as_str()),
            policy_table: POLICY_TABLE,
            is_service_table,
        };
        let (agreement, agreement_reason) = comparison.agreement();
        let namespace = self
            .namespace
            .as_ref()
            .map_or_else(|| "this node's".to_owned(), |namespace| namespace.path.display().to_string());
        Ok(ProbeExplanation {
            from,
            namespace,
            steps: explain_steps(steps),
            result,
            agreement,
            agreement_reason,
            not_visible: this_node.not_visible(self.to.is_ipv4()),
        })
    }
}

/// Returns true for tables with the rules of Services, also those of iptables-nft, where only a rule of Services drops or
/// rejects in a KUBE chain.
fn is_service_table(name: &str) -> bool {
    matches!(name, "portcullis" | "kube-proxy")
}
