//! The document of the state of the daemon.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{LimitedList, PastTime, PodNetworkStatus, TimelineEntry, TypeMeta};

/// The state of the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatusDocument {
    /// `kind: Status`
    #[serde(flatten)]
    pub(crate) meta: TypeMeta,
    /// The time of the document.
    pub(crate) time: Timestamp,
    /// `/healthz` succeeds, apart from `nodeEligible`.
    pub(crate) healthy: bool,
    /// `/livez` succeeds: there is no problem that a restart may solve.
    pub(crate) live: bool,
    /// Load balancers may send traffic to this node.
    pub(crate) node_eligible: bool,
    /// All problems, also those that fail no health check.
    pub(crate) problems: Vec<Problem>,
    /// Whether the event loop responded to this request.
    pub(crate) event_loop: EventLoopStatus,
    /// The program.
    pub(crate) program: ProgramStatus,
    /// The node and how it is served.
    pub(crate) node: NodeStatus,
    /// The rules, one item for each set that is synced as a whole.
    pub(crate) rules: Vec<RulesStatus>,
    /// The Services; `null` if the event loop did not respond, or they are not listed yet.
    pub(crate) services: Option<ServicesStatus>,
    /// The policies; `null` if they are not enforced.
    pub(crate) policies: Option<PoliciesStatus>,
    /// The pod network of this node; `null` if another program provides it.
    pub(crate) pod_network: Option<PodNetworkStatus>,
    /// The objects that could not be programmed while all others were.
    pub(crate) isolated: LimitedList<IsolatedStatus>,
    /// The last syncs, oldest first.
    pub(crate) recent_syncs: Vec<TimelineEntry>,
    /// The last times that rules were restored, oldest first.
    pub(crate) recent_drift: Vec<TimelineEntry>,
    /// The lists and watches, or manifests, by kind of object.
    pub(crate) sources: Vec<SourceStatus>,
    /// The connection tracking of the kernel; `null` if it cannot be read.
    pub(crate) conntrack: Option<ConntrackStatus>,
    /// Other service proxies that responded on this node when the daemon started.
    pub(crate) other_proxies: Vec<OtherProxy>,
    /// The base chains of other programs that drop packets which none of their rules accepts; `null` if they cannot be read.
    pub(crate) dropping_chains: Option<LimitedList<DroppingChainStatus>>,
    /// What was left out of the log and the Events, as there was too much.
    pub(crate) omitted: OmittedStatus,
}

/// A problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Problem {
    /// The object, the problem and its consequence, in one line.
    pub(crate) text: String,
    /// The health checks that it fails.
    pub(crate) fails: FailedCheck,
}

/// Health checks that a problem fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum FailedCheck {
    /// None: a warning.
    Nothing,
    /// `/healthz`.
    Healthz,
    /// `/healthz` and `/livez`.
    HealthzAndLivez,
}

/// Whether the event loop responded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventLoopStatus {
    /// It responded to this request. If not, `services` and `policies` are `null`, and `rules` are as of `lastReport`.
    pub(crate) responded: bool,
    /// Why it did not respond.
    pub(crate) error: Option<String>,
    /// When the controllers last reported their state.
    pub(crate) last_report: Option<PastTime>,
}

/// The program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProgramStatus {
    /// The version of Portcullis.
    pub(crate) version: String,
    /// The commit from which it was built, if that was recorded.
    pub(crate) commit: Option<String>,
    /// The version of kube-proxy that it replaces.
    pub(crate) kube_proxy_version: String,
    /// The process, in the PID namespace of the daemon.
    pub(crate) pid: u32,
    /// When the daemon started.
    pub(crate) started: Timestamp,
    /// The time since then.
    pub(crate) uptime_seconds: f64,
}

/// The value of [`NodeStatus::source`] for an API server.
pub(crate) const API_SERVER: &str = "API server";

/// The node and how it is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeStatus {
    /// The name of the Node object.
    pub(crate) name: String,
    /// The proxy mode.
    pub(crate) mode: String,
    /// The IP families of Services, such as `IPv4`.
    pub(crate) families: Vec<String>,
    /// Where the cluster's objects come from: `API server`, or the path of the manifests.
    pub(crate) source: String,
}

/// A set of rules that is synced as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RulesStatus {
    /// The controller: `services`, `policies` or `pod-network`.
    pub(crate) controller: String,
    /// The name of the set, such as `IPv4`.
    pub(crate) rules: String,
    /// The last successful sync.
    pub(crate) last_success: Option<PastTime>,
    /// The last sync, if it failed.
    pub(crate) failure: Option<FailureStatus>,
    /// The oldest change that is not synced yet.
    pub(crate) pending_since: Option<PastTime>,
    /// The first sync is held back, as objects that cannot be read may have rules in the kernel.
    pub(crate) held_back: bool,
    /// The progress of a sync that takes long.
    pub(crate) long_sync: Option<String>,
    /// The description of another process that keeps changing the rules.
    pub(crate) contention: Option<String>,
}

