//! The status document, as a fold over health, the statuses of the controllers, and the health of the source.

use portcullis_modes::IsolationCause;

use super::LocalApi;
use super::cluster_status::ClusterStatus;
use super::documents::{
    API_SERVER, DropsStatus, EntryType, EventLoopStatus, FailedCheck, FailureStatus, IsolatedStatus,
    LimitedList, NodeStatus, OmittedStatus, OtherProxy, PastTime, PoliciesStatus, Problem, ProgramStatus,
    RulesStatus, SourceStatus, StatusDocument, TypeMeta, seconds,
};
use super::kernel_status::KernelStatus;
use super::pod_network;
use crate::config::Source;
use crate::control::{IsolatedObject, Measurements, QueryError, Status};
use crate::logging;
use crate::moment::Moment;
use crate::observe::health::{FailedChecks, HealthProblem, HealthStatus};
use crate::observe::policy_drops::DropTotals;
use crate::observe::reported_statuses::LastReport;
use crate::observe::source_problems;
use crate::source::KindStatus;
use crate::version;

/// The number of syncs and of restores that the document has.
const RECENT: usize = 5;

/// The largest number of isolated objects in the document.
const ISOLATED: usize = 100;

/// Returns the document at a time. `cluster`: what the loop responded; `kernel`: what was read from the kernel.
pub(super) fn document(
    api: &LocalApi,
    cluster: Result<Option<ClusterStatus>, QueryError>,
    kernel: KernelStatus,
    now: Moment,
) -> StatusDocument {
    let (facts, sources) = (api.facts(), &api.0.sources);
    let report = sources.reported.get();
    let health = sources.health.status(now);
    let config = &facts.config;
    let event_loop = EventLoopStatus {
        responded: cluster.is_ok(),
        error: cluster.as_ref().err().map(ToString::to_string),
        last_report: report.at.map(|at| PastTime::new(at, now)),
    };
    let cluster = cluster.ok().flatten();
    let kinds = sources.source.snapshot();
    let is_sync = |entry| matches!(entry, EntryType::Sync | EntryType::SyncFailed | EntryType::Drift);
    StatusDocument {
        meta: TypeMeta::new("Status"),
        time: now.wall(),
        healthy: health.healthy(),
        live: health.live(),
        node_eligible: health.node_eligible,
        problems: problems(&health, &kinds, matches!(config.source, Source::ApiServer(_))),
        event_loop,
        program: ProgramStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: version::COMMIT.map(str::to_owned),
            kube_proxy_version: version::KUBE_PROXY.to_owned(),
            pid: std::process::id(),
            started: facts.started.wall(),
            uptime_seconds: seconds(now.since(facts.started)),
        },
        node: NodeStatus {
            name: facts.node.to_string(),
            mode: config.mode.name().to_owned(),
            families: facts.families.iter().map(|family| family.as_str().to_owned()).collect(),
            source: match &config.source {
                Source::ApiServer(_) => API_SERVER.to_owned(),
                Source::Manifests(path) => path.display().to_string(),
            },
        },
        rules: report.statuses.iter().flat_map(|status| rules(status, now)).collect(),
        policies: config.network_policy.map(|policy| PoliciesStatus {
            policies: cluster.as_ref().map(|cluster| cluster.policies),
            ..policies(policy.audit, &report.statuses, kernel.drops)
        }),
        pod_network: config
            .pod_network
            .as_ref()
            .map(|settings| pod_network::status(settings, &report.statuses, kernel.pod_addresses)),
        services: cluster.map(|cluster| cluster.services),
        isolated: isolated(&report),
        recent_syncs: sources.timeline.last(RECENT, is_sync),
        recent_drift: sources.timeline.last(RECENT, |entry| entry == EntryType::Drift),
        sources: kinds.iter().map(|kind| source(kind, now)).collect(),
        conntrack: kernel.conntrack,
        dropping_chains: kernel.dropping_chains,
        other_proxies: facts
            .other_proxies
            .iter()
            .map(|proxy| OtherProxy {
                address: proxy.address,
                name: proxy.name.to_owned(),
                mode: proxy.mode.clone(),
            })
            .collect(),
        omitted: OmittedStatus {
            events: sources.recorder.omitted(),
            log_lines: logging::omitted_lines(),
            dropped_log_lines: logging::dropped_lines(),
        },
    }
}

