//! What is wrong with policies becomes Events, once for each version of an object, whoever sees it.

use std::time::Duration;

use portcullis::source::{self, Access, EventReporter, Selection, SourceConfig};
use portcullis_cluster::{Kind, Name};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::api_server::{ApiServer, Fault};
use crate::{Heard, PATIENCE, eventually, options};

/// What a node hears of policies, which it reports without waiting.
async fn node(server: &ApiServer, name: &str) -> Heard {
    // So that a test need not take in what it does not ask for.
    let (sink, batches) = mpsc::channel(64);
    let access = Access { kubeconfig: None, master: Some(server.url()) };
    let selections = vec![Selection::all(Kind::NetworkPolicy), Selection::all(Kind::ClusterNetworkPolicy)];
    let reporter = EventReporter { node: Name::new(name), max_delay: Duration::ZERO };
    let origin = SourceConfig::ApiServer { access, selections, options: options() };
    let source =
        source::spawn_with_events(origin, sink, Some(reporter)).await.expect("the access makes sense");
    Heard { source, batches, waiting: Default::default() }
}

fn policy(name: &str, generation: u64, port: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "shop", "uid": "0-1", "generation": generation},
        "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": port}]}]},
    })
}

/// The Events, in words.
fn events(server: &ApiServer) -> Vec<String> {
    let words = |event: &Value| {
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (regarding, node) = (text("/regarding/name"), text("/reportingInstance"));
        let (place, reason) = (text("/metadata/namespace"), text("/reason"));
        format!("{place}/{} {reason} of {regarding} by {node}: {}", text("/metadata/name"), text("/note"))
    };
    server.objects("events").iter().map(words).collect()
}

async fn eventually_events(server: &ApiServer, expected: &[&str]) {
    eventually("the Events are made", || server.objects("events").len() >= expected.len()).await;
    assert_eq!(events(server), expected);
}

const NOT_A_PORT: &str = "web.0-1.1 InvalidNetworkPolicy of web by node-1: spec.ingress[0].ports[0].port: \
                          \"0\" is not a number from 1 to 65535, or a name; this rule allows nothing";

#[tokio::test]
async fn a_malformed_policy_is_reported_once_for_each_version() {
    let server = ApiServer::start();
    server.apply(policy("web", 1, 0.into()));
    server.apply(policy("fine", 1, 80.into()));
    let _one = node(&server, "node-1").await;
    let first = format!("shop/{NOT_A_PORT}");
    eventually_events(&server, &[&first]).await;

    // Another node sees the same; nothing of the spec changes; the list comes again.
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
async fn an_unreadable_policy_is_reported_as_a_whole() {
    let server = ApiServer::start();
    let mut unreadable = policy("web", 1, 80.into());
    unreadable["spec"]["podSelector"] = json!("everybody");
    server.apply(unreadable);
    let _node = node(&server, "node-1").await;
    eventually("it is reported", || server.objects("events").len() == 1).await;
    let told = events(&server).remove(0);
    assert!(told.contains(" of web by node-1: spec.podSelector: "), "{told}");
    assert!(told.contains("the whole object is skipped"), "{told}");
}

#[tokio::test]
async fn a_server_that_refuses_events_or_is_silent_holds_nothing_up() {
    let faults = [
        ("forbidden", Fault::status(403), 1),
        ("the namespace is going", Fault::status(404), 1),
        ("silent", Fault::hang(), 1),
        ("too busy, until the third time", Fault::status(429).times(2), 3),
    ];
    for (case, fault, tries) in faults {
        let server = ApiServer::start();
        server.fail(fault.on("/events"));
        server.apply(policy("web", 1, 0.into()));
        let mut node = node(&server, "node-1").await;
        eventually(case, || server.requests(&["/events"]).len() == tries).await;
        for name in ["a", "b", "c"] {
            server.apply(policy(name, 1, 0.into()));
            let seen = tokio::time::timeout(PATIENCE, node.until(&format!("+shop/{name}"))).await;
            assert!(seen.is_ok(), "{case}");
        }
        if case != "silent" {
            // Those after it are made, should it be allowed later.
            let made = if tries == 1 { 3 } else { 4 };
            eventually(case, || server.objects("events").len() == made).await;
        }
    }
}

#[tokio::test]
async fn without_a_reporter_nothing_is_reported() {
    let server = ApiServer::start();
    server.apply(policy("web", 1, 0.into()));
    let mut heard = Heard::by(&server, vec![Selection::all(Kind::NetworkPolicy)], options()).await;
    heard.until("NetworkPolicy)").await;
    server.apply(policy("web", 2, 0.into()));
    heard.until("+shop/web").await;
    assert!(server.requests(&["/events"]).is_empty());
}

#[tokio::test]
async fn superseded_policies_are_reported_where_there_are_any() {
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
        let told = events(&server).remove(0);
        assert!(told.contains("PolicyKindNotEnforced of node-1 by "), "{case}: {told}");
        expected.iter().for_each(|words| assert!(told.contains(words), "{case}: {told}"));
    }
}
