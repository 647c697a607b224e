//! Syncs of Services, as the loop reports them to health.

use std::time::Duration;

use portcullis::control::{ControllerName, SyncFailure, SyncHistory};
use portcullis::moment::Moment;
use portcullis::observe::health::Health;
use portcullis_cluster::Family;

const SERVICES: ControllerName = ControllerName {
    label: "services",
    objects: "Services",
    rules: "rules of Services",
    event_action: "SyncProxyRules",
    is_service_proxy: true,
};

/// Reports a successful sync of both families.
pub(crate) fn succeeded(health: &Health) {
    report(health, SyncHistory::succeeded);
}

/// Reports a failed sync of both families.
pub(crate) fn failed(health: &Health, error: &str) {
    failed_ago(health, error, Duration::ZERO);
}

/// Reports a sync of both families that failed some time ago, since when none has succeeded.
pub(crate) fn failed_ago(health: &Health, error: &str, time: Duration) {
    report(health, |history, now| {
        let at = Moment::new(now.wall() - time, now.monotonic() - time);
        history.failed(SyncFailure { at, error: error.to_owned(), may_restart_help: true });
    });
}

fn report(health: &Health, change: impl Fn(&mut SyncHistory, Moment)) {
    let histories = Family::BOTH.map(|family| {
        let mut history = SyncHistory::new(family.as_str());
        change(&mut history, Moment::now());
        history
    });
    health.set_syncs(SERVICES, histories.into(), false);
}
