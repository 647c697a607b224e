//! Probes: TCP connections and UDP datagrams from inside the lab, and what came of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::conversation::Conversation;
use crate::error::{Error, Result};
use crate::netns::NetNs;
use crate::plan::{Protocol, client_on};

/// Where a probe starts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vantage {
    /// A pod, written `namespace/name`, or just `name` for the namespace `default`.
    Pod(String),
    /// A node itself.
    Node(String),
    /// The host outside of the cluster.
    Outside,
}

impl Vantage {
    /// A pod.
    pub fn pod(name: impl Into<String>) -> Self {
        Self::Pod(name.into())
    }

    /// A node.
    pub fn node(name: impl Into<String>) -> Self {
        Self::Node(name.into())
    }

    /// The lab's own client pod on a node.
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

/// How long probes wait by default. A refusal of TCP over IPv6 takes a second: the first ICMP error comes while the
/// kernel is still in `connect`, where it does not count, and the next when the SYN is sent again.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(1500);

/// What came of one probe.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// An echo server answered.
    Answered {
        /// The pod, `namespace/name`.
        by: String,
        /// The address and port of the client as the pod saw them.
        saw_source: SocketAddr,
    },
    /// A TCP reset, or an ICMP "port unreachable".
    Refused,
    /// Nothing came in time.
    TimedOut,
    /// No route, or another ICMP error.
    Unreachable,
    /// Something that no network does by itself, e.g. the wanted source address is not the client's.
    Failed(String),
}

impl Outcome {
    /// Who answered, if anyone did.
    pub fn by(&self) -> Option<&str> {
        match self {
            Self::Answered { by, .. } => Some(by),
            _ => None,
        }
    }

    /// The client's address as the pod saw it, if one answered.
    pub fn source(&self) -> Option<IpAddr> {
        match self {
            Self::Answered { saw_source, .. } => Some(saw_source.ip()),
            _ => None,
        }
    }

    pub(crate) fn of_error(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Self::Refused,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::TimedOut,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::PermissionDenied => {
                Self::Unreachable
            }
            _ => Self::Failed(error.to_string()),
        }
    }

    /// Reads an echo server's line.
    pub(crate) fn of_reply(line: &str) -> Self {
        let mut words = line.split_whitespace();
        match (words.next(), words.next().and_then(|source| source.parse().ok())) {
            (Some(by), Some(saw_source)) => Self::Answered { by: by.to_owned(), saw_source },
            _ => Self::Failed(format!("answered {line:?}, which is no echo server's line")),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { by, saw_source } => write!(f, "{by} (saw {saw_source})"),
            Self::Refused => f.write_str("refused"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

/// The outcomes of many probes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// How often each pod answered.
    pub by: BTreeMap<String, usize>,
    /// The client addresses that the pods saw.
    pub sources: BTreeSet<IpAddr>,
    /// How often each other outcome came.
    pub others: BTreeMap<Outcome, usize>,
}

impl Tally {
    /// Counts one outcome.
    pub fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Answered { by, saw_source } => {
                *self.by.entry(by).or_default() += 1;
                self.sources.insert(saw_source.ip());
            }
            other => *self.others.entry(other).or_default() += 1,
        }
    }

    /// How many probes were answered.
    pub fn answered(&self) -> usize {
        self.by.values().sum()
    }

    /// How many probes there were.
    pub fn total(&self) -> usize {
        self.answered() + self.others.values().sum::<usize>()
    }

    /// The part of all probes that a pod answered, 0 to 1.
    pub fn share(&self, pod: &str) -> f64 {
        let answers = self.by.get(pod).copied().unwrap_or(0);
        if answers == 0 { 0.0 } else { answers as f64 / self.total() as f64 }
    }

    /// The pods that answered.
    pub fn answerers(&self) -> BTreeSet<&str> {
        self.by.keys().map(String::as_str).collect()
    }
}

impl FromIterator<Outcome> for Tally {
    fn from_iter<T: IntoIterator<Item = Outcome>>(outcomes: T) -> Self {
        let mut tally = Self::default();
        outcomes.into_iter().for_each(|outcome| tally.add(outcome));
        tally
    }
}

/// A place to probe from, with options; made by [`Lab::from`](crate::Lab::from).
#[derive(Debug, Clone)]
pub struct Prober {
    netns: NetNs,
    timeout: Duration,
    source: Option<IpAddr>,
    source_port: u16,
    ports_apart: bool,
}

/// Ports for probes that must not share any: below those that a kernel gives by itself, and those of NodePorts.
const PORTS_APART: Range<u16> = 12_000..30_000;

impl Prober {
    pub(crate) fn new(netns: NetNs) -> Self {
        Self { netns, timeout: TIMEOUT, source: None, source_port: 0, ports_apart: false }
    }

