//! Events about invalid policies: one for each version of an object, on all nodes; and the condition of a node.

use std::time::Duration;

use portcullis::source::{self, Access, EventReporter, Selection, SourceConfig};
use portcullis_cluster::{Kind, Name};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::api_server::{ApiServer, Fault};
use crate::{TIMEOUT, TestSource, eventually, options};

/// Starts the source of a node that follows policies and creates Events without delay.
async fn node(server: &ApiServer, name: &str) -> TestSource {
    // A capacity that lets tests ignore events.
    let (sink, batches) = mpsc::channel(64);
    let access = Access { kubeconfig: None, master: Some(server.url()), ..Access::default() };
    let selections = vec![Selection::all(Kind::NetworkPolicy), Selection::all(Kind::ClusterNetworkPolicy)];
    let reporter = EventReporter { node: Name::new(name), max_delay: Duration::ZERO };
    let origin = SourceConfig::ApiServer { access, selections, options: options() };
    let source =
        source::spawn_with_events(origin, sink, Some(reporter)).await.expect("the access makes sense");
    TestSource { source, batches, waiting: Default::default() }
}

fn policy(name: &str, generation: u64, port: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "shop", "uid": "0-1", "generation": generation},
        "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": port}]}]},
    })
}

/// Returns the Events as text.
fn events(server: &ApiServer) -> Vec<String> {
    let describe = |event: &Value| {
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (regarding, node) = (text("/regarding/name"), text("/reportingInstance"));
        let (place, reason) = (text("/metadata/namespace"), text("/reason"));
        format!("{place}/{} {reason} of {regarding} by {node}: {}", text("/metadata/name"), text("/note"))
    };
    server.objects("events").iter().map(describe).collect()
}

async fn eventually_events(server: &ApiServer, expected: &[&str]) {
    eventually("the Events are made", || server.objects("events").len() >= expected.len()).await;
    assert_eq!(events(server), expected);
}

const NOT_A_PORT: &str = "web.0-1.1 InvalidNetworkPolicy of web by node-1: spec.ingress[0].ports[0].port: \
                          \"0\" is not a number from 1 to 65535, or a name; this rule allows nothing";

#[tokio::test]
async fn invalid_policy_is_reported_once_for_each_version() {
    let server = ApiServer::start();
    server.apply(policy("web", 1, 0.into()));
    server.apply(policy("fine", 1, 80.into()));
    let _one = node(&server, "node-1").await;
    let first = format!("shop/{NOT_A_PORT}");
    eventually_events(&server, &[&first]).await;

    // Another node reports the same; the spec does not change; the kind is listed again.
    let _two = node(&server, "node-2").await;
    eventually("the other node reports it too", || server.requests(&["/events"]).len() == 2).await;
    server.apply(policy("web", 1, 0.into()));
    server.disconnect_all();
    server.apply(json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "guard", "uid": "2-3", "generation": 4},
        "spec": {"tier": "Middle", "priority": 1, "subject": {"namespaces": {}}},
    }));
    eventually("it is reported", || server.objects("events").len() == 2).await;
    let second = events(&server).remove(0);
    let start = "default/guard.2-3.4 InvalidClusterNetworkPolicy of guard by node-";
    assert!(second.starts_with(start), "{second}");
    let consequence = "the policy has no effect: it selects no pod";
    let note = format!(": spec.tier: \"Middle\" is not Admin or Baseline; {consequence}");
    assert!(second.ends_with(&note), "{second}");
    assert_eq!(events(&server).remove(1), first);

    server.apply(policy("web", 2, "is bad!".into()));
    eventually("the new version is reported", || server.objects("events").len() == 3).await;
}

#[tokio::test]
async fn unreadable_policy_is_reported() {
    let server = ApiServer::start();
    let mut unreadable = policy("web", 1, 80.into());
    unreadable["spec"]["podSelector"] = json!("all pods");
    server.apply(unreadable);
    let _node = node(&server, "node-1").await;
    eventually("it is reported", || server.objects("events").len() == 1).await;
    let text = events(&server).remove(0);
    assert!(text.contains(" of web by node-1: spec.podSelector: "), "{text}");
    assert!(text.contains("the whole object is skipped"), "{text}");
}

