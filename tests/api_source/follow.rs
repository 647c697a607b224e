//! Lists and watches as they should go.

use std::time::{Duration, Instant};

use portcullis::source::{ListWatchOptions, Selection};
use portcullis_cluster::Kind;
use serde_json::json;

use crate::api_server::{Fault, Streaming};
use crate::{Heard, eventually, options, server_with, service};

#[tokio::test]
async fn a_streaming_list_then_changes_on_one_connection() {
    let server = server_with(&["a", "b"]);
    let mut heard = Heard::services(&server).await;
    heard.expect(&["(Service", "+default/a", "+default/b", "Service)"]).await;
    server.apply(service("c", json!({})));
    server.apply(service("a", json!({"clusterIP": "10.96.0.9"})));
    server.delete("services", "default/b");
    heard.expect(&["+default/c", "+default/a", "-default/b"]).await;
    let requests = server.requests(&[]);
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(requests[0].uri.contains("sendInitialEvents=true"), "{requests:?}");
    assert!(requests[0].user_agent.starts_with("portcullis/"), "{requests:?}");
    let status = heard.status();
    assert!(status.synced && status.error.is_none() && status.last_contact.is_some(), "{status:?}");
    assert_eq!((status.lists, status.failures, status.unreadable), (1, 0, 0));
}

#[tokio::test]
async fn an_empty_list_is_a_list() {
    let server = server_with(&[]);
    let mut heard = Heard::by(&server, Selection::service_proxying("n1"), options()).await;
    let mut events = Vec::new();
    for _ in 0..6 {
        events.push(heard.next().await);
    }
    events.sort();
    assert_eq!(events, ["(EndpointSlice", "(Node", "(Service", "EndpointSlice)", "Node)", "Service)"]);
    eventually("all kinds are synced", || heard.source.health().synced()).await;
}

#[tokio::test]
async fn servers_without_streaming_lists_are_read_by_pages() {
    let quick = ListWatchOptions { response_timeout: Duration::from_millis(200), ..options() };
    let rows = [
        ("etcd cannot", Streaming::EtcdTooOld, Duration::from_secs(60)),
        ("the gate is off", Streaming::GateOff, Duration::from_secs(60)),
        ("the option is unknown, and nothing follows", Streaming::Unknown, Duration::from_secs(60)),
        ("the option is unknown, and a bookmark follows", Streaming::Unknown, Duration::from_millis(20)),
    ];
    for (case, streaming, bookmarks) in rows {
        let server = server_with(&["a", "b", "c", "d", "e"]);
        server.set_streaming(streaming);
        server.bookmark_every(bookmarks);
        let mut heard = Heard::by(&server, vec![Selection::all(Kind::Service)], quick.clone()).await;
        let mut events = heard.until("Service)").await;
        // What an unending stream brought before it was given up does no harm: the list begins again.
        let begin = events.iter().rposition(|event| event == "(Service").expect("a list has a beginning");
        events.drain(..begin);
        assert_eq!(
            events,
            ["(Service", "+default/a", "+default/b", "+default/c", "+default/d", "+default/e", "Service)"],
            "{case}"
        );
        assert_eq!(server.requests(&["limit=2"]).len(), 3, "{case}");
        assert_eq!(server.requests(&["continue="]).len(), 2, "{case}");
        server.apply(service("f", json!({})));
        heard.expect(&["+default/f"]).await;
        assert_eq!(server.requests(&["watch=true", "resourceVersion=5&"]).len(), 1, "{case}");
        assert_eq!(heard.status().lists, 1, "{case}");
    }
}

#[tokio::test]
async fn selectors_are_those_of_kube_proxy() {
    let server = server_with(&["plain"]);
    server.apply(service("headless", json!({"clusterIP": "None"})));
    let labelled = |kind: &str, version: &str, name: &str, label: &str| json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": {label: ""}}, "addressType": "IPv4", "endpoints": []});
    server.apply(labelled("Service", "v1", "foreign", "service.kubernetes.io/service-proxy-name"));
    server.apply(labelled(
        "EndpointSlice",
        "discovery.k8s.io/v1",
        "headless-1",
        "service.kubernetes.io/headless",
    ));
    server.apply(labelled("EndpointSlice", "discovery.k8s.io/v1", "plain-1", "x"));
    for node in ["n1", "n2"] {
        server.apply(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}));
    }
    let rows = [
        (Selection::services(), vec!["(Service", "+default/plain", "Service)"]),
        (Selection::endpoint_slices(), vec!["(EndpointSlice", "+default/plain-1", "EndpointSlice)"]),
        (Selection::node("n2"), vec!["(Node", "+n2", "Node)"]),
    ];
    for (selection, expected) in rows {
        let mut heard = Heard::by(&server, vec![selection], options()).await;
        heard.expect(&expected).await;
    }
    let mut heard = Heard::by(&server, vec![Selection::services()], options()).await;
    heard.until("Service)").await;
    server.apply(labelled("Service", "v1", "plain", "service.kubernetes.io/service-proxy-name"));
    heard.expect(&["-default/plain"]).await;
}

