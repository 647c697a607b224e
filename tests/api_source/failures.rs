//! Lists and watches with errors.

use std::time::{Duration, Instant};

use portcullis::source::{Access, ListWatchOptions, Selection};
use portcullis_cluster::Kind;
use serde_json::json;

use crate::api_server::{Fault, Streaming};
use crate::{TestSource, eventually, options, server_with, service};

pub(crate) const ALL: [&str; 4] = ["(Service", "+default/a", "+default/b", "Service)"];

#[tokio::test]
async fn failed_list_is_retried() {
    // The fault, and the error in the source's health (none where a paginated list follows immediately).
    let rows: [(&str, Fault, &str); 14] = [
        ("no credentials", Fault::status(401), "the credentials are not accepted"),
        ("not allowed", Fault::status(403), "allow this user to list and watch services"),
        ("not found", Fault::text(404, "404 page not found"), "does not serve /api/v1/services"),
        ("too many requests", Fault::status(429), "429 TooManyRequests"),
        ("timeout", Fault::status(504), "504"),
        ("unavailable", Fault::status(503), "503 ServiceUnavailable"),
        ("a proxy's page", Fault::text(502, "<html>Bad Gateway</html>"), "Bad Gateway"),
        ("interrupted before any data", Fault::interrupt(""), "interrupted"),
        ("interrupted in an event", Fault::interrupt("{\"type\":\"ADD"), "interrupted"),
        ("internal error", Fault::status(500), ""),
        ("bad request", Fault::status(400), ""),
        ("malformed", Fault::text(200, "<html>Log in</html>\n"), ""),
        ("malformed events", Fault::text(200, "{\"type\":\"ADDED\"}\n\u{0}\u{0}\n"), ""),
        ("no response", Fault::hang(), ""),
    ];
    for (case, fault, error) in rows {
        let server = server_with(&["a", "b"]);
        server.fail(fault.times(2));
        let options = ListWatchOptions { initial_backoff: Duration::from_millis(60), ..options() };
        let mut source = TestSource::by(&server, vec![Selection::all(Kind::Service)], options).await;
        if !error.is_empty() {
            let has_error = || source.status().error.is_some_and(|found| found.contains(error));
            eventually(&format!("{case}: the health has {error:?}"), has_error).await;
            assert!(!source.status().synced, "{case}");
        }
        source.expect(&ALL).await;
        eventually("it is synced", || source.status().synced).await;
        let status = source.status();
        assert_eq!(status.error, None, "{case}: no error remains");
        assert!(server.all_failed() && status.failures >= 1, "{case}: {status:?}");
        server.apply(service("c", json!({})));
        source.expect(&["+default/c"]).await;
    }
}

#[tokio::test]
async fn failed_page_is_retried_without_the_pages_before_it() {
    for (case, fault, first_pages) in [
        ("internal error", Fault::status(500), 1),
        ("interrupted", Fault::interrupt("{\"metadata\":"), 1),
        ("malformed", Fault::text(200, "{\"metadata\": {}, \"items\": [}"), 1),
        ("the continue token has expired", Fault::status(410), 2),
        ("the continue token is rejected", Fault::status(400), 2),
    ] {
        let server = server_with(&["a", "b", "c"]);
        server.set_streaming(Streaming::GateOff);
        server.fail(fault.on("continue="));
        let mut source = TestSource::services(&server).await;
        let events = source.until("Service)").await;
        let begin = events.iter().rposition(|event| event == "(Service").expect("a list has a beginning");
        assert_eq!(
            events[begin..],
            ["(Service", "+default/a", "+default/b", "+default/c", "Service)"],
            "{case}"
        );
        let lists = server.requests(&["limit="]);
        let begun = lists.iter().filter(|request| !request.uri.contains("continue=")).count();
        assert_eq!(begun, first_pages, "{case}");
    }
}

#[tokio::test]
async fn pages_replace_streaming_lists_that_are_always_interrupted() {
    let server = server_with(&["a", "b"]);
    let first = "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\",\"resourceVersion\":\"1\"}}}\n";
    server.fail(Fault::interrupt(first).on("sendInitialEvents").times(1_000));
    let mut source = TestSource::services(&server).await;
    let events = source.until("Service)").await;
    assert_eq!(events[events.len() - 4..], ALL);
    assert_eq!(server.requests(&["sendInitialEvents"]).len(), 3);
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let server = server_with(&["a", "b"]);
    server.fail(Fault::status(429).retry_after(1));
    let begun = Instant::now();
    let mut source = TestSource::services(&server).await;
    source.expect(&ALL).await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "it came back after {:?}", begun.elapsed());
}

