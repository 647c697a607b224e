//! Documents from states of the daemon, and the paths of the router.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Event, Index, Kind, NamespacedName, Object, ObjectKey};
use portcullis_modes::IsolationCause;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::control::{
    ControllerName, DaemonState, Declaration, IsolatedObject, Query, RulesError, RulesResult, Status,
    SyncFailure, SyncTrigger,
};
use crate::observe::health::{HealthProblem, Limits};

struct Daemon {
    api: LocalApi,
    health: Arc<Health>,
    reported: ReportedStatuses,
    timeline: Timeline,
    queries: mpsc::Receiver<Query>,
}

fn daemon(status_limit: Duration) -> Daemon {
    let started = Moment::now();
    let health = Arc::new(Health::new(Limits::new(Duration::from_secs(30), true), started, Arc::default()));
    let (queries, receiver) = Queries::channel();
    let (reported, timeline) = (ReportedStatuses::default(), Timeline::default());
    let facts = DaemonFacts {
        config: Config::default(),
        node: Name::new("node-1"),
        families: Family::BOTH.to_vec(),
        started,
        other_proxies: Vec::new(),
    };
    let sources = ApiSources {
        queries,
        events: TrafficEvents::without_hub(),
        health: Arc::clone(&health),
        reported: reported.clone(),
        timeline: timeline.clone(),
        source: Arc::new(SourceHealth::new([Kind::Service])),
        drops: PolicyDrops::default(),
        recorder: EventRecorder::disabled(),
    };
    let api = LocalApi(Arc::new(Inner::new(facts, sources, status_limit, status_limit)));
    Daemon { api, health, reported, timeline, queries: receiver }
}

/// Returns a status with a failed sync of IPv4.
fn failed_status(at: Moment) -> Status {
    let declaration =
        Declaration { name: ControllerName::SERVICES, rules: vec!["IPv4", "IPv6"], watches: Vec::new() };
    let mut status = Status::new(&declaration);
    let failure = SyncFailure { at, error: "no memory".to_owned(), may_restart_help: true };
    status.syncs[0].failed(failure);
    status.syncs[1].succeeded(at);
    status
}

/// Responds to queries with two Services that claim the same external IP.
async fn respond(mut queries: mpsc::Receiver<Query>) {
    let mut index = Index::new();
    for (name, cluster_ip) in [("web", "10.96.0.1"), ("old", "10.96.0.2")] {
        let value = json!({
            "metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "ipFamilies": ["IPv4"],
                     "externalIPs": ["192.0.2.1"], "ports": [{"port": 80}]},
        });
        index.handle(Event::Applied(Object::parse(Kind::Service, value).expect("a Service").object));
    }
    let desired = Desired::from_index(&index, Name::new("node-1"));
    while let Some(mut query) = queries.recv().await {
        query.run(&DaemonState { desired: Some(&desired), ..DaemonState::new(&index, true) });
    }
}

