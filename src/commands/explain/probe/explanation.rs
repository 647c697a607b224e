//! The explanation of a probe: the data that `-o json` prints.

use std::net::SocketAddr;

use serde::Serialize;

/// The explanation of a probe.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct ProbeExplanation {
    /// The source of the packet.
    pub(super) from: SocketAddr,
    /// The network namespace from which it was sent.
    pub(super) namespace: String,
    /// The rules and policies that it passed, and those that replies passed, in order.
    pub(super) steps: Vec<StepExplanation>,
    pub(super) result: ProbeResult,
    /// Whether the result agrees with the prediction.
    pub(in super::super) agreement: Agreement,
    /// Why.
    pub(super) agreement_reason: String,
    /// Parts of the path that the trace does not show.
    pub(super) not_visible: Vec<String>,
}

/// Whether a probe agrees with the prediction, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Agreement {
    /// The packet took the predicted path.
    Agrees,
    /// The probe does not show whether it did.
    NotDetermined,
    /// The packet took another path.
    Disagrees,
}

/// A rule or policy that the packet passed.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StepExplanation {
    /// `pod` (the client's network namespace) or `node`.
    pub(super) place: &'static str,
    /// `original` or `reply`.
    pub(super) direction: &'static str,
    /// The netfilter hook.
    pub(super) hook: Option<&'static str>,
    pub(super) family: String,
    pub(super) table: String,
    pub(super) chain: String,
    /// The rule; none for the policy of a chain.
    pub(super) rule: Option<RuleText>,
    pub(super) verdict: String,
    /// The addresses of the packet, if the chain is the first of its hook or they have changed.
    pub(super) source: Option<SocketAddr>,
    pub(super) destination: Option<SocketAddr>,
    pub(super) input: Option<String>,
    pub(super) output: Option<String>,
}

/// A rule.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RuleText {
    pub(super) handle: u64,
    /// The rule, as `nft` lists it; empty if it cannot be listed.
    pub(super) text: String,
}

/// The end of a probe.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProbeResult {
    pub(super) kind: ResultKind,
    /// The result as text.
    pub(super) text: String,
    /// The last destination of the packet that the trace shows, after address translation.
    pub(super) destination: Option<SocketAddr>,
    /// The table that dropped or rejected it.
    pub(super) table: Option<String>,
}

/// The kind of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum ResultKind {
    /// The destination accepted the connection or replied.
    Delivered,
    /// The destination refused it: it arrived, but no process listens.
    RefusedByDestination,
    /// It left this node or arrived on it, and no reply came.
    NoReply,
    /// A rule dropped it.
    Dropped,
    /// A rule rejected it with an error.
    Rejected,
    /// A rule dropped or rejected the reply.
    ReplyDropped,
    /// It, or its reply, was lost between rules: no route, reverse path filtering, no neighbor.
    Lost,
    /// The client's kernel did not send it.
    NotSent,
    /// It was answered in the client's network namespace.
    AnsweredInPod,
    /// It was answered, and did not pass netfilter of this node.
    AnsweredElsewhere,
}

impl ResultKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            ResultKind::Delivered => "DELIVERED",
            ResultKind::RefusedByDestination => "REFUSED BY THE DESTINATION",
            ResultKind::NoReply => "NO REPLY",
            ResultKind::Dropped => "DROPPED",
            ResultKind::Rejected => "REJECTED",
            ResultKind::ReplyDropped => "REPLY DROPPED",
            ResultKind::Lost => "LOST",
            ResultKind::NotSent => "NOT SENT",
            ResultKind::AnsweredInPod => "ANSWERED IN THE POD",
            ResultKind::AnsweredElsewhere => "ANSWERED, NOT THROUGH THIS NODE",
        }
    }
}