    /// How long a probe waits for its connection, and again for its answer; 1.5 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Probes from this address; the host outside has all of 198.51.100.0/24 and 2001:db8:100::/64.
    pub fn source(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// Probes from this port; of use for one probe at a time.
    pub fn source_port(mut self, port: u16) -> Self {
        self.source_port = port;
        self
    }

    /// Probes from ports that no other probe of this process had, for the next 18,000 of them. IPVS takes answers to two
    /// connections for one's, if a client has both at a time from one port, through two Services, to one pod.
    pub fn ports_apart(mut self) -> Self {
        self.ports_apart = true;
        self
    }

    /// One TCP connection.
    pub fn tcp(&self, to: SocketAddr) -> Outcome {
        self.probe(Protocol::Tcp, to)
    }

    /// One UDP datagram, from a new socket.
    pub fn udp(&self, to: SocketAddr) -> Outcome {
        self.probe(Protocol::Udp, to)
    }

    /// One probe.
    pub fn probe(&self, protocol: Protocol, to: SocketAddr) -> Outcome {
        match self.netns.run(|| self.probe_here(protocol, to)) {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }

    /// `count` TCP connections, a few at a time.
    pub fn tcp_many(&self, to: SocketAddr, count: usize) -> Tally {
        self.probe_many(Protocol::Tcp, to, count)
    }

    /// `count` UDP datagrams, each from a new socket, a few at a time.
    pub fn udp_many(&self, to: SocketAddr, count: usize) -> Tally {
        self.probe_many(Protocol::Udp, to, count)
    }

    /// `count` probes, a few at a time; many more at a time once the first was not answered at all.
    pub fn probe_many(&self, protocol: Protocol, to: SocketAddr, count: usize) -> Tally {
        if count == 0 {
            return Tally::default();
        }
        let first = self.probe(protocol, to);
        let rest = count - 1;
        let width = if first == Outcome::TimedOut { 64 } else { 4 }.min(rest);
        let outcomes = thread::scope(|scope| {
            let workers: Vec<_> = (0..width)
                .map(|worker| {
                    let share = rest / width + usize::from(worker < rest % width);
                    scope.spawn(move || match self.netns.enter() {
                        Ok(()) => (0..share).map(|_| self.probe_here(protocol, to)).collect(),
                        Err(error) => vec![Outcome::Failed(error.to_string()); share],
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

    /// A TCP connection or a UDP flow that stays open for several exchanges.
    ///
    /// # Errors
    /// When the connection cannot be made; the message says how it failed.
    pub fn open(&self, protocol: Protocol, to: SocketAddr) -> Result<Conversation> {
        let opened = self.netns.run(|| self.open_here(protocol, to))?;
        opened.map_err(|source| Error::system(format!("cannot open {protocol} to {to}"), source))
    }

    pub(crate) fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// The address that was chosen to come from, or the family's for any.
    pub(crate) fn source_address(&self, to: SocketAddr) -> IpAddr {
        let any = if to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        self.source.unwrap_or(any)
    }

    fn probe_here(&self, protocol: Protocol, to: SocketAddr) -> Outcome {
        match self.open_here(protocol, to) {
            Ok(mut conversation) => conversation.ask("probe"),
            Err(error) => Outcome::of_error(&error),
        }
    }

    fn open_here(&self, protocol: Protocol, to: SocketAddr) -> io::Result<Conversation> {
        if !self.ports_apart {
            return self.open_from(self.source_port, protocol, to);
        }
        let mut opened = self.open_from(next_port(), protocol, to);
        for _ in 1..PORTS_APART.len() {
            // Someone else listens there.
            let Err(error) = &opened else { break };
            if error.kind() != ErrorKind::AddrInUse {
                break;
            }
            opened = self.open_from(next_port(), protocol, to);
        }
        opened
    }

    fn open_from(&self, port: u16, protocol: Protocol, to: SocketAddr) -> io::Result<Conversation> {
        let from = match (self.source, port) {
            (None, 0) => None,
            (Some(source), port) => Some(SocketAddr::new(source, port)),
            (None, port) if to.is_ipv4() => Some(SocketAddr::new(IpAddr::from([0; 4]), port)),
            (None, port) => Some(SocketAddr::new(IpAddr::from([0; 16]), port)),
        };
        Conversation::open(protocol, from, to, self.timeout)
    }
}

/// The next of [`PORTS_APART`].
fn next_port() -> u16 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    port_apart(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The port at a place of [`PORTS_APART`], from the first again after the last.
pub(crate) fn port_apart(place: usize) -> u16 {
    PORTS_APART.start + u16::try_from(place % PORTS_APART.len()).expect("there are fewer ports than fit")
}
