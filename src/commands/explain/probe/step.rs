//! The steps of a packet through the rules, and the place where they end.

use std::net::SocketAddr;

use portcullis_netlink::nf_tables::{
    Hook, Marker, TraceFamily, TraceVerdict, TracedAddresses, TracedDirection,
};

/// The network namespace of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The client's pod.
    Pod,
    /// This node.
    Node,
}

impl Place {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Place::Pod => "pod",
            Place::Node => "node",
        }
    }
}

/// A rule that matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HitRule {
    /// Its handle in its table.
    pub(super) handle: u64,
    /// The rule, as `nft` lists it.
    pub(super) text: String,
    /// It sends an error to the client.
    pub(super) rejects: bool,
}

impl HitRule {
    /// Returns a rule that was removed before it could be listed, or that cannot be listed.
    pub(super) fn unknown(handle: u64) -> Self {
        HitRule { handle, text: String::new(), rejects: false }
    }
}

/// A step of a packet: a rule that matched, the policy of a chain, or a marker.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) place: Place,
    pub(super) direction: TracedDirection,
    pub(super) family: TraceFamily,
    pub(super) table: String,
    pub(super) chain: String,
    pub(super) rule: Option<HitRule>,
    pub(super) verdict: TraceVerdict,
    pub(super) is_policy: bool,
    pub(super) marker: Option<Marker>,
    pub(super) input: Option<String>,
    pub(super) input_index: Option<u32>,
    pub(super) output: Option<String>,
    pub(super) mark: u32,
    pub(super) addresses: Option<TracedAddresses>,
}

/// The place where the trace of a packet ends.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TraceEnd<'a> {
    /// No hook saw it.
    NotSeen,
    /// A rule or policy dropped it.
    Dropped(&'a Step),
    /// A rule passed it to a program, or took it.
    Taken(&'a Step),
    /// It left through an interface.
    Left(Option<&'a str>),
    /// This host's own sockets received it.
    Local,
    /// It was not routed: the routing decision after this hook.
    NotRouted(&'a Step),
    /// Code without trace support took it in a hook, between two priorities: after the first and before the second.
    Untraced {
        /// The hook.
        hook: Hook,
        /// It had passed everything below this priority.
        after: i32,
        /// It did not arrive at this priority.
        before: i32,
    },
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

/// Returns the end of the trace of one direction in one place.
pub(super) fn trace_end(steps: &[Step], place: Place, direction: TracedDirection) -> TraceEnd<'_> {
    let of = |step: &&Step| step.place == place && step.direction == direction;
    let Some(last) = steps.iter().rev().find(of) else { return TraceEnd::NotSeen };
    match last.verdict {
        TraceVerdict::Drop => return TraceEnd::Dropped(last),
        TraceVerdict::Stolen | TraceVerdict::Queue => return TraceEnd::Taken(last),
        _ => {}
    }
    let Some((at, marker)) =
        steps.iter().filter(of).filter_map(|step| Some((step, step.marker?))).next_back()
    else {
        return TraceEnd::NotRouted(last);
    };
    if !marker.is_last() {
        return TraceEnd::Untraced {
            hook: marker.hook,
            after: marker.priority,
            before: marker.next_priority(),
        };
    }
    let is_bridge = at.family == TraceFamily::BRIDGE;
    match marker.hook {
        Hook::Postrouting => TraceEnd::Left(at.output.as_deref()),
        Hook::Input if !is_bridge => TraceEnd::Local,
        Hook::Prerouting | Hook::Input | Hook::Forward | Hook::Output => TraceEnd::NotRouted(at),
    }
}

/// Returns the last destination of the packet on the node.
pub(super) fn destination(steps: &[Step]) -> Option<SocketAddr> {
    let on_node: Vec<&Step> = steps.iter().filter(|step| step.place == Place::Node).collect();
    let original = |step: &&&Step| step.direction == TracedDirection::Original;
    on_node
        .iter()
        .filter(original)
        .filter_map(|step| step.addresses)
        .next_back()
        .map(|found| found.destination)
}
