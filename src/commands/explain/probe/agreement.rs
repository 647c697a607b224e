//! Comparison of a probe with the prediction.

use std::net::SocketAddr;

use portcullis_cluster::Protocol;

use super::explanation::{Agreement, ProbeResult, ResultKind};
use crate::commands::explain::explanation::{ConnectionExplanation, PathExplanation, Verdict};

/// The prediction for a connection, and facts about its probe.
pub(super) struct Comparison<'a> {
    pub(super) prediction: &'a ConnectionExplanation,
    pub(super) result: &'a ProbeResult,
    pub(super) protocol: Protocol,
    /// The node on which the probe ran, as the client's node is known.
    pub(super) node: Option<&'a str>,
    /// The names of the tables of policies and of Services.
    pub(super) policy_table: &'static str,
    pub(super) is_service_table: fn(&str) -> bool,
}

impl Comparison<'_> {
    /// Returns whether the result agrees with the prediction, and why.
    pub(super) fn agreement(&self) -> (Agreement, String) {
        match self.result.kind {
            ResultKind::Delivered => self.arrived(""),
            ResultKind::RefusedByDestination => self.refused(),
            ResultKind::NoReply => self.no_reply(),
            ResultKind::Dropped | ResultKind::Rejected => self.dropped(),
            ResultKind::ReplyDropped => self.did_not_arrive("the reply was dropped"),
            ResultKind::Lost => self.did_not_arrive("it was lost outside of Services and policies"),
            ResultKind::NotSent => self.did_not_arrive("it was not sent"),
            ResultKind::AnsweredInPod | ResultKind::AnsweredElsewhere => {
                (Agreement::NotDetermined, "the packet did not pass the rules of this node".to_owned())
            }
        }
    }

    /// Returns the predicted path to the destination of the packet.
    fn path(&self) -> Option<&PathExplanation> {
        let at = self.result.destination?;
        self.prediction.paths.iter().find(|path| path.to == at)
    }

    fn arrived(&self, addition: &str) -> (Agreement, String) {
        let at = self.result.destination.unwrap_or(self.prediction.to);
        match self.path() {
            Some(path) if path.allowed => {
                (Agreement::Agrees, format!("predicted: allowed to {at}{addition}"))
            }
            Some(path) => (Agreement::Disagrees, format!("predicted: {}", not_allowed(path))),
            None => match &self.prediction.no_route {
                Some(no_route) => (Agreement::Disagrees, format!("predicted: {}", no_route.reason)),
                None => (
                    Agreement::Disagrees,
                    format!("{at} is not a predicted destination: {}", self.destinations()),
                ),
            },
        }
    }

    fn refused(&self) -> (Agreement, String) {
        match &self.prediction.no_route {
            // Rejected by code that is not traced, or by the node itself.
            Some(no_route) if no_route.kind != "dropped" && self.path().is_none() => {
                (Agreement::Agrees, format!("predicted: {}", no_route.reason))
            }
            _ => self.arrived("; whether a process listens is not predicted"),
        }
    }

    fn no_reply(&self) -> (Agreement, String) {
        let Some(path) = self.path() else { return self.did_not_arrive("there was no reply") };
        let is_here = path.node.is_some() && path.node.as_deref() == self.node;
        if let Some(lost) = &path.lost {
            return (Agreement::Agrees, format!("predicted: {lost}"));
        }
        let elsewhere = path.node.as_ref().map_or("another host".to_owned(), |node| format!("node {node}"));
        match (path.allowed, self.protocol) {
            (false, _) if !path.ingress.allowed && !is_here => (
                Agreement::Agrees,
                format!("predicted: {}; only the part on this node is visible", not_allowed(path)),
            ),
            (false, _) => (Agreement::Disagrees, format!("predicted: {}", not_allowed(path))),
            (true, Protocol::Udp) if is_here => (
                Agreement::Agrees,
                format!("predicted: allowed to {}; a server need not reply to an empty datagram", path.to),
            ),
            (true, Protocol::Udp) => (
                Agreement::NotDetermined,
                format!(
                    "only the part on this node is visible, and UDP need not be replied to; the rest is on {elsewhere}"
                ),
            ),
            (true, _) if is_here => {
                (Agreement::Disagrees, format!("predicted: allowed to {}, which did not reply", path.to))
            }
            (true, _) => (
                Agreement::Disagrees,
                format!(
                    "predicted: allowed to {}; the packet was lost after it left this node, or on {elsewhere}",
                    path.to
                ),
            ),
        }
    }

    fn dropped(&self) -> (Agreement, String) {
        let by = self.result.table.as_deref();
        let name = by.and_then(|table| table.split_once(' ')).map(|(_, name)| name);
        let denied = self.prediction.paths.iter().find(|path| !path.allowed && path.lost.is_none());
        match name {
            Some(name) if name == self.policy_table => match (self.path(), denied) {
                (Some(path), _) if path.allowed => {
                    (Agreement::Disagrees, format!("predicted: allowed to {}", path.to))
                }
                (Some(path), _) | (None, Some(path)) => {
                    (Agreement::Agrees, format!("predicted: {}", not_allowed(path)))
                }
                (None, None) => self.did_not_arrive("policies dropped it"),
            },
            Some(name) if (self.is_service_table)(name) => match &self.prediction.no_route {
                Some(no_route) => (Agreement::Agrees, format!("predicted: {}", no_route.reason)),
                None => (Agreement::Disagrees, format!("predicted: {}", self.destinations())),
            },
            _ => {
                let by = by.map_or("iptables legacy".to_owned(), |table| format!("table {table}"));
                match self.prediction.verdict {
                    Verdict::Allowed | Verdict::PartlyAllowed => (
                        Agreement::Disagrees,
                        format!("predicted: allowed; {by} is not part of Services and policies"),
                    ),
                    Verdict::Denied | Verdict::Unreachable => (
                        Agreement::Disagrees,
                        format!(
                            "predicted: {}; {by} dropped it first, and is not part of Services and policies",
                            self.prediction_text()
                        ),
                    ),
                }
            }
        }
    }

    fn did_not_arrive(&self, how: &str) -> (Agreement, String) {
        match (self.prediction.verdict, &self.prediction.no_route) {
            (Verdict::Allowed | Verdict::PartlyAllowed, _) => {
                (Agreement::Disagrees, format!("predicted: {}; {how}", self.destinations()))
            }
            (_, Some(no_route)) => (Agreement::Agrees, format!("predicted: {}", no_route.reason)),
            (Verdict::Unreachable, None) => {
                (Agreement::Agrees, format!("predicted: {}", self.prediction_text()))
            }
            (Verdict::Denied, None) => (
                Agreement::NotDetermined,
                format!("predicted: {}; {how} before policies saw it", self.prediction_text()),
            ),
        }
    }

    fn prediction_text(&self) -> String {
        match (&self.prediction.no_route, self.prediction.paths.iter().find(|path| !path.allowed)) {
            (Some(no_route), _) => no_route.reason.clone(),
            (None, Some(path)) => not_allowed(path),
            (None, None) => "unreachable".to_owned(),
        }
    }

    fn destinations(&self) -> String {
        let allowed: Vec<SocketAddr> =
            self.prediction.paths.iter().filter(|path| path.allowed).map(|path| path.to).collect();
        match allowed[..] {
            [] => self.prediction_text(),
            [only] => format!("allowed to {only}"),
            [first, ..] => format!("allowed to {} destinations, such as {first}", allowed.len()),
        }
    }
}

/// Returns the reason why a path does not work.
fn not_allowed(path: &PathExplanation) -> String {
    if !path.egress.allowed {
        return format!("egress denied: {}", path.egress.text);
    }
    if !path.ingress.allowed {
        return format!("ingress denied: {}", path.ingress.text);
    }
    path.lost.clone().unwrap_or_else(|| format!("{} is not reachable", path.to))
}
