//! Health warnings about lists and watches that fail at the API server.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::observe::health::HealthProblem;
use crate::source::KindStatus;

/// The time without contact after which the error of a kind is reported. Watches regularly end and restart.
const REPORT_AFTER: Duration = Duration::from_secs(30);

/// Returns a warning for each error that persists, with the affected kinds. These warnings do not fail health checks; the
/// check fails later if the API server stays silent.
pub(crate) fn from_kinds(kinds: &[KindStatus], now: Instant) -> Vec<HealthProblem> {
    let persists = |contact: Instant| now.saturating_duration_since(contact) >= REPORT_AFTER;
    warnings(kinds.iter().filter(|status| status.last_contact.is_none_or(persists)))
}

/// Returns a warning for each error that is not among these problems, also if it is new: the status must not show a node
/// without problems while the API server cannot be reached.
pub(crate) fn unreported(
    kinds: &[KindStatus],
    source: &str,
    reported: &[HealthProblem],
) -> Vec<HealthProblem> {
    let is_reported = |error: &str| reported.iter().any(|problem| problem.text.contains(error));
    let is_new = |status: &&KindStatus| !status.error.as_deref().is_none_or(is_reported);
    let unreported = warnings(kinds.iter().filter(is_new));
    unreported
        .into_iter()
        .map(|problem| HealthProblem::warning(format!("{source}: {}", problem.text)))
        .collect()
}

fn warnings<'a>(kinds: impl Iterator<Item = &'a KindStatus>) -> Vec<HealthProblem> {
    let mut by_error: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for status in kinds {
        if let Some(error) = status.error.as_deref() {
            by_error.entry(error).or_default().push(status.kind.as_str());
        }
    }
    by_error
        .into_iter()
        .map(|(error, kinds)| HealthProblem::warning(format!("{}: {error}", kinds.join(", "))))
        .collect()
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::Kind;

    use super::*;

    #[test]
    fn persistent_errors_are_reported_with_their_kinds() {
        let start = Instant::now();
        let second = |second| start + Duration::from_secs(second);
        let status = |kind, contact: Option<u64>, error: Option<&str>| KindStatus {
            last_contact: contact.map(second),
            error: error.map(str::to_owned),
            ..KindStatus::new(kind)
        };
        let unreachable = Some("the API server cannot be reached");
        let kinds = [
            status(Kind::Node, Some(0), unreachable),
            status(Kind::Service, None, unreachable),
            status(Kind::Pod, Some(29), unreachable),
            status(Kind::Namespace, Some(0), None),
            status(Kind::NetworkPolicy, None, Some("the API server returned 403")),
        ];
        let reported: Vec<String> =
            from_kinds(&kinds, second(40)).into_iter().map(|problem| problem.text).collect();
        assert_eq!(
            reported,
            ["Node, Service: the API server cannot be reached", "NetworkPolicy: the API server returned 403"]
        );
        let forbidden = HealthProblem::warning("API server: NetworkPolicy: the API server returned 403");
        let new: Vec<String> =
            unreported(&kinds, "API server", &[forbidden]).into_iter().map(|problem| problem.text).collect();
        assert_eq!(new, ["API server: Node, Service, Pod: the API server cannot be reached"]);
    }
}
