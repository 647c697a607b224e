//! Quiet moments: all changes have reached the daemon, it has written them, and it says so.

use std::time::{Duration, Instant};

use super::node::NodeUnderTest;
use super::violation::{Invariant, Violation};

const POLL: Duration = Duration::from_millis(40);

/// Kinds that the daemon watches for Services, and more for policies.
const KINDS: [&str; 3] = ["Service", "EndpointSlice", "Node"];
const POLICY_KINDS: [&str; 4] = ["Pod", "Namespace", "NetworkPolicy", "ClusterNetworkPolicy"];

/// Waits until the daemon has received everything that was changed before, and has no pending work.
///
/// # Errors
/// It takes longer than a limit, or the daemon exits.
pub(crate) fn wait(node: &mut NodeUnderTest, policies: bool, limit: Duration) -> Result<(), Violation> {
    let start = Instant::now();
    let mut state = State::Unreachable;
    let mut next_bookmark = start;
    let mut before = String::new();
    loop {
        node.check_running()?;
        if Instant::now() >= next_bookmark {
            // The daemon has read a watch to its end when it has received a bookmark that was sent now.
            node.server.bookmark_now();
            next_bookmark = Instant::now() + Duration::from_millis(300);
        }
        if let Some(metrics) = node.metrics() {
            state = State::parse(&metrics, policies, start.elapsed());
            let syncs = sync_times(&metrics);
            // Two equal readings: one change may reach the daemon as several events.
            if state == State::Quiet && syncs == before && is_healthy(node) {
                return Ok(());
            }
            before = syncs;
        }
        if start.elapsed() > limit {
            let health = node.health("/healthz").unwrap_or_else(|| "no response".to_owned());
            let message = format!("not quiet within {limit:?}: {state:?}; /healthz: {health}");
            return Err(Violation::new(Invariant::Quiet, message));
        }
        std::thread::sleep(POLL);
    }
}

fn is_healthy(node: &NodeUnderTest) -> bool {
    node.health("/healthz").is_some_and(|response| response.starts_with("HTTP/1.1 200"))
}

/// The state of the daemon by its metrics.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Unreachable,
    /// Kinds of objects of which nothing was received since the changes.
    Behind(Vec<&'static str>),
    Pending,
    Quiet,
}

impl State {
    fn parse(metrics: &str, policies: bool, since_changes: Duration) -> Self {
        let kinds = KINDS.iter().chain(if policies { &POLICY_KINDS[..] } else { &[] });
        let is_behind = |kind: &&&'static str| {
            let age = series(metrics, "portcullis_source_last_heard_age_seconds", kind).next();
            let is_synced = series(metrics, "portcullis_source_synced", kind).next() == Some(1.0);
            // The metrics are as old as the request.
            !is_synced || age.is_none_or(|age| age + 0.1 > since_changes.as_secs_f64())
        };
        let behind: Vec<&'static str> = kinds.filter(is_behind).copied().collect();
        if !behind.is_empty() {
            return State::Behind(behind);
        }
        let pending = ["service", "endpoint"].iter().any(|kind| {
            let name = format!("kubeproxy_sync_proxy_rules_{kind}_changes_pending");
            series(metrics, &name, "").any(|value| value != 0.0)
        });
        let times = |name: &str| series(metrics, &format!("kubeproxy_sync_proxy_rules_{name}_seconds"), "");
        // A family that was never synced has no time.
        let synced: Vec<f64> = times("last_timestamp").collect();
        let is_synced = !synced.is_empty()
            && times("last_queued_timestamp").zip(&synced).all(|(queued, at)| queued <= *at);
        let policies_synced = !policies
            || series(metrics, "portcullis_network_policy_last_sync_timestamp_seconds", "")
                .any(|at| at > 0.0);
        if pending || !is_synced || !policies_synced { State::Pending } else { State::Quiet }
    }
}

/// Returns the values of a metric's series whose labels contain a word.
pub(crate) fn series(metrics: &str, name: &str, label: &str) -> std::vec::IntoIter<f64> {
    let lines = metrics.lines().filter(move |line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '{']))
            && (label.is_empty() || line.contains(&format!("\"{label}\"")))
    });
    lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect::<Vec<f64>>().into_iter()
}

/// Returns the lines of metrics that change with each sync.
fn sync_times(metrics: &str) -> String {
    const NAMES: [&str; 3] = [
        "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
        "portcullis_network_policy_last_sync_timestamp_seconds",
    ];
    let lines = metrics.lines().filter(|line| NAMES.iter().any(|name| line.starts_with(name)));
    lines.collect::<Vec<_>>().join("\n")
}
