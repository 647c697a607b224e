//! The result of a probe, from the trace and the response.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use portcullis_cluster::Protocol;
use portcullis_netlink::nf_tables::{Hook, TracedDirection};

use super::explanation::{ProbeResult, ResultKind};
use super::packet::Response;
use super::step::{Place, Step, TraceEnd, destination, trace_end};
use super::untraced::{UnroutedPacket, Untraced};

/// What was observed of a probe.
pub(super) struct Observation<'a> {
    pub(super) steps: &'a [Step],
    pub(super) response: Response,
    pub(super) protocol: Protocol,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    /// The client has a network namespace of its own.
    pub(super) is_pod: bool,
    /// How long the probe waits for a response.
    pub(super) time_limit: Duration,
}

impl Observation<'_> {
    /// Returns the result.
    pub(super) fn result(&self, untraced: &dyn Untraced) -> ProbeResult {
        let in_pod = trace_end(self.steps, Place::Pod, TracedDirection::Original);
        let on_node = trace_end(self.steps, Place::Node, TracedDirection::Original);
        for end in [&in_pod, &on_node] {
            match end {
                TraceEnd::Dropped(step) => return self.dropped(step),
                TraceEnd::Taken(step) => {
                    let text = format!("by {}: passed to a program", describe(step));
                    return self.of_table(ResultKind::Dropped, step, text);
                }
                _ => {}
            }
        }
        if let Response::NotSent(errno) = self.response {
            return self.lost(ResultKind::NotSent, not_sent(errno, self.to, self.is_pod));
        }
        if self.is_pod && on_node == TraceEnd::NotSeen {
            return self.not_on_node(&in_pod);
        }
        match self.response {
            Response::Accepted => self.delivered("accepted the connection"),
            Response::Replied => self.delivered("replied"),
            Response::Error(errno) => self.error(errno, &on_node, untraced),
            Response::Nothing | Response::NotSent(_) => self.nothing(&on_node, untraced),
        }
    }

    fn destination(&self) -> SocketAddr {
        destination(self.steps).unwrap_or(self.to)
    }

    fn delivered(&self, verb: &str) -> ProbeResult {
        let at = self.destination();
        self.at(ResultKind::Delivered, format!("{at} {verb}"))
    }

    fn at(&self, kind: ResultKind, text: String) -> ProbeResult {
        ProbeResult { kind, text, destination: Some(self.destination()), table: None }
    }

    fn lost(&self, kind: ResultKind, text: String) -> ProbeResult {
        ProbeResult { kind, text, destination: destination(self.steps), table: None }
    }

    fn of_table(&self, kind: ResultKind, step: &Step, text: String) -> ProbeResult {
        let table = Some(format!("{} {}", step.family, step.table));
        ProbeResult { kind, text, destination: destination(self.steps), table }
    }

    fn dropped(&self, step: &Step) -> ProbeResult {
        let rejects = step.rule.as_ref().is_some_and(|rule| rule.rejects);
        let kind = if rejects { ResultKind::Rejected } else { ResultKind::Dropped };
        let place = if step.place == Place::Pod { " in the pod's network namespace" } else { "" };
        self.of_table(kind, step, format!("by {}{place}", describe(step)))
    }

    /// Returns the result for a packet of a pod that the node has not seen.
    fn not_on_node(&self, in_pod: &TraceEnd<'_>) -> ProbeResult {
        let is_own = self.from.ip() == self.to.ip();
        match self.response {
            Response::Accepted if is_own => self.delivered("accepted the connection"),
            Response::Replied if is_own => self.delivered("replied"),
            Response::Error(libc::ECONNREFUSED) if is_own => self.refused(),
            Response::Accepted | Response::Replied | Response::Error(libc::ECONNREFUSED) if matches!(in_pod, TraceEnd::Left(Some(interface)) if *interface != "lo") =>
            {
                let text = "it left the pod and was answered, but did not pass netfilter of this node: an eBPF program or \
                             another node forwards it";
                self.lost(ResultKind::AnsweredElsewhere, text.to_owned())
            }
            Response::Accepted | Response::Replied | Response::Error(libc::ECONNREFUSED) => {
                let text = "it did not leave the pod: rules or a process there redirect it, such as those of a service \
                             mesh";
                self.lost(ResultKind::AnsweredInPod, text.to_owned())
            }
            Response::Error(errno) => {
                self.lost(ResultKind::Lost, format!("before it reached this node: {}", os_error(errno)))
            }
            Response::Nothing | Response::NotSent(_) => {
                let text = match in_pod {
                    TraceEnd::Left(Some(interface)) => format!(
                        "it left the pod by {interface} and did not reach netfilter of this node: check the state of \
                         the interface and its peer, traffic control and eBPF programs, and its neighbor entries"
                    ),
                    _ => "in the pod's network namespace, before it reached this node".to_owned(),
                };
                self.lost(ResultKind::Lost, text)
            }
        }
    }

    fn refused(&self) -> ProbeResult {
        let at = self.destination();
        let text = format!("{at}/{} refused it: no process listens there", self.protocol);
        self.at(ResultKind::RefusedByDestination, text)
    }

    /// Returns the result for an error in response.
    fn error(&self, errno: i32, end: &TraceEnd<'_>, untraced: &dyn Untraced) -> ProbeResult {
        let is_reset_or_port_unreachable = matches!(errno, libc::ECONNREFUSED | libc::ECONNRESET);
        match end {
            TraceEnd::Local | TraceEnd::NotSeen if is_reset_or_port_unreachable => self.refused(),
            TraceEnd::Left(_) if is_reset_or_port_unreachable && !self.is_reply_of_node() => self.refused(),
            TraceEnd::NotRouted(step) => {
                let why = untraced.not_routed(step, self.unrouted(TracedDirection::Original));
                self.lost(ResultKind::Lost, format!("{why} (the client receives: {})", os_error(errno)))
            }
            TraceEnd::Untraced { hook, after, before } => {
                let (kind, text) = untraced.in_hook(self.to.ip(), *hook, *after, *before);
                let kind = if kind == ResultKind::Dropped { ResultKind::Rejected } else { kind };
                self.lost(kind, text)
            }
            _ => {
                let at = self.destination();
                let of = match self.reply_source() {
                    _ if self.is_reply_of_node() => "this node".to_owned(),
                    Some(source) => source.ip().to_string(),
                    None => "the network".to_owned(),
                };
                self.lost(ResultKind::Lost, format!("on the way to {at}: {of} reports: {}", os_error(errno)))
            }
        }
    }

    /// Returns the result without a response.
    fn nothing(&self, end: &TraceEnd<'_>, untraced: &dyn Untraced) -> ProbeResult {
        match end {
            TraceEnd::NotRouted(step) => {
                let why = untraced.not_routed(step, self.unrouted(TracedDirection::Original));
                self.lost(ResultKind::Lost, why)
            }
            TraceEnd::Untraced { hook, after, before } => {
                let (kind, text) = untraced.in_hook(self.to.ip(), *hook, *after, *before);
                self.lost(kind, text)
            }
            end => self.without_reply(end, untraced),
        }
    }

    fn without_reply(&self, end: &TraceEnd<'_>, untraced: &dyn Untraced) -> ProbeResult {
        let at = self.destination();
        match trace_end(self.steps, Place::Node, TracedDirection::Reply) {
            TraceEnd::Dropped(step) | TraceEnd::Taken(step) => {
                let text = format!("{at} replied, and the reply was dropped by {}", describe(step));
                self.of_table(ResultKind::ReplyDropped, step, text)
            }
            TraceEnd::NotRouted(step) => {
                let why = untraced.not_routed(step, self.unrouted(TracedDirection::Reply));
                self.lost(ResultKind::Lost, format!("{at} replied, and the reply was lost: {why}"))
            }
            TraceEnd::Untraced { hook, after, before } => {
                let (_, text) = untraced.in_hook(self.to.ip(), hook, after, before);
                self.lost(ResultKind::ReplyDropped, format!("{at} replied, and the reply was lost: {text}"))
            }
            TraceEnd::Left(_) | TraceEnd::Local => {
                let source = self.reply_source().map_or_else(String::new, |from| format!(" from {from}"));
                let text = format!(
                    "{at} replied{source}, and the client did not accept the reply: it does not match the connection"
                );
                self.lost(ResultKind::Lost, text)
            }
            TraceEnd::NotSeen => {
                let seconds = self.time_limit.as_secs_f64();
                let text = match end {
                    TraceEnd::Left(interface) => {
                        let by = interface.map_or_else(String::new, |name| format!(" by {name}"));
                        format!("it left{by} for {at}; no reply reached this node within {seconds} s")
                    }
                    _ => format!("it arrived at {at} on this node; no reply within {seconds} s"),
                };
                self.at(ResultKind::NoReply, text)
            }
        }
    }

    /// Returns true if this node itself sent the first reply.
    fn is_reply_of_node(&self) -> bool {
        let reply = |step: &&Step| step.direction == TracedDirection::Reply && step.place == Place::Node;
        let first = self.steps.iter().find(reply).and_then(|step| step.marker);
        first.is_some_and(|marker| marker.hook == Hook::Output)
    }

    fn reply_source(&self) -> Option<SocketAddr> {
        let mut replies = self.steps.iter().filter(|step| step.direction == TracedDirection::Reply);
        replies.find_map(|step| step.addresses).map(|found| found.source)
    }

    /// Returns a packet of one direction as the routing decision of the node sees it.
    fn unrouted(&self, direction: TracedDirection) -> Option<UnroutedPacket> {
        let of = |step: &&Step| step.place == Place::Node && step.direction == direction;
        let on_node = || self.steps.iter().filter(of);
        let addresses = on_node().filter_map(|step| step.addresses).next_back()?;
        Some(UnroutedPacket { addresses, input: on_node().filter_map(|step| step.input_index).next_back() })
    }
}

/// Returns the rule or policy of a step.
pub(super) fn describe(step: &Step) -> String {
    let chain = format!("table {} {}, chain {}", step.family, step.table, step.chain);
    match &step.rule {
        Some(rule) if rule.text.is_empty() => format!("{chain}, rule with handle {}", rule.handle),
        Some(rule) => format!("{chain}: {}", rule.text),
        None => format!("{chain}: policy {}", step.verdict),
    }
}

/// Returns the description of an error number, without the number.
pub(super) fn os_error(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

fn not_sent(errno: i32, to: SocketAddr, is_pod: bool) -> String {
    let whose = if is_pod { "the pod's network namespace" } else { "this node" };
    match errno {
        libc::ENETUNREACH | libc::EHOSTUNREACH => format!("{whose} has no route to {}", to.ip()),
        libc::EPERM | libc::EACCES => format!("{whose} does not allow it: {}", os_error(errno)),
        _ => format!("{whose}: {}", os_error(errno)),
    }
}
