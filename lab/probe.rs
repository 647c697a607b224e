//! Probes from inside the lab: TCP and SCTP connections and UDP datagrams, and their outcomes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::echo_client::EchoClient;
use crate::error::{Error, Result};
use crate::netns::NetNs;
use crate::plan::{Protocol, client_on};

/// Vantage point of a probe.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vantage {
    /// A pod, written `namespace/name`, or just `name` for the namespace `default`.
    Pod(String),
    /// A node itself.
    Node(String),
    /// The outside host.
    Outside,
}

impl Vantage {
    /// Returns a pod.
    pub fn pod(name: impl Into<String>) -> Self {
        Self::Pod(name.into())
    }

    /// Returns a node.
    pub fn node(name: impl Into<String>) -> Self {
        Self::Node(name.into())
    }

    /// Returns the lab's client pod on a node.
    pub fn client_on(node: &str) -> Self {
        Self::Pod(client_on(node))
    }
}

impl fmt::Display for Vantage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "pod {name}"),
            Self::Node(name) => write!(f, "node {name}"),
            Self::Outside => f.write_str("outside"),
        }
    }
}

/// Default timeout of probes. A rejected TCP connection over IPv6 takes a second: the first ICMP error arrives while the
/// kernel is still in `connect` and is ignored; the next one follows the retransmitted SYN.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(1500);

/// Outcome of one probe.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeOutcome {
    /// An echo server responded.
    Answered {
        /// Name of the echo server: `namespace/name` of a pod, a node, or `outside`.
        responder: String,
        /// Source address and port of the client as the responder saw them.
        source: SocketAddr,
    },
    /// Connection refused: a TCP reset, or an ICMP "port unreachable".
    Refused,
    /// No response within the timeout.
    TimedOut,
    /// No route, or another ICMP error.
    Unreachable,
    /// The probe could not run, e.g. because the client does not have the source address.
    Failed(String),
}

impl ProbeOutcome {
    /// Returns the name of the responder, if there was a response.
    pub fn responder(&self) -> Option<&str> {
        match self {
            Self::Answered { responder, .. } => Some(responder),
            _ => None,
        }
    }

    /// Returns the client's address as the responder saw it, if there was a response.
    pub fn source(&self) -> Option<IpAddr> {
        match self {
            Self::Answered { source, .. } => Some(source.ip()),
            _ => None,
        }
    }

    pub(crate) fn from_error(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Self::Refused,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::TimedOut,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::PermissionDenied => {
                Self::Unreachable
            }
            _ => Self::Failed(error.to_string()),
        }
    }

    /// Parses a reply of an echo server.
    pub(crate) fn from_reply(line: &str) -> Self {
        let mut words = line.split_whitespace();
        match (words.next(), words.next().and_then(|source| source.parse().ok())) {
            (Some(responder), Some(source)) => Self::Answered { responder: responder.to_owned(), source },
            _ => Self::Failed(format!("expected a reply of an echo server, found {line:?}")),
        }
    }
}

impl fmt::Display for ProbeOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { responder, source } => write!(f, "{responder} (saw {source})"),
            Self::Refused => f.write_str("refused"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

/// Counts of the outcomes of many probes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProbeTally {
    /// Number of responses by responder.
    pub by_responder: BTreeMap<String, usize>,
    /// The client addresses that the responders saw.
    pub sources: BTreeSet<IpAddr>,
    /// Number of probes by outcome, without responses.
    pub failures: BTreeMap<ProbeOutcome, usize>,
}

impl ProbeTally {
    /// Counts one outcome.
    pub fn add(&mut self, outcome: ProbeOutcome) {
        match outcome {
            ProbeOutcome::Answered { responder, source } => {
                *self.by_responder.entry(responder).or_default() += 1;
                self.sources.insert(source.ip());
            }
            other => *self.failures.entry(other).or_default() += 1,
        }
    }

    /// Returns the number of responses.
    pub fn answered(&self) -> usize {
        self.by_responder.values().sum()
    }

    /// Returns the number of probes.
    pub fn total(&self) -> usize {
        self.answered() + self.failures.values().sum::<usize>()
    }

    /// Returns the fraction of all probes to which a pod responded, 0 to 1.
    pub fn share(&self, pod: &str) -> f64 {
        let answers = self.by_responder.get(pod).copied().unwrap_or(0);
        if answers == 0 { 0.0 } else { answers as f64 / self.total() as f64 }
    }

    /// Returns the names of the responders.
    pub fn responders(&self) -> BTreeSet<&str> {
        self.by_responder.keys().map(String::as_str).collect()
    }
}

impl FromIterator<ProbeOutcome> for ProbeTally {
    fn from_iter<T: IntoIterator<Item = ProbeOutcome>>(outcomes: T) -> Self {
        let mut tally = Self::default();
        outcomes.into_iter().for_each(|outcome| tally.add(outcome));
        tally
    }
}

/// Sends probes from one network namespace; created by [`Lab::prober`](crate::Lab::prober).
#[derive(Debug, Clone)]
pub struct Prober {
    netns: NetNs,
    timeout: Duration,
    source: Option<IpAddr>,
    source_port: u16,
    unique_source_ports: bool,
}

/// Source ports for probes that must not share any: below the kernel's ephemeral ports and the node ports.
const UNIQUE_SOURCE_PORTS: Range<u16> = 12_000..30_000;