#[tokio::test]
async fn a_kind_that_need_not_be_served_is_empty_where_it_is_not() {
    let server = server_with(&[]);
    server.set_absent(&["servicecidrs"]);
    let mut heard = Heard::by(&server, vec![Selection::service_cidrs()], options()).await;
    heard.expect(&["(ServiceCIDR", "ServiceCIDR)"]).await;
    eventually("the kind is synced", || heard.status().synced).await;
    // It is asked for again, and nothing is said twice.
    eventually("it is asked for again", || server.requests(&["servicecidrs"]).len() > 4).await;
    let times: Vec<Instant> = server.requests(&["servicecidrs"]).iter().map(|request| request.at).collect();
    let waits = times.windows(2).map(|pair| pair[1] - pair[0]);
    let longest = waits.max().unwrap_or_default();
    assert!(
        longest < options().unserved_retry() + Duration::from_secs(1),
        "one that is installed waited {longest:?}"
    );
    assert!(heard.status().is_unserved, "which is no silence");
    server.set_absent(&[]);
    server.apply(json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "k"}, "spec": {"cidrs": ["10.96.0.0/12"]}}));
    heard.expect(&["(ServiceCIDR", "+k", "ServiceCIDR)"]).await;
    eventually("it is served", || !heard.status().is_unserved).await;
}

/// As while an API server starts, before it has read its CustomResourceDefinitions.
#[tokio::test]
async fn a_kind_that_is_not_served_for_a_moment_keeps_its_objects() {
    let server = server_with(&[]);
    server.apply(json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "k"}, "spec": {"cidrs": ["10.96.0.0/12"]}}));
    let mut heard = Heard::by(&server, vec![Selection::service_cidrs()], options()).await;
    heard.expect(&["(ServiceCIDR", "+k", "ServiceCIDR)"]).await;
    // How many answers say so, before the server serves the kind again.
    for (answers, expected) in
        [(2, ["(ServiceCIDR", "+k", "ServiceCIDR)"].as_slice()), (100, &["(ServiceCIDR", "ServiceCIDR)"])]
    {
        server.fail(Fault::text(404, "404 page not found").on("servicecidrs").times(answers));
        server.disconnect_all();
        heard.expect(expected).await;
        eventually(&format!("{answers}"), || heard.status().is_unserved == (answers > 10)).await;
    }
}

#[tokio::test]
async fn a_slow_server_is_waited_for() {
    let server = server_with(&["a", "b", "c"]);
    server.slow(Duration::from_millis(300));
    server.drip(Duration::from_millis(300));
    let mut heard = Heard::services(&server).await;
    heard.expect(&["(Service", "+default/a", "+default/b", "+default/c", "Service)"]).await;
    assert_eq!(heard.status().failures, 0);
}

#[tokio::test]
async fn a_busy_receiver_loses_nothing() {
    let server = server_with(&[]);
    let names: Vec<String> = (0..500).map(|i| format!("s{i:03}")).collect();
    for name in &names {
        // Large enough that the socket's buffers cannot hold them all.
        server.apply(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "annotations": {"x": "y".repeat(20_000)}}}));
    }
    let mut heard = Heard::services(&server).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let mut events = heard.until("Service)").await;
    events.pop();
    let expected: Vec<String> = names.iter().map(|name| format!("+default/{name}")).collect();
    assert_eq!(events[1..], expected);
    assert_eq!(heard.status().failures, 0, "waiting for the receiver is no silence of the server");
}

#[tokio::test]
async fn the_source_ends_when_nobody_listens_and_when_it_is_stopped() {
    let server = server_with(&["a"]);
    let mut heard = Heard::services(&server).await;
    heard.until("Service)").await;
    let Heard { source, batches, .. } = heard;
    drop(batches);
    server.apply(service("b", json!({})));
    eventually("its watch is closed", || server.watches() == 0).await;
    source.stop().await;

    let mut heard = Heard::services(&server).await;
    heard.until("Service)").await;
    assert_eq!(server.watches(), 1);
    heard.source.stop().await;
    eventually("its watch is closed", || server.watches() == 0).await;
}
