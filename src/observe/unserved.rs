//! Reports of Service frontends that are not served.

use portcullis_cluster::desired::{Desired, UnservedFrontend, UnservedReason};
use portcullis_cluster::{Kind, ObjectKey};

use crate::control::{ObjectNotice, UnservedCounts};
use crate::fair_limit::{Limited, limit};
use crate::source::join_note;
use crate::truncated_list;

/// The reason of the Event about a Service with an unserved frontend.
const NOT_SERVED: &str = "FrontendNotServed";

/// The maximum number of frontends of a Service that a log line names.
const NAMED: usize = 3;

/// The maximum number of notices of one sync. Fewer become Events, as each namespace has a budget.
const NOTICES: usize = 1000;

/// Changes to the unserved frontends.
#[derive(Debug, Default)]
pub(crate) struct UnservedReport {
    /// Notices about Services with other unserved frontends than before.
    pub(crate) notices: Vec<ObjectNotice>,
    /// The number of further notices, of which there were too many.
    pub(crate) omitted_notices: usize,
    /// The numbers of unserved frontends; `None` if nothing changed.
    pub(crate) counts: Option<UnservedCounts>,
}

impl UnservedReport {
    /// Adds a later report.
    pub(crate) fn add(&mut self, later: UnservedReport) {
        self.notices.extend(later.notices);
        self.omitted_notices += later.omitted_notices;
        let notices = limit_notices(std::mem::take(&mut self.notices));
        self.omitted_notices += notices.omitted;
        self.notices = notices.items;
        self.counts = later.counts.or(self.counts);
    }
}

/// Logs and returns the changes to the unserved frontends since the last call, if there are some.
pub(crate) fn report(desired: &mut Desired) -> Option<UnservedReport> {
    let changed = desired.take_unserved_changes();
    if changed.is_empty() {
        return None;
    }
    let mut notices = Vec::new();
    for service in changed {
        let unserved = desired.unserved(&service);
        if !unserved.is_empty() {
            tracing::warn!(%service, "Service {service}: {}", summary(&unserved));
            let note = join_note(unserved.iter().map(ToString::to_string).collect());
            let object = ObjectKey { kind: Kind::Service, name: service };
            notices.push(ObjectNotice { object, reason: NOT_SERVED, note });
        } else if desired.services().contains_key(&service) {
            tracing::info!(%service, "Service {service} is served at all of its addresses and node ports again");
        }
    }
    let all = || desired.unserved_services().flat_map(|service| desired.unserved(service));
    let count =
        |matches: fn(&UnservedReason) -> bool| all().filter(|unserved| matches(&unserved.reason)).count();
    let counts = UnservedCounts {
        shadowed: count(|reason| matches!(reason, UnservedReason::Shadowed { .. })),
        not_allowed: count(|reason| matches!(reason, UnservedReason::OutsideAllowedCidrs)),
    };
    let Limited { items: notices, omitted: omitted_notices } = limit_notices(notices);
    Some(UnservedReport { notices, omitted_notices, counts: Some(counts) })
}

fn limit_notices(notices: Vec<ObjectNotice>) -> Limited<ObjectNotice> {
    let namespace = |notice: &ObjectNotice| notice.object.name.namespace.to_string();
    limit(notices, NOTICES, namespace, |notice| notice.object.clone())
}

/// Logs all frontends that are not served, and the Services that are too large.
pub(crate) fn log_all(desired: &Desired) {
    for service in desired.unserved_services() {
        tracing::warn!(%service, "Service {service}: {}", summary(&desired.unserved(service)));
    }
    for (service, size) in desired.oversized() {
        tracing::warn!(%service, "Service {service} is not served: {size}");
    }
}

/// Returns the first frontends and the number of further ones.
fn summary(unserved: &[UnservedFrontend]) -> String {
    truncated_list::clauses(unserved, NAMED)
}
