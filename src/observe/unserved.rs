//! Reports of Service frontends that are not served: in the log, as metrics and as Events.

use portcullis_cluster::desired::{Desired, UnservedFrontend, UnservedReason};

use crate::observe::metrics::Metrics;
use crate::source::EventRecorder;
use crate::truncated_list;

/// The reason and the action of the Event about a Service with an unserved frontend.
const NOT_SERVED: [&str; 2] = ["FrontendNotServed", "SyncProxyRules"];

/// The maximum number of frontends of a Service that a log line names.
const NAMED: usize = 3;

/// Reports changes to the unserved frontends since the last call.
pub(crate) fn report(desired: &mut Desired, metrics: &Metrics, recorder: &EventRecorder) {
    let changed = desired.take_unserved_changes();
    if changed.is_empty() {
        return;
    }
    for service in changed {
        let unserved = desired.unserved(&service);
        if !unserved.is_empty() {
            tracing::warn!(%service, "Service {service}: {}", summary(&unserved));
            let sentences = unserved.iter().map(ToString::to_string).collect();
            recorder.shared_service_event(&service, NOT_SERVED, sentences);
        } else if desired.services().contains_key(&service) {
            tracing::info!(%service, "Service {service} is served at all of its addresses and node ports again");
        }
    }
    let all = || desired.unserved_services().flat_map(|service| desired.unserved(service));
    let count =
        |matches: fn(&UnservedReason) -> bool| all().filter(|unserved| matches(&unserved.reason)).count();
    let shadowed = count(|reason| matches!(reason, UnservedReason::Shadowed { .. }));
    let not_allowed = count(|reason| matches!(reason, UnservedReason::OutsideAllowedCidrs));
    metrics.set_unserved_frontends(shadowed, not_allowed);
}

/// Logs all frontends that are not served.
pub(crate) fn log_all(desired: &Desired) {
    for service in desired.unserved_services() {
        tracing::warn!(%service, "Service {service}: {}", summary(&desired.unserved(service)));
    }
}

/// Returns the first frontends and the number of further ones.
fn summary(unserved: &[UnservedFrontend]) -> String {
    truncated_list::clauses(unserved, NAMED)
}