impl Prober {
    pub(crate) fn new(netns: NetNs) -> Self {
        Self { netns, timeout: TIMEOUT, source: None, source_port: 0, unique_source_ports: false }
    }

    /// Sets the timeout for the connection, and again for the response; 1.5 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the source address; the outside host has all of 198.51.100.0/24 and 2001:db8:100::/64.
    pub fn source(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// Sets the source port, for one probe at a time.
    pub fn source_port(mut self, port: u16) -> Self {
        self.source_port = port;
        self
    }

    /// Uses source ports that none of the last 18,000 probes of this process used. IPVS confuses the replies of two
    /// connections that a client has at the same time from one port, through two Services, to one pod.
    pub fn unique_source_ports(mut self) -> Self {
        self.unique_source_ports = true;
        self
    }

    /// Opens one TCP connection.
    pub fn tcp(&self, to: SocketAddr) -> ProbeOutcome {
        self.probe(Protocol::Tcp, to)
    }

    /// Sends one UDP datagram from a new socket.
    pub fn udp(&self, to: SocketAddr) -> ProbeOutcome {
        self.probe(Protocol::Udp, to)
    }

    /// Sends one probe.
    pub fn probe(&self, protocol: Protocol, to: SocketAddr) -> ProbeOutcome {
        match self.netns.run(|| self.probe_here(protocol, to)) {
            Ok(outcome) => outcome,
            Err(error) => ProbeOutcome::Failed(error.to_string()),
        }
    }

    /// Opens `count` TCP connections, a few concurrently.
    pub fn tcp_many(&self, to: SocketAddr, count: usize) -> ProbeTally {
        self.probe_many(Protocol::Tcp, to, count)
    }

    /// Sends `count` UDP datagrams, each from a new socket, a few concurrently.
    pub fn udp_many(&self, to: SocketAddr, count: usize) -> ProbeTally {
        self.probe_many(Protocol::Udp, to, count)
    }

    /// Sends `count` probes, a few concurrently, or many if the first one timed out.
    pub fn probe_many(&self, protocol: Protocol, to: SocketAddr, count: usize) -> ProbeTally {
        if count == 0 {
            return ProbeTally::default();
        }
        let first = self.probe(protocol, to);
        let rest = count - 1;
        let width = if first == ProbeOutcome::TimedOut { 64 } else { 4 }.min(rest);
        let outcomes = thread::scope(|scope| {
            let workers: Vec<_> = (0..width)
                .map(|worker| {
                    let share = rest / width + usize::from(worker < rest % width);
                    scope.spawn(move || match self.netns.enter() {
                        Ok(()) => (0..share).map(|_| self.probe_here(protocol, to)).collect(),
                        Err(error) => vec![ProbeOutcome::Failed(error.to_string()); share],
                    })
                })
                .collect();
            let joined = workers.into_iter().flat_map(|worker| match worker.join() {
                Ok(outcomes) => outcomes,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.collect::<Vec<_>>()
        });
        std::iter::once(first).chain(outcomes).collect()
    }

    /// Opens a connection or a UDP flow for several exchanges.
    ///
    /// # Errors
    /// The connection cannot be established.
    pub fn open(&self, protocol: Protocol, to: SocketAddr) -> Result<EchoClient> {
        let opened = self.netns.run(|| self.open_here(protocol, to))?;
        opened.map_err(|source| Error::system(format!("cannot open {protocol} to {to}"), source))
    }

    pub(crate) fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// Returns the source address, or the unspecified address.
    pub(crate) fn source_address(&self, to: SocketAddr) -> IpAddr {
        let any = if to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        self.source.unwrap_or(any)
    }

    fn probe_here(&self, protocol: Protocol, to: SocketAddr) -> ProbeOutcome {
        match self.open_here(protocol, to) {
            Ok(mut conversation) => conversation.exchange("probe"),
            Err(error) => ProbeOutcome::from_error(&error),
        }
    }

    fn open_here(&self, protocol: Protocol, to: SocketAddr) -> io::Result<EchoClient> {
        if !self.unique_source_ports {
            return self.open_from(self.source_port, protocol, to);
        }
        let mut opened = self.open_from(next_port(), protocol, to);
        for _ in 1..UNIQUE_SOURCE_PORTS.len() {
            // Another socket listens on the port.
            let Err(error) = &opened else { break };
            if error.kind() != ErrorKind::AddrInUse {
                break;
            }
            opened = self.open_from(next_port(), protocol, to);
        }
        opened
    }

    fn open_from(&self, port: u16, protocol: Protocol, to: SocketAddr) -> io::Result<EchoClient> {
        let from = match (self.source, port) {
            (None, 0) => None,
            (Some(source), port) => Some(SocketAddr::new(source, port)),
            (None, port) if to.is_ipv4() => Some(SocketAddr::new(IpAddr::from([0; 4]), port)),
            (None, port) => Some(SocketAddr::new(IpAddr::from([0; 16]), port)),
        };
        EchoClient::open(protocol, from, to, self.timeout)
    }
}

/// Returns the next of [`UNIQUE_SOURCE_PORTS`].
fn next_port() -> u16 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    unique_source_port(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Returns the port at an index of [`UNIQUE_SOURCE_PORTS`], modulo its length.
pub(crate) fn unique_source_port(index: usize) -> u16 {
    let offset =
        u16::try_from(index % UNIQUE_SOURCE_PORTS.len()).expect("the range has fewer ports than u16");
    UNIQUE_SOURCE_PORTS.start + offset
}
