//! Lists and watches without errors.

use std::time::{Duration, Instant};

use portcullis::source::{Access, ListWatchOptions, Selection};
use portcullis_cluster::Kind;
use serde_json::json;

use crate::api_server::{Fault, Streaming};
use crate::{TestSource, eventually, options, server_with, service};

#[tokio::test]
async fn streaming_list_and_changes_use_one_connection() {
    let server = server_with(&["a", "b"]);
    let mut source = TestSource::services(&server).await;
    source.expect(&["(Service", "+default/a", "+default/b", "Service)"]).await;
    server.apply(service("c", json!({})));
    server.apply(service("a", json!({"clusterIP": "10.96.0.9"})));
    server.delete("services", "default/b");
    source.expect(&["+default/c", "+default/a", "-default/b"]).await;
    let requests = server.requests(&[]);
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(requests[0].uri.contains("sendInitialEvents=true"), "{requests:?}");
    assert!(requests[0].user_agent.starts_with("portcullis/"), "{requests:?}");
    let status = source.status();
    assert!(status.synced && status.error.is_none() && status.last_contact.is_some(), "{status:?}");
    assert_eq!((status.lists, status.failures, status.unreadable), (1, 0, 0));
}

#[tokio::test]
async fn compressed_lists_and_their_changes_are_read() {
    for streaming in [Streaming::Supported, Streaming::GateOff] {
        let server = server_with(&["a", "b", "c"]);
        server.set_streaming(streaming);
        server.compress();
        let mut source = TestSource::services(&server).await;
        source.expect(&["(Service", "+default/a", "+default/b", "+default/c", "Service)"]).await;
        // Each change arrives although the response goes on.
        server.apply(service("d", json!({})));
        source.expect(&["+default/d"]).await;
        server.delete("services", "default/a");
        source.expect(&["-default/a"]).await;
        let requests = server.requests(&[]);
        assert!(requests.iter().all(|request| request.accept_encoding == "gzip"), "{requests:?}");
    }
}

#[tokio::test]
async fn compression_is_not_requested_if_the_kubeconfig_disables_it() {
    let server = server_with(&["a"]);
    server.compress();
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let path = server.kubeconfig(folder.path(), "token");
    let text = std::fs::read_to_string(&path).expect("it was written");
    let disabled = text.replace(r#""server":"#, r#""disable-compression":true,"server":"#);
    std::fs::write(&path, disabled).expect("it can be written");
    let access = Access { kubeconfig: Some(path), ..Access::default() };
    let mut source = TestSource::with(access, vec![Selection::all(Kind::Service)], options()).await;
    source.expect(&["(Service", "+default/a", "Service)"]).await;
    let requests = server.requests(&[]);
    assert!(requests.iter().all(|request| request.accept_encoding.is_empty()), "{requests:?}");
}

#[tokio::test]
async fn first_list_waits_for_a_random_time() {
    let server = server_with(&["a"]);
    let jitter = ListWatchOptions { list_jitter: Duration::from_hours(10_000), ..options() };
    let _waiting = TestSource::by(&server, vec![Selection::all(Kind::Service)], jitter).await;
    let mut source = TestSource::services(&server).await;
    source.expect(&["(Service", "+default/a", "Service)"]).await;
    assert_eq!(server.requests(&[]).len(), 1, "only the source without a wait has listed");
}

#[tokio::test]
async fn empty_list_counts_as_listed() {
    let server = server_with(&[]);
    let mut source = TestSource::by(&server, Selection::service_proxying("n1"), options()).await;
    let mut events = Vec::new();
    for _ in 0..6 {
        events.push(source.next().await);
    }
    events.sort();
    assert_eq!(events, ["(EndpointSlice", "(Node", "(Service", "EndpointSlice)", "Node)", "Service)"]);
    eventually("all kinds are synced", || source.source.health().synced()).await;
}

#[tokio::test]
async fn servers_without_streaming_lists_are_read_in_pages() {
    let short = ListWatchOptions { response_timeout: Duration::from_millis(200), ..options() };
    let rows = [
        ("etcd does not support it", Streaming::EtcdTooOld, Duration::from_secs(60)),
        ("the feature gate is off", Streaming::GateOff, Duration::from_secs(60)),
        ("unknown option, no bookmark", Streaming::Unknown, Duration::from_secs(60)),
        ("unknown option, a bookmark", Streaming::Unknown, Duration::from_millis(20)),
    ];
    for (case, streaming, bookmarks) in rows {
        let server = server_with(&["a", "b", "c", "d", "e"]);
        server.set_streaming(streaming);
        server.bookmark_every(bookmarks);
        let mut source = TestSource::by(&server, vec![Selection::all(Kind::Service)], short.clone()).await;
        let mut events = source.until("Service)").await;
        // Events of a stream without end have no effect: the list starts again.
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
        source.expect(&["+default/f"]).await;
        assert_eq!(server.requests(&["watch=true", "resourceVersion=5&"]).len(), 1, "{case}");
        assert_eq!(source.status().lists, 1, "{case}");
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
        let mut source = TestSource::by(&server, vec![selection], options()).await;
        source.expect(&expected).await;
    }
    let mut source = TestSource::by(&server, vec![Selection::services()], options()).await;
    source.until("Service)").await;
    server.apply(labelled("Service", "v1", "plain", "service.kubernetes.io/service-proxy-name"));
    source.expect(&["-default/plain"]).await;
}

#[tokio::test]
async fn optional_kind_that_is_not_served_counts_as_empty() {
    let server = server_with(&[]);
    server.set_absent(&["servicecidrs"]);
    let mut source = TestSource::by(&server, vec![Selection::service_cidrs()], options()).await;
    source.expect(&["(ServiceCIDR", "ServiceCIDR)"]).await;
    eventually("the kind is synced", || source.status().synced).await;
    // It is requested again, and no event is sent twice.
    eventually("it is requested again", || server.requests(&["servicecidrs"]).len() > 4).await;
    let times: Vec<Instant> = server.requests(&["servicecidrs"]).iter().map(|request| request.at).collect();
    let waits = times.windows(2).map(|pair| pair[1] - pair[0]);
    let longest = waits.max().unwrap_or_default();
    assert!(
        longest < options().unserved_retry() + Duration::from_secs(1),
        "a kind that is installed later would wait {longest:?}"
    );
    assert!(source.status().is_unserved, "it counts as not served");
    server.set_absent(&[]);
    server.apply(json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "k"}, "spec": {"cidrs": ["10.96.0.0/12"]}}));
    source.expect(&["(ServiceCIDR", "+k", "ServiceCIDR)"]).await;
    eventually("it is served", || !source.status().is_unserved).await;
}

