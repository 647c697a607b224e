//! Reports the frontends of Services that are not served: in the log, as metrics and as Events.

use portcullis_cluster::desired::{Desired, UnservedFrontend, UnservedReason};

use crate::metrics::Metrics;
use crate::source::EventRecorder;
use crate::truncated_list;

/// Reason and action of the Event about a Service that is not served at one of its addresses or node ports.
const NOT_SERVED: [&str; 2] = ["FrontendNotServed", "SyncProxyRules"];

/// How many frontends of a Service a line of the log names.
const NAMED: usize = 3;

/// Reports what changed since the last call.
pub(super) fn report(desired: &mut Desired, metrics: &Metrics, recorder: &EventRecorder) {
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
    let count = |is: fn(&UnservedReason) -> bool| all().filter(|unserved| is(&unserved.reason)).count();
    let shadowed = count(|reason| matches!(reason, UnservedReason::Shadowed { .. }));
    let not_allowed = count(|reason| matches!(reason, UnservedReason::OutsideAllowedCidrs));
    metrics.set_unserved_frontends(shadowed, not_allowed);
}

/// Logs all frontends that are not served.
pub(crate) fn warn_of_all(desired: &Desired) {
    for service in desired.unserved_services() {
        tracing::warn!(%service, "Service {service}: {}", summary(&desired.unserved(service)));
    }
}

/// The first frontends, and how many more there are.
fn summary(unserved: &[UnservedFrontend]) -> String {
    truncated_list::clauses(unserved, NAMED)
}