/// Returns the problems as the health endpoints list them, and the errors of the source that are too new for these.
fn problems(health: &HealthStatus, kinds: &[KindStatus], has_api_server: bool) -> Vec<Problem> {
    let problem = |HealthProblem { text, fails }: HealthProblem| Problem {
        text,
        fails: match fails {
            FailedChecks::Nothing => FailedCheck::Nothing,
            FailedChecks::Healthz => FailedCheck::Healthz,
            FailedChecks::HealthzAndLivez => FailedCheck::HealthzAndLivez,
        },
    };
    let warning = health.warning.iter().map(HealthProblem::warning);
    let mut all: Vec<HealthProblem> = health.all_problems().chain(warning).collect();
    let source = if has_api_server { "API server" } else { "source" };
    all.extend(source_problems::unreported(kinds, source, &all));
    all.into_iter().map(problem).collect()
}

/// Returns the sets of rules of a controller.
fn rules(status: &Status, now: Moment) -> impl Iterator<Item = RulesStatus> + '_ {
    status.syncs.iter().map(move |history| RulesStatus {
        controller: status.name.label.to_owned(),
        rules: history.rules.to_owned(),
        last_success: history.last_success.map(|at| PastTime::new(at, now)),
        failure: history.failure.as_ref().map(|failure| FailureStatus {
            at: PastTime::new(failure.at, now),
            error: failure.error.clone(),
        }),
        pending_since: history.oldest_change.map(|at| PastTime::new(at, now)),
        held_back: status.is_held_back,
        long_sync: status.long_sync.clone(),
        contention: status.contention.clone(),
    })
}

fn policies(audit: bool, statuses: &[Status], drops: Option<DropTotals>) -> PoliciesStatus {
    let syncs = statuses.iter().filter_map(|status| status.last_sync.as_deref());
    let measured = syncs.into_iter().find_map(|sync| match &sync.measurements {
        Measurements::Policies(measurements) => Some(measurements),
        _ => None,
    });
    PoliciesStatus {
        audit,
        policies: None,
        pods: measured.map(|measurements| measurements.pods),
        isolated_pods: measured.map(|measurements| measurements.isolated_pods),
        drops: drops.map(|drops| DropsStatus {
            packets: drops.packets,
            recent_packets: drops.recent,
            recent_seconds: seconds(drops.window),
        }),
    }
}

fn isolated(report: &LastReport) -> LimitedList<IsolatedStatus> {
    let all = report.isolated.iter().flat_map(|((_, rules), objects)| {
        objects.iter().map(move |IsolatedObject { object, cause, text, has_rules }| IsolatedStatus {
            kind: object.kind.to_string(),
            name: object.name.to_string(),
            rules: (*rules).to_owned(),
            cause: match cause {
                IsolationCause::Rejected => "rejected".to_owned(),
                IsolationCause::TooLarge => "tooLarge".to_owned(),
            },
            message: text.clone(),
            has_rules: *has_rules,
        })
    });
    LimitedList::new(all, ISOLATED)
}

fn source(status: &KindStatus, now: Moment) -> SourceStatus {
    let age = status.last_contact.map(|at| now.monotonic().saturating_duration_since(at));
    SourceStatus {
        kind: status.kind.to_string(),
        listed: status.synced,
        unserved: status.is_unserved,
        last_contact_age_seconds: age.map(seconds),
        error: status.error.clone(),
        failures: status.failures,
        lists: status.lists,
        unreadable: status.unreadable,
    }
}