/// A failed sync.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FailureStatus {
    /// Its end.
    pub(crate) at: PastTime,
    /// The error.
    pub(crate) error: String,
}

/// The Services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServicesStatus {
    /// The number of Services that this node serves.
    pub(crate) services: usize,
    /// The number of their ports, in each IP family.
    pub(crate) ports: usize,
    /// The number of their frontends.
    pub(crate) frontends: usize,
    /// The number of endpoints of all ports: an endpoint of two ports counts twice.
    pub(crate) endpoints: usize,
    /// The frontends that are not served, as they belong to another Service or are not allowed.
    pub(crate) unserved: LimitedList<UnservedStatus>,
    /// The Services above the limit on their size.
    pub(crate) too_large: LimitedList<String>,
}

/// A frontend that is not served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UnservedStatus {
    /// The Service, as `NAMESPACE/NAME`.
    pub(crate) service: String,
    /// The frontend.
    pub(crate) frontend: String,
    /// The Service that is served there; `null` if the address is outside of `--external-address-cidrs`.
    pub(crate) shadowed_by: Option<String>,
    /// One line of text.
    pub(crate) text: String,
}

/// The policies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PoliciesStatus {
    /// Packets are counted and not dropped.
    pub(crate) audit: bool,
    /// The number of NetworkPolicies and ClusterNetworkPolicies in the cluster; `null` if the event loop did not respond.
    pub(crate) policies: Option<usize>,
    /// The number of pods of this node; `null` before the first sync.
    pub(crate) pods: Option<usize>,
    /// The number of them that a policy isolates; `null` before the first sync.
    pub(crate) isolated_pods: Option<usize>,
    /// The packets that policies dropped; `null` if the counters cannot be read.
    pub(crate) drops: Option<DropsStatus>,
}

/// The packets that policies dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DropsStatus {
    /// The packets of all counters that exist now.
    pub(crate) packets: u64,
    /// The packets since the oldest sample of the last five minutes.
    pub(crate) recent_packets: u64,
    /// The age of that sample.
    pub(crate) recent_seconds: f64,
}

/// An isolated object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IsolatedStatus {
    /// The kind of object.
    pub(crate) kind: String,
    /// The object, as `NAMESPACE/NAME`.
    pub(crate) name: String,
    /// The set of rules, such as `IPv4`.
    pub(crate) rules: String,
    /// `rejected` by the kernel or its tool, or `tooLarge`.
    pub(crate) cause: String,
    /// The error, with the message of the kernel.
    pub(crate) message: String,
    /// The kernel has rules of an earlier version of it; `null` if that is not known.
    pub(crate) has_rules: Option<bool>,
}

/// The lists and watches of one kind of object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SourceStatus {
    /// The kind.
    pub(crate) kind: String,
    /// The kind has been listed completely.
    pub(crate) listed: bool,
    /// The API server does not serve the kind, which is optional.
    pub(crate) unserved: bool,
    /// The time since the last response, watch event or bookmark; for manifests, since they were last read.
    pub(crate) last_contact_age_seconds: Option<f64>,
    /// The error of the last request or read, if it failed.
    pub(crate) error: Option<String>,
    /// The number of requests or reads that failed since the start.
    pub(crate) failures: u64,
    /// The number of complete lists since the start.
    pub(crate) lists: u64,
    /// The number of objects that cannot be read; their last version stays in use.
    pub(crate) unreadable: usize,
}

/// Connection tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConntrackStatus {
    /// The number of entries.
    pub(crate) count: u64,
    /// The largest number of entries; more connections are dropped.
    pub(crate) max: u64,
}

/// Another service proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OtherProxy {
    /// The address at which it responded.
    pub(crate) address: SocketAddr,
    /// Its name.
    pub(crate) name: String,
    /// Its mode, if it is known.
    pub(crate) mode: Option<String>,
}

/// A base chain of nf_tables or legacy iptables with the policy `drop`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DroppingChainStatus {
    /// The family of the table, as `nft` spells it.
    pub(crate) family: String,
    /// The table.
    pub(crate) table: String,
    /// The chain.
    pub(crate) chain: String,
    /// The hook, as `nft` spells it.
    pub(crate) hook: Option<String>,
    /// The priority at the hook.
    pub(crate) priority: i32,
    /// It is a chain of legacy iptables, and not of nf_tables.
    pub(crate) legacy: bool,
}

/// Numbers of what was left out since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OmittedStatus {
    /// Events.
    pub(crate) events: u64,
    /// Log lines of one place in the code that logs too often.
    pub(crate) log_lines: u64,
    /// Log lines that standard error did not take.
    pub(crate) dropped_log_lines: u64,
}