#[tokio::test]
async fn rejected_and_hanging_event_requests_do_not_block_the_source() {
    let faults = [
        ("forbidden", Fault::status(403), 1),
        ("the namespace is being deleted", Fault::status(404), 1),
        ("silent", Fault::hang(), 1),
        ("too many requests, twice", Fault::status(429).times(2), 3),
    ];
    for (case, fault, tries) in faults {
        let server = ApiServer::start();
        server.fail(fault.on("/events"));
        server.apply(policy("web", 1, 0.into()));
        let mut node = node(&server, "node-1").await;
        eventually(case, || server.requests(&["/events"]).len() == tries).await;
        for name in ["a", "b", "c"] {
            server.apply(policy(name, 1, 0.into()));
            let received = tokio::time::timeout(TIMEOUT, node.until(&format!("+shop/{name}"))).await;
            assert!(received.is_ok(), "{case}");
        }
        if case != "silent" {
            // Later Events are created.
            let made = if tries == 1 { 3 } else { 4 };
            eventually(case, || server.objects("events").len() == made).await;
        }
    }
}

#[tokio::test]
async fn without_a_reporter_no_events_are_created() {
    let server = ApiServer::start();
    server.apply(policy("web", 1, 0.into()));
    let mut source = TestSource::by(&server, vec![Selection::all(Kind::NetworkPolicy)], options()).await;
    source.until("NetworkPolicy)").await;
    server.apply(policy("web", 2, 0.into()));
    source.until("+shop/web").await;
    assert!(server.requests(&["/events"]).is_empty());
}

#[tokio::test]
async fn existing_superseded_policies_are_reported() {
    let object = |kind: &str, name: &str| {
        let version = "policy.networking.k8s.io/v1alpha1";
        json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": {}})
    };
    let list = Fault::status(403).on("v1alpha1/adminnetworkpolicies");
    let rows = [
        ("none", vec![], None, vec![]),
        (
            "two",
            vec![object("AdminNetworkPolicy", "guard"), object("AdminNetworkPolicy", "wall")],
            None,
            vec![
                "AdminNetworkPolicy objects (policy.networking.k8s.io/v1alpha1) are not enforced: the kind was superseded \
                  by ClusterNetworkPolicy",
                "(guard and 1 more)",
            ],
        ),
        (
            "the baseline",
            vec![object("BaselineAdminNetworkPolicy", "default")],
            None,
            vec!["BaselineAdminNetworkPolicy objects", "(default)"],
        ),
        (
            "they cannot be listed",
            vec![object("AdminNetworkPolicy", "guard")],
            Some(list),
            vec!["AdminNetworkPolicy objects", "adminnetworkpolicies cannot be listed"],
        ),
    ];
    for (case, objects, fault, expected) in rows {
        let server = ApiServer::start();
        objects.into_iter().for_each(|object| _ = server.apply(object));
        fault.into_iter().for_each(|fault| server.fail(fault));
        let _node = node(&server, "node-1").await;
        eventually(case, || !server.requests(&["/apis/policy.networking.k8s.io/v1alpha1"]).is_empty()).await;
        if expected.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(events(&server).is_empty(), "{case}");
            continue;
        }
        eventually(case, || !events(&server).is_empty()).await;
        let text = events(&server).remove(0);
        assert!(text.contains("PolicyKindNotEnforced of node-1 by "), "{case}: {text}");
        expected.iter().for_each(|part| assert!(text.contains(part), "{case}: {text}"));
    }
}

#[tokio::test]
async fn the_condition_of_a_cloud_is_cleared_and_others_stay() {
    let server = ApiServer::start();
    server.apply(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"},
        "status": {"conditions": [
            {"type": "Ready", "status": "True"},
            {"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated"},
        ]},
    }));
    let node = node(&server, "node-1").await;
    node.source.recorder().clear_network_unavailable();
    let conditions =
        || server.objects("nodes")[0]["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let has = |kind: &str, status: &str| {
        conditions().iter().any(|condition| condition["type"] == kind && condition["status"] == status)
    };
    eventually("the condition is cleared", || has("NetworkUnavailable", "False")).await;
    assert!(has("Ready", "True") && conditions().len() == 2, "{:?}", conditions());
}
