//! The health problem of isolated objects.

use std::collections::BTreeSet;

use portcullis_cluster::ObjectKey;

use super::health::HealthProblem;
use crate::control::ControllerName;
use crate::truncated_list;

/// The most isolated Services that fail no health check, whatever their share is.
const FEW: usize = 3;

/// The largest share of all Services that may be isolated without failing a health check, in percent.
const FEW_PERCENT: usize = 5;

/// How many isolated Services the text names.
const NAMED: usize = 3;

/// Returns the problem of the objects that are isolated in any set of rules of a controller. `objects` is the number of all
/// its objects.
pub(super) fn problem(
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
            let problem = problem(ControllerName::SERVICES, &keys.iter().collect(), services);
            assert_eq!(problem.as_ref().map(|problem| problem.fails), fails, "{isolated} of {services}");
            if isolated == 4 {
                let text = problem.expect("a problem").text;
                assert!(text.starts_with("4 of 10 Services are isolated"), "{text}");
                assert!(text.ends_with("ns/s000, ns/s001, ns/s002 and 1 more"), "{text}");
            }
        }
    }
}
