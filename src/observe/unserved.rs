//! Reports of Service frontends that are not served.

use std::collections::BTreeMap;

use portcullis_cluster::desired::{Desired, UnservedFrontend, UnservedReason};
use portcullis_cluster::{Kind, NamespacedName, ObjectKey};

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

/// The numbers of unserved frontends, by Service, so that a change costs no count of all.
#[derive(Debug, Default)]
pub(crate) struct UnservedFrontends {
    by_service: BTreeMap<NamespacedName, UnservedCounts>,
    all: UnservedCounts,
}

impl UnservedFrontends {
    /// Logs and returns the changes since the last call, if there are some.
    pub(crate) fn update(&mut self, desired: &mut Desired) -> Option<UnservedReport> {
        let changed = desired.take_unserved_changes();
        if changed.is_empty() {
            return None;
        }
        let mut notices = Vec::new();
        for service in changed {
            let unserved = desired.unserved(&service);
            self.count(&service, &unserved);
            notices.extend(notice(desired, service, &unserved));
        }
        let Limited { items: notices, omitted: omitted_notices } = limit_notices(notices);
        Some(UnservedReport { notices, omitted_notices, counts: Some(self.all) })
    }

    /// Replaces the counts of a Service.
    fn count(&mut self, service: &NamespacedName, unserved: &[UnservedFrontend]) {
        let mut now = UnservedCounts::default();
        for frontend in unserved {
            match frontend.reason {
                UnservedReason::Shadowed { .. } => now.shadowed += 1,
                UnservedReason::OutsideAllowedCidrs => now.not_allowed += 1,
            }
        }
        let before = match unserved.is_empty() {
            true => self.by_service.remove(service),
            false => self.by_service.insert(service.clone(), now),
        };
        let before = before.unwrap_or_default();
        self.all.shadowed = self.all.shadowed + now.shadowed - before.shadowed;
        self.all.not_allowed = self.all.not_allowed + now.not_allowed - before.not_allowed;
    }
}

/// Logs the unserved frontends of a Service. Returns the notice about them; `None` if all are served again.
fn notice(desired: &Desired, service: NamespacedName, unserved: &[UnservedFrontend]) -> Option<ObjectNotice> {
    if unserved.is_empty() {
        if desired.services().contains_key(&service) {
            tracing::info!(%service, "Service {service} is served at all of its addresses and node ports again");
        }
        return None;
    }
    tracing::warn!(%service, "Service {service}: {}", summary(unserved));
    let note = join_note(unserved.iter().map(ToString::to_string).collect());
    let object = ObjectKey { kind: Kind::Service, name: service };
    Some(ObjectNotice { object, reason: NOT_SERVED, note })
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

#[cfg(test)]
mod tests {
    use portcullis_cluster::desired::DirtyServices;
    use portcullis_cluster::{Event, Index, Name, Object};
    use serde_json::json;

    use super::*;

    /// Returns a Service with external IPs, of which the oldest one with an address is served there.
    fn service(name: &str, external_ips: &[&str]) -> Event {
        let number = name.trim_start_matches('s');
        let address = format!("10.96.0.{number}");
        let object = json!({
            "metadata": {"name": name, "namespace": "ns", "uid": name, "creationTimestamp": format!("2026-01-01T00:00:0{number}Z")},
            "spec": {"clusterIP": address, "clusterIPs": [address], "externalIPs": external_ips, "ports": [{"port": 80}]},
        });
        Event::Applied(Object::parse(Kind::Service, object).expect("a valid object").object)
    }

    fn deleted(name: &str) -> Event {
        Event::Deleted(ObjectKey { kind: Kind::Service, name: NamespacedName::new("ns", name) })
    }

    #[test]
    fn counts_follow_the_changed_services() {
        let (mut index, mut frontends) = (Index::new(), UnservedFrontends::default());
        let allowed = ["192.0.2.0/24".parse().expect("a block")];
        let mut desired = Desired::new(Name::new("node")).with_external_cidrs(&allowed);
        // The change, and the numbers of shadowed and of not allowed frontends; `None` if they are not reported.
        let rows = [
            (service("s1", &["192.0.2.1", "192.0.2.2"]), None),
            (service("s2", &["192.0.2.1", "192.0.2.2"]), Some((2, 0))),
            (service("s3", &["192.0.2.1", "198.51.100.1"]), Some((3, 1))),
            (service("s4", &[]), None),
            (service("s2", &["192.0.2.1", "198.51.100.2"]), Some((2, 2))),
            (deleted("s1"), Some((1, 2))),
            (deleted("s3"), Some((0, 1))),
            (deleted("s2"), Some((0, 0))),
        ];
        for (number, (event, expected)) in rows.into_iter().enumerate() {
            let mut dirty = DirtyServices::default();
            dirty.extend(index.handle(event));
            desired.update(&index, dirty);
            let counts = frontends.update(&mut desired).and_then(|report| report.counts);
            assert_eq!(counts.map(|counts| (counts.shadowed, counts.not_allowed)), expected, "row {number}");
        }
    }
}
