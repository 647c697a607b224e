//! Problems with the API server, by what it answers about which kinds of objects.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::http::HealthProblem;
use crate::source::KindStatus;

/// How long a kind may not be heard of until its error is listed. Watches end and begin again all the time.
const LISTED_AFTER: Duration = Duration::from_secs(30);

/// One problem for each error that lasts, with the kinds that it concerns. None of them fails a health check; the silence
/// that may follow does.
pub(super) fn of_kinds(kinds: &[KindStatus], now: Instant) -> Vec<HealthProblem> {
    let mut by_error: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for status in kinds {
        let lasts = |heard: Instant| now.saturating_duration_since(heard) >= LISTED_AFTER;
        if let Some(error) = status.error.as_deref().filter(|_| status.last_contact.is_none_or(lasts)) {
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
    fn errors_that_last_are_listed_with_their_kinds() {
        let start = Instant::now();
        let second = |second| start + Duration::from_secs(second);
        let status = |kind, heard: Option<u64>, error: Option<&str>| KindStatus {
            last_contact: heard.map(second),
            error: error.map(str::to_owned),
            ..KindStatus::new(kind)
        };
        let unreachable = Some("the API server cannot be reached");
        let kinds = [
            status(Kind::Node, Some(0), unreachable),
            status(Kind::Service, None, unreachable),
            status(Kind::Pod, Some(29), unreachable),
            status(Kind::Namespace, Some(0), None),
            status(Kind::NetworkPolicy, None, Some("the API server answers 403")),
        ];
        let listed: Vec<String> =
            of_kinds(&kinds, second(40)).into_iter().map(|problem| problem.text).collect();
        assert_eq!(
            listed,
            ["NetworkPolicy: the API server answers 403", "Node, Service: the API server cannot be reached"]
        );
    }
}
