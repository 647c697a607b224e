//! The health problem of isolated Services.

use std::collections::BTreeSet;

use portcullis_cluster::NamespacedName;

use crate::observe::health::HealthProblem;
use crate::truncated_list;

/// The most isolated Services that fail no health check, whatever their share is.
const FEW: usize = 3;

/// The largest share of all Services that may be isolated without failing a health check, in percent.
const FEW_PERCENT: usize = 5;

/// How many isolated Services the text names.
const NAMED: usize = 3;

/// Returns the problem of the Services that are isolated in any family. `services` is the number of all Services.
pub(super) fn problem(isolated: &BTreeSet<&NamespacedName>, services: usize) -> Option<HealthProblem> {
    if isolated.is_empty() {
        return None;
    }
    let text = format!(
        "{} of {services} Services are isolated, as the kernel or its tool rejects their rules; each keeps the last rules \
         that were accepted: {}",
        isolated.len(),
        truncated_list::names(isolated, NAMED)
    );
    let is_few = isolated.len() <= FEW.max(services * FEW_PERCENT / 100);
    // A restart would lose the last accepted rules, and isolate the same Services again.
    Some(if is_few { HealthProblem::warning(text) } else { HealthProblem::not_ready(text) })
}

#[cfg(test)]
mod tests {
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
            let names = (0..isolated).map(|n| NamespacedName::new("ns", &format!("s{n:03}")));
            let names: Vec<NamespacedName> = names.collect();
            let problem = problem(&names.iter().collect(), services);
            assert_eq!(problem.as_ref().map(|problem| problem.fails), fails, "{isolated} of {services}");
            if isolated == 4 {
                let text = problem.expect("a problem").text;
                assert!(text.starts_with("4 of 10 Services are isolated"), "{text}");
                assert!(text.ends_with("ns/s000, ns/s001, ns/s002 and 1 more"), "{text}");
            }
        }
    }
}