#[tokio::test]
async fn waits_grow_while_requests_fail() {
    let server = server_with(&[]);
    server.fail(Fault::status(503).times(6));
    let mut source = TestSource::services(&server).await;
    source.until("Service)").await;
    let times: Vec<Instant> = server.requests(&[]).iter().map(|request| request.at).collect();
    let waits: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits.len(), 6);
    assert!(waits[0] >= Duration::from_millis(20) && waits[5] >= Duration::from_millis(200), "{waits:?}");
    assert!(waits[0] < waits[5], "{waits:?}");
}

#[tokio::test]
async fn server_that_starts_later_is_found() {
    let mut server = server_with(&["a", "b"]);
    server.stop();
    let mut source = TestSource::services(&server).await;
    eventually("the health has the error", || {
        source.status().error.is_some_and(|error| error.contains("cannot be reached"))
    })
    .await;
    assert!(source.status().last_contact.is_none());
    server.restart();
    source.expect(&ALL).await;
}

#[tokio::test]
async fn renewed_credentials_are_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server_with(&["a", "b"]);
    server.require_token("new");
    let kubeconfig = Some(server.kubeconfig(folder.path(), "old"));
    let access = Access { kubeconfig, master: None, ..Access::default() };
    let mut source = TestSource::with(access, vec![Selection::all(Kind::Service)], options()).await;
    eventually("the health names the kubeconfig", || {
        source.status().error.is_some_and(|error| error.contains("kubeconfig"))
    })
    .await;
    server.kubeconfig(folder.path(), "new");
    source.expect(&ALL).await;
}

#[tokio::test]
async fn token_file_may_end_in_a_newline_and_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server_with(&["a", "b"]);
    let token = |text: &str| std::fs::write(folder.path().join("token"), text).expect("it can be written");
    token("first\n");
    server.require_token("first");
    let kubeconfig = server.kubeconfig(folder.path(), "");
    let text = std::fs::read_to_string(&kubeconfig).expect("it is there");
    std::fs::write(&kubeconfig, text.replace("\"token\":\"\"", "\"tokenFile\":\"token\""))
        .expect("it can be written");
    let access = Access { kubeconfig: Some(kubeconfig), master: None, ..Access::default() };
    let mut source = TestSource::with(access, vec![Selection::all(Kind::Service)], options()).await;
    source.expect(&ALL).await;
    token("second\r\n");
    server.require_token("second");
    server.disconnect_all();
    server.apply(service("c", json!({})));
    source.expect(&["+default/c"]).await;
    // An invalid token does not replace a valid one.
    token("");
    server.disconnect_all();
    server.apply(service("d", json!({})));
    source.expect(&["+default/d"]).await;
}

#[tokio::test]
async fn master_overrides_the_kubeconfig() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut elsewhere, server) = (server_with(&[]), server_with(&["a", "b"]));
    server.require_token("secret");
    let kubeconfig = Some(elsewhere.kubeconfig(folder.path(), "secret"));
    elsewhere.stop();
    let access = Access { kubeconfig, master: Some(server.url()), ..Access::default() };
    let mut source = TestSource::with(access, vec![Selection::all(Kind::Service)], options()).await;
    source.expect(&ALL).await;
}

#[tokio::test]
async fn interrupted_watch_continues_from_its_last_revision() {
    let mut server = server_with(&["a", "b"]);
    let mut source = TestSource::services(&server).await;
    source.expect(&ALL).await;
    server.apply(service("c", json!({})));
    source.expect(&["+default/c"]).await;

    server.disconnect_all();
    server.delete("services", "default/a");
    source.expect(&["-default/a"]).await;

    server.send_raw("{\"type\":\"MODIFIED\",\"object\":{\"metadata\":");
    server.disconnect_all();
    server.apply(service("d", json!({})));
    source.expect(&["+default/d"]).await;

    server.close_all();
    server.apply(service("e", json!({})));
    source.expect(&["+default/e"]).await;

    server.stop();
    server.apply(service("f", json!({})));
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.restart();
    source.expect(&["+default/f"]).await;

    assert_eq!(source.status().lists, 1, "nothing was listed again");
    assert_eq!(server.requests(&["sendInitialEvents"]).len(), 1);
    assert!(
        !server.requests(&["resourceVersion=3&"]).is_empty(),
        "the second watch continues from the last event"
    );
}