#[tokio::test]
async fn status_has_the_problems_of_health_and_the_counts_of_the_loop() {
    let Daemon { api, health, reported, timeline, queries } = daemon(Duration::from_secs(60));
    tokio::spawn(respond(queries));
    let at = Moment::now();
    let status = failed_status(at);
    health.set_syncs(status.name, status.syncs.clone(), false);
    health.set_problems("Node", vec![HealthProblem::warning("is missing")]);
    health.warn(Some("the configuration file is invalid".to_owned()));
    reported.report(std::slice::from_ref(&status), at);
    let isolated = IsolatedObject {
        object: ObjectKey { kind: Kind::Service, name: NamespacedName::new("shop", "api") },
        cause: IsolationCause::Rejected,
        text: "Service shop/api: File exists".to_owned(),
        has_rules: Some(true),
    };
    let result = RulesResult {
        rules: "IPv4",
        is_full: true,
        duration: Duration::from_millis(3),
        restored: 2,
        isolated: vec![isolated.clone()],
        error: None,
    };
    reported.set_isolated(status.name, "IPv4", vec![isolated.clone()].into(), at);
    let trigger = SyncTrigger::ExternalChange { process: "nft (process 7)".to_owned() };
    timeline.add_sync(status.name, &result, &trigger, at);
    timeline.add_isolation(status.name, "IPv4", &[], &result.isolated, at);

    let document = api.status().await;
    let listed = health.status(Moment::now()).problems().collect::<Vec<_>>();
    let texts: Vec<&str> = document.problems.iter().map(|problem| problem.text.as_str()).collect();
    assert_eq!(
        texts,
        [listed.iter().map(String::as_str).collect(), vec!["the configuration file is invalid"]].concat()
    );
    assert!(
        texts[0].starts_with("IPv4: the last sync failed at ") && texts[0].ends_with("no memory"),
        "{texts:?}"
    );
    assert!(!document.healthy && document.live && document.event_loop.responded);
    let services = document.services.expect("the loop responded");
    assert_eq!((services.services, services.ports, services.frontends), (2, 2, 3));
    assert_eq!(services.unserved.items[0].shadowed_by.as_deref(), Some("shop/old"));
    assert_eq!(document.rules[0].failure.as_ref().map(|failure| failure.error.as_str()), Some("no memory"));
    assert!(document.rules[1].last_success.is_some() && document.policies.is_none());
    assert_eq!(document.isolated.items[0].name, "shop/api");
    let drift = &document.recent_drift[0];
    assert_eq!((drift.process.as_deref(), drift.restored), (Some("nft (process 7)"), Some(2)));

    // The object is programmed again, and the next sync fails.
    timeline.add_isolation(status.name, "IPv4", &result.isolated, &[], at);
    let error = Some(RulesError { message: "no".to_owned(), may_restart_help: true });
    timeline.add_sync(status.name, &RulesResult { error, ..result }, &SyncTrigger::Retry, at);
    let types: Vec<Value> =
        api.timeline(Since::Number(0), 10).entries.iter().map(|entry| json!(entry.r#type)).collect();
    assert_eq!(types, ["drift", "isolated", "noLongerIsolated", "syncFailed"]);
}

#[tokio::test]
async fn status_of_a_loop_that_hangs_says_so() {
    let Daemon { api, reported, queries: _unanswered, .. } = daemon(Duration::from_millis(20));
    let at = Moment::now();
    reported.report(&[failed_status(at)], at);
    let document = api.status().await;
    assert!(!document.event_loop.responded && document.services.is_none());
    assert_eq!(
        document.event_loop.error.as_deref(),
        Some("the event loop of the daemon did not respond within 20ms")
    );
    assert_eq!(document.rules.len(), 2, "they are of the last report");
    assert!(document.event_loop.last_report.is_some_and(|report| report.age_seconds >= 0.02));
}

#[test]
fn changes_of_sources_are_entries_once() {
    let timeline = Timeline::default();
    let health = SourceHealth::new([Kind::Service, Kind::EndpointSlice]);
    let mut kinds = health.snapshot();
    let now = Moment::now();
    timeline.add_sources(&kinds, now);
    kinds.iter_mut().for_each(|kind| kind.error = Some("connection refused".to_owned()));
    timeline.add_sources(&kinds, now);
    timeline.add_sources(&kinds, now);
    kinds[0].error = None;
    kinds[0].lists = 1;
    timeline.add_sources(&kinds, now);
    kinds[0].lists = 2;
    timeline.add_sources(&kinds, now);
    let entries = timeline.document(Since::Number(0), 10, now).entries;
    let texts: Vec<&str> = entries.iter().map(|entry| entry.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "cannot read services, endpointslices: connection refused",
            "reading services succeeds again",
            "listed services again, as their watch could not be continued"
        ]
    );
}

#[tokio::test]
async fn requests_that_fail_name_what_is_expected() {
    let Daemon { api, .. } = daemon(Duration::from_millis(1));
    let service = TowerToHyperService::new(router(api));
    // Method, path, status, start of the message.
    let rows = [
        ("GET", "/v1/timeline?since=5&limit=2", 200, ""),
        ("GET", "/v1/timeline?since=2026-11-30T10:00:00Z", 200, ""),
        (
            "GET",
            "/v1/timeline?since=yesterday",
            400,
            "invalid value \"yesterday\" of since: expected the number",
        ),
        ("GET", "/v1/timeline?limit=-1", 400, "Failed to deserialize query string"),
        ("GET", "/v1/timeline?last=1", 400, "Failed to deserialize query string"),
        ("GET", "/v1/policies?namespace=shop", 200, ""),
        ("GET", "/v1/policies?pod=web", 400, "Failed to deserialize query string"),
        (
            "GET",
            "/v1/observe?port=http",
            400,
            "invalid value \"http\" of port: expected a number from 0 to 65535",
        ),
        ("GET", "/v1/observe", 503, "the daemon is shutting down"),
        ("GET", "/v2/status", 404, "no such document; expected one of /v1/status"),
        ("POST", "/v1/status", 405, "only GET is allowed"),
    ];
    for (method, path, status, message) in rows {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
        let response = service.call(request).await.expect("it does not fail");
        assert_eq!(response.status(), status, "{path}");
        let body = axum::body::to_bytes(response.into_body(), 100_000).await.expect("a body in memory");
        let document: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(document["apiVersion"], "portcullis.io/v1", "{path}");
        let found = document["message"].as_str().unwrap_or_default();
        assert!(found.starts_with(message), "{path}: {found}");
    }
}