/// An API server that starts returns 404 until it has read its CustomResourceDefinitions.
#[tokio::test]
async fn kind_keeps_its_objects_while_it_is_not_served_for_a_moment() {
    let server = server_with(&[]);
    server.apply(json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "k"}, "spec": {"cidrs": ["10.96.0.0/12"]}}));
    let mut source = TestSource::by(&server, vec![Selection::service_cidrs()], options()).await;
    source.expect(&["(ServiceCIDR", "+k", "ServiceCIDR)"]).await;
    // The number of 404 responses, and the events that follow.
    for (answers, expected) in
        [(2, ["(ServiceCIDR", "+k", "ServiceCIDR)"].as_slice()), (100, &["(ServiceCIDR", "ServiceCIDR)"])]
    {
        server.fail(Fault::text(404, "404 page not found").on("servicecidrs").times(answers));
        server.disconnect_all();
        source.expect(expected).await;
        eventually(&format!("{answers}"), || source.status().is_unserved == (answers > 10)).await;
    }
}

#[tokio::test]
async fn slow_server_causes_no_errors() {
    let server = server_with(&["a", "b", "c"]);
    server.slow(Duration::from_millis(300));
    server.drip(Duration::from_millis(300));
    let mut source = TestSource::services(&server).await;
    source.expect(&["(Service", "+default/a", "+default/b", "+default/c", "Service)"]).await;
    assert_eq!(source.status().failures, 0);
}

#[tokio::test]
async fn busy_receiver_loses_no_events() {
    let server = server_with(&[]);
    let names: Vec<String> = (0..500).map(|i| format!("s{i:03}")).collect();
    for name in &names {
        // Too large for the socket's buffers.
        server.apply(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "annotations": {"x": "y".repeat(20_000)}}}));
    }
    let mut source = TestSource::services(&server).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let mut events = source.until("Service)").await;
    events.pop();
    let expected: Vec<String> = names.iter().map(|name| format!("+default/{name}")).collect();
    assert_eq!(events[1..], expected);
    assert_eq!(source.status().failures, 0, "waiting for the receiver is no timeout of the server");
}

#[tokio::test]
async fn source_ends_when_its_receiver_is_dropped_and_when_it_is_stopped() {
    let server = server_with(&["a"]);
    let mut source = TestSource::services(&server).await;
    source.until("Service)").await;
    let TestSource { source, batches, .. } = source;
    drop(batches);
    server.apply(service("b", json!({})));
    eventually("its watch is closed", || server.watches() == 0).await;
    source.stop().await;

    let mut source = TestSource::services(&server).await;
    source.until("Service)").await;
    assert_eq!(server.watches(), 1);
    source.source.stop().await;
    eventually("its watch is closed", || server.watches() == 0).await;
}
