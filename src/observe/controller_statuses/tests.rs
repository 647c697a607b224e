//! Tests of a controller that is known by its declaration and status only.

use std::time::Duration;

use portcullis_cluster::{Kind, Name, ObjectKey};

use super::*;
use crate::config::ProxyMode;
use crate::control::{Declaration, Progress, RulesError};
use crate::moment::Moment;
use crate::observe::health::{FailedChecks, Limits};

const POD_NETWORK: ControllerName = ControllerName {
    label: "pod-network",
    objects: "routes",
    rules: "routes of pods",
    event_action: "SyncRoutes",
    is_service_proxy: false,
};

struct Observed {
    health: Arc<Health>,
    metrics: Metrics,
    events: crate::source::EventQueue,
    statuses: ControllerStatuses,
    status: Status,
}

impl Observed {
    fn new() -> Self {
        let start = Moment::now();
        let limits = Limits::new(Duration::from_secs(30), false);
        let health = Arc::new(Health::new(limits, start, Arc::<Progress>::default()));
        let metrics = Metrics::new(ProxyMode::Nftables);
        let (recorder, events) = EventRecorder::channel(Name::new("node-1"));
        let source = Arc::new(SourceHealth::new([Kind::Node]));
        let statuses = ControllerStatuses::new(metrics.clone(), Arc::clone(&health), recorder, source);
        let declaration = Declaration { name: POD_NETWORK, rules: vec!["routes"], watches: Vec::new() };
        Observed { health, metrics, events, statuses, status: Status::new(&declaration) }
    }

    fn observe(&mut self) {
        self.statuses.observe(std::slice::from_ref(&self.status));
    }

    fn finish(&mut self, isolated: &[&str], error: Option<&str>) {
        let object = |name: &&str| ObjectKey { kind: Kind::Node, name: NamespacedName::new("", name) };
        let isolated = isolated.iter().map(|name| IsolatedObject {
            object: object(name),
            cause: IsolationCause::Rejected,
            text: format!("{name}: no route to this address"),
            has_rules: None,
        });
        let result = RulesResult {
            rules: "routes",
            is_full: true,
            duration: Duration::from_millis(3),
            restored: 0,
            isolated: isolated.collect(),
            error: error.map(|error| RulesError { message: error.to_owned(), may_restart_help: false }),
        };
        let sync = FinishedSync { results: vec![result], objects: 10, ..FinishedSync::default() };
        self.status.sync_finished(sync, Moment::now());
        self.observe();
        self.observe();
    }

    fn problems(&self) -> Vec<String> {
        self.health.status(Moment::now()).problems().collect()
    }

    fn has_metric(&self, line: &str) -> bool {
        self.metrics.render().expect("text").lines().any(|found| found == line)
    }
}

#[test]
fn status_alone_leads_to_health_metrics_and_events() {
    let mut observed = Observed::new();
    observed.observe();
    assert_eq!(observed.problems(), [""; 0]);

    observed.finish(&["n1"], None);
    assert_eq!(observed.events.take_events(), ["FailedToSyncNode: Node n1: n1: no route to this address"]);
    assert!(
        observed.problems()[0].starts_with("routes: 1 of 10 routes are isolated"),
        "{:?}",
        observed.problems()
    );
    for line in [
        r#"portcullis_controller_syncs_total{controller="pod-network",result="success"} 1"#,
        r#"portcullis_controller_sync_duration_seconds_count{controller="pod-network"} 1"#,
        r#"portcullis_controller_isolated_objects{controller="pod-network"} 1"#,
    ] {
        assert!(observed.has_metric(line), "{line}");
    }

    observed.finish(&["n1", "n2"], None);
    let events = observed.events.take_events();
    assert_eq!(events, ["FailedToSyncNode: Node n2: n2: no route to this address"], "each once");
    let two = r#"portcullis_controller_syncs_total{controller="pod-network",result="success"} 2"#;
    assert!(observed.has_metric(two), "each finished sync counts once, however often it is observed");

    observed.finish(&[], Some("the table is full"));
    let problems = observed.problems();
    assert!(problems[0].starts_with("routes: the last sync failed at "), "{problems:?}");
    let status = observed.health.status(Moment::now());
    assert_eq!((status.healthy(), status.live(), status.in_sync()), (false, true, true));
    let failed = r#"portcullis_controller_syncs_total{controller="pod-network",result="failure"} 1"#;
    assert!(observed.has_metric(failed));

    observed.finish(&[], None);
    assert_eq!(observed.problems(), [""; 0]);
}

#[test]
fn states_of_a_controller_are_health_problems_while_they_last() {
    let mut observed = Observed::new();
    observed.finish(&[], None);
    observed.status.contention = Some("restored 50 times".to_owned());
    observed.status.incomplete = Some("written without some objects");
    observed.status.long_sync = Some("a sync has been running for 5 s".to_owned());
    observed.observe();
    let status = observed.health.status(Moment::now());
    let fails =
        |text: &str| status.reported.iter().find(|problem| problem.text.starts_with(text)).map(|p| p.fails);
    assert_eq!(fails("routes of pods: restored 50 times"), Some(FailedChecks::Healthz));
    assert_eq!(fails("routes: written without some objects: "), Some(FailedChecks::Healthz));
    assert_eq!(fails("sync: a sync has been running"), Some(FailedChecks::Nothing));
    observed.status.contention = None;
    observed.status.incomplete = None;
    observed.status.long_sync = None;
    observed.observe();
    assert_eq!(observed.problems(), [""; 0]);

    observed.status.is_held_back = true;
    observed.observe();
    assert!(
        observed.problems()[0].starts_with("first sync: keeping the rules of routes"),
        "{:?}",
        observed.problems()
    );
}