#[tokio::test]
async fn watch_continues_from_the_last_bookmark() {
    let server = server_with(&["a", "b"]);
    let mut source = TestSource::services(&server).await;
    source.expect(&ALL).await;
    let before = source.status().last_contact;
    server.set_revision(1_000);
    server.bookmark_now();
    eventually("the bookmark is received", || source.status().last_contact > before).await;
    server.disconnect_all();
    eventually("a watch from the bookmark", || !server.requests(&["resourceVersion=1000&"]).is_empty()).await;
    source.expect_no_events(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn expired_revision_is_followed_by_a_list() {
    for (case, streaming) in [("streaming", Streaming::Supported), ("by pages", Streaming::EtcdTooOld)] {
        let mut server = server_with(&["a", "b"]);
        server.set_streaming(streaming);
        let mut source = TestSource::services(&server).await;
        source.expect(&ALL).await;
        eventually("it watches", || server.watches() == 1).await;
        server.stop();
        server.delete("services", "default/a");
        server.apply(service("c", json!({})));
        server.compact();
        server.restart();
        // The index removes `a`, which is not in the list.
        source.expect(&["(Service", "+default/b", "+default/c", "Service)"]).await;
        eventually(case, || source.status().lists == 2).await;
    }
}

#[tokio::test]
async fn revision_that_a_restored_server_has_not_reached_is_followed_by_a_list() {
    let server = server_with(&["a", "b"]);
    let mut source = TestSource::services(&server).await;
    source.expect(&ALL).await;
    server.apply(service("c", json!({})));
    source.expect(&["+default/c"]).await;
    server.restore(2);
    source.expect(&ALL).await;
}

#[tokio::test]
async fn idle_watch_is_replaced_and_one_with_bookmarks_is_not() {
    let server = server_with(&["a", "b"]);
    server.bookmark_every(Duration::from_millis(100));
    let mut source = TestSource::services(&server).await;
    source.expect(&ALL).await;
    source.expect_no_events(Duration::from_millis(1_200)).await;
    assert_eq!(server.requests(&[]).len(), 1, "the first watch is still open");
    server.bookmark_every(Duration::from_secs(60));
    server.disconnect_all();
    eventually("a second watch, and a third after an idle time", || server.requests(&[]).len() >= 3).await;
    assert_eq!(source.status().lists, 1);
}

#[tokio::test]
async fn malformed_watch_is_followed_by_a_list() {
    for malformed in ["<html>\n", "{\"type\": 5}\n", "{\"type\":\"ERROR\",\"object\":{\"code\":400}}\n"] {
        let server = server_with(&["a", "b"]);
        let mut source = TestSource::services(&server).await;
        source.expect(&ALL).await;
        server.send_raw(malformed);
        source.expect(&ALL).await;
    }
}

#[tokio::test]
async fn transient_errors_inside_a_watch_do_not_cause_a_list() {
    let server = server_with(&["a", "b"]);
    let mut source = TestSource::services(&server).await;
    source.expect(&ALL).await;
    server.send_raw(
        "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":500,\"reason\":\"InternalError\"}}\n",
    );
    server.apply(service("c", json!({})));
    let mut events = source.until("+default/c").await;
    events.dedup();
    assert_eq!(events, ["+default/c"]);
    assert_eq!(source.status().lists, 1);
}

#[tokio::test]
async fn unreadable_object_does_not_affect_the_others() {
    for (case, streaming) in [("streaming", Streaming::Supported), ("by pages", Streaming::GateOff)] {
        let server = server_with(&["a"]);
        server.set_streaming(streaming);
        server.apply(service("bad", json!({"ports": "none"})));
        server.apply(service("b", json!({"clusterIP": "not an address"})));
        let mut source = TestSource::services(&server).await;
        source.expect(&["(Service", "+default/a", "+default/b", "=default/bad", "Service)"]).await;
        eventually(case, || source.status().unreadable == 1 && source.status().with_problems == 1).await;
        // In a watch: an invalid version of a valid object, and an invalid new object.
        server.apply(service("a", json!({"ports": 1})));
        server.apply(service("worse", json!({"externalIPs": {"x": 1}})));
        server.apply(service("c", json!({})));
        // Their last valid versions stay.
        source.expect(&["=default/a", "=default/worse", "+default/c"]).await;
        eventually(case, || source.status().unreadable == 3).await;
        server.delete("services", "default/worse");
        server.apply(service("bad", json!({})));
        source.expect(&["-default/worse", "+default/bad"]).await;
        eventually(case, || source.status().unreadable == 1).await;
        assert_eq!(source.status().lists, 1, "{case}");
    }
}

#[tokio::test]
async fn error_of_a_forbidden_kind_names_a_role_that_allows_it() {
    let rows = [
        (Selection::all(Kind::Service), "as the ClusterRole system:node-proxier does"),
        (Selection::all(Kind::EndpointSlice), "as the ClusterRole system:node-proxier does"),
        (Selection::all(Kind::Namespace), "as the ClusterRole portcullis-network-policy "),
        (Selection::all(Kind::NetworkPolicy), "as the ClusterRole portcullis-network-policy "),
        (Selection::all(Kind::ClusterNetworkPolicy), "as the ClusterRole portcullis-network-policy "),
    ];
    for (selection, hint) in rows {
        let server = server_with(&[]);
        let kind = selection.kind;
        server.fail(Fault::status(403).times(100));
        let source = TestSource::by(&server, vec![selection], options()).await;
        eventually(&format!("{kind}: {hint}"), || {
            source.status().error.is_some_and(|error| error.contains(hint))
        })
        .await;
    }
}
