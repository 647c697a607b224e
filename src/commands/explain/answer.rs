//! An answer, as `-o json` gives it.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

/// The whole answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    /// The worst that becomes of any of the connections.
    pub(super) verdict: Verdict,
    pub(super) client: ClientAnswer,
    pub(super) connections: Vec<ConnectionAnswer>,
    /// Why there are no connections to explain, if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// What else is worth knowing.
    pub(super) notes: Vec<String>,
}

/// What becomes of a connection. The order is from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Verdict {
    /// It arrives.
    Allowed,
    /// Policies stop it at some of the endpoints.
    PartlyAllowed,
    /// Policies stop it.
    Denied,
    /// There is nowhere to lead it.
    Unreachable,
}

impl Verdict {
    /// Whether it may arrive.
    pub(super) fn arrives(self) -> bool {
        matches!(self, Verdict::Allowed | Verdict::PartlyAllowed)
    }
}

/// Who asks.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClientAnswer {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) node: Option<String>,
    pub(super) addresses: Vec<IpAddr>,
}

/// What becomes of one connection.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConnectionAnswer {
    pub(super) verdict: Verdict,
    pub(super) family: &'static str,
    pub(super) protocol: &'static str,
    pub(super) from: IpAddr,
    pub(super) to: SocketAddr,
    /// What was asked for, by name.
    pub(super) target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<ServiceAnswer>,
    /// Why it goes nowhere, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refusal: Option<RefusalAnswer>,
    pub(super) paths: Vec<PathAnswer>,
    /// What would let it through.
    pub(super) advice: Vec<Advice>,
}

/// Which Service leads it, and how.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceAnswer {
    /// `namespace/name:port`.
    pub(super) port: String,
    pub(super) entry: &'static str,
    /// The node whose rules lead it.
    pub(super) node: String,
    /// `Cluster` or `Local`.
    pub(super) traffic_policy: &'static str,
    /// How many endpoints new connections are spread over.
    pub(super) chosen: usize,
    /// How many endpoints are ready, chosen or not.
    pub(super) ready: usize,
    /// How many endpoints there are.
    pub(super) total: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) affinity_seconds: Option<u32>,
    /// `kept` or `masqueraded`.
    pub(super) source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source_reason: Option<&'static str>,
    /// What else is worth knowing of it.
    pub(super) remarks: Vec<String>,
}

/// Why a connection goes nowhere.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RefusalAnswer {
    /// `rejected`: the client is told; `dropped`: it waits; `notServed`: no rule concerns it.
    pub(super) how: &'static str,
    pub(super) why: String,
    pub(super) way_out: String,
}

/// One place where a connection can arrive.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PathAnswer {
    pub(super) allowed: bool,
    pub(super) to: SocketAddr,
    /// The pod or node there.
    pub(super) name: Option<String>,
    pub(super) node: Option<String>,
    /// One in so many new connections comes here.
    pub(super) one_in: usize,
    /// The source that the destination's policies see, if it is not the client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seen_as: Option<IpAddr>,
    /// Why an answer does not reach the client, if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lost: Option<String>,
    /// The node that replaces the source by one of its addresses before the server sees it, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) masqueraded_by: Option<String>,
    pub(super) egress: EndAnswer,
    pub(super) ingress: EndAnswer,
}

/// What one end says to it.
#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndAnswer {
    pub(super) allowed: bool,
    /// `notJudged`, `notSelected`, `ownNode`, `itself`, `rule`, `noRuleMatches` or `undecided`.
    pub(super) reason: &'static str,
    /// The same in words.
    pub(super) words: String,
    /// The rule that decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rule: Option<RuleAnswer>,
    /// The policies that isolate the pod and do not let the connection pass.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) isolated_by: Vec<String>,
    /// Rules that passed it on before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) passed: Vec<RuleAnswer>,
}

/// A rule.
#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RuleAnswer {
    pub(super) policy: String,
    /// As in `spec.ingress[0]`.
    pub(super) place: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) action: String,
    pub(super) tier: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) priority: Option<u16>,
}

/// What would let a connection through, as far as one end is concerned.
#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Advice {
    /// `ingress` or `egress`.
    pub(super) direction: &'static str,
    /// What to do.
    pub(super) words: Vec<String>,
    /// A NetworkPolicy to apply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) manifest: Option<String>,
    /// A rule to insert.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rule: Option<String>,
}
