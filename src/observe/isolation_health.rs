//! The health problem of isolated objects.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_cluster::ObjectKey;
use portcullis_modes::IsolationCause;

use super::health::HealthProblem;
use crate::control::ControllerName;
use crate::truncated_list;

/// The most isolated Services that fail no health check, whatever their share is.
const FEW: usize = 3;

/// The largest share of all Services that may be isolated without failing a health check, in percent.
const FEW_PERCENT: usize = 5;

/// How many isolated Services the text names.
const NAMED: usize = 3;

/// Returns the problems of the objects that are isolated in any set of rules of a controller: those that the kernel rejects, and
/// those that are too large. `objects` is the number of all its objects.
pub(super) fn problems(
    controller: ControllerName,
    isolated: &BTreeMap<&ObjectKey, IsolationCause>,
    objects: usize,
) -> Vec<HealthProblem> {
    let with = |cause| isolated.iter().filter(move |(_, of)| **of == cause).map(|(key, _)| *key).collect();
    let rejected = problem_of_rejected(controller, &with(IsolationCause::Rejected), objects);
    let too_large = problem_of_too_large(controller, &with(IsolationCause::TooLarge), objects);
    rejected.into_iter().chain(too_large).collect()
}

/// Objects that are too large fail no health check: any user who may create Services could make all nodes unready.
fn problem_of_too_large(
    controller: ControllerName,
    too_large: &BTreeSet<&ObjectKey>,
    objects: usize,
) -> Option<HealthProblem> {
    let text = format!(
        "{} of {objects} {} are isolated, as they are too large; each keeps its last rules within the limit: {}",
        too_large.len(),
        controller.objects,
        truncated_list::names(too_large.iter().map(|key| &key.name), NAMED)
    );
    (!too_large.is_empty()).then(|| HealthProblem::warning(text))
}

fn problem_of_rejected(
    controller: ControllerName,
    isolated: &BTreeSet<&ObjectKey>,
    objects: usize,
) -> Option<HealthProblem> {
    if isolated.is_empty() {
        return None;
    }
    let text = format!(
        "{} of {objects} {} are isolated, as the kernel or its tool rejects their rules; each keeps the last rules \
         that were accepted: {}",
        isolated.len(),
        controller.objects,
        truncated_list::names(isolated.iter().map(|key| &key.name), NAMED)
    );
    // A missing policy may allow connections that it forbids.
    let is_few = controller.is_service_proxy && isolated.len() <= FEW.max(objects * FEW_PERCENT / 100);
    // A restart would lose the last accepted rules, and isolate the same Services again.
    Some(if is_few { HealthProblem::warning(text) } else { HealthProblem::not_ready(text) })
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::{Kind, NamespacedName};

    use super::*;
    use crate::observe::health::FailedChecks;

    #[test]
    fn more_than_a_few_isolated_services_fail_healthz() {
        // How many Services are isolated, of how many.
        let rows = [
            (0, 10, None),
            (1, 1, Some(FailedChecks::Nothing)),
            (3, 3, Some(FailedChecks::Nothing)),
            (4, 10, Some(FailedChecks::Healthz)),
            (5, 100, Some(FailedChecks::Nothing)),
            (6, 100, Some(FailedChecks::Healthz)),
            (500, 500, Some(FailedChecks::Healthz)),
        ];
        for (isolated, services, fails) in rows {
            let name = |n| NamespacedName::new("ns", &format!("s{n:03}"));
            let keys = (0..isolated).map(|n| ObjectKey { kind: Kind::Service, name: name(n) });
            let keys: Vec<ObjectKey> = keys.collect();
            let problem = problem_of_rejected(ControllerName::SERVICES, &keys.iter().collect(), services);
            assert_eq!(problem.as_ref().map(|problem| problem.fails), fails, "{isolated} of {services}");
            if isolated == 4 {
                let text = problem.expect("a problem").text;
                assert!(text.starts_with("4 of 10 Services are isolated"), "{text}");
                assert!(text.ends_with("ns/s000, ns/s001, ns/s002 and 1 more"), "{text}");
            }
        }
    }

    #[test]
    fn objects_that_are_too_large_fail_no_health_check() {
        let name = |n| NamespacedName::new("ns", &format!("s{n:03}"));
        let keys: Vec<ObjectKey> =
            (0..500).map(|n| ObjectKey { kind: Kind::Service, name: name(n) }).collect();
        let isolated = keys.iter().map(|key| (key, IsolationCause::TooLarge)).collect();
        let problems = problems(ControllerName::SERVICES, &isolated, 500);
        assert_eq!(problems.iter().map(|problem| problem.fails).collect::<Vec<_>>(), [FailedChecks::Nothing]);
        assert!(problems[0].text.starts_with("500 of 500 Services are isolated, as they are too large"));
    }
}
