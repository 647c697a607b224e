//! Lists and watches as they go in the world.

use std::time::{Duration, Instant};

use portcullis::source::{Access, ListWatchOptions, Selection};
use portcullis_cluster::Kind;
use serde_json::json;

use crate::api_server::{Fault, Streaming};
use crate::{Heard, eventually, options, server_with, service};

const ALL: [&str; 4] = ["(Service", "+default/a", "+default/b", "Service)"];

#[tokio::test]
async fn a_list_that_fails_is_tried_again() {
    // What fails, how often, and what the health then says of it (nothing where pages help at once).
    let rows: [(&str, Fault, &str); 14] = [
        ("no credentials", Fault::status(401), "our credentials are not accepted"),
        ("not allowed", Fault::status(403), "allow our user to list and watch services"),
        ("not found", Fault::text(404, "404 page not found"), "does not serve /api/v1/services"),
        ("too many requests", Fault::status(429), "429 TooManyRequests"),
        ("timeout", Fault::status(504), "504"),
        ("unavailable", Fault::status(503), "503 ServiceUnavailable"),
        ("a proxy's page", Fault::text(502, "<html>Bad Gateway</html>"), "Bad Gateway"),
        ("broken off at once", Fault::break_off(""), "broke"),
        ("broken off in an event", Fault::break_off("{\"type\":\"ADD"), "broke"),
        ("internal error", Fault::status(500), ""),
        ("bad request", Fault::status(400), ""),
        ("garbage", Fault::text(200, "<html>Log in</html>\n"), ""),
        ("another kind of garbage", Fault::text(200, "{\"type\":\"ADDED\"}\n\u{0}\u{0}\n"), ""),
        ("no answer", Fault::hang(), ""),
    ];
    for (case, fault, error) in rows {
        let server = server_with(&["a", "b"]);
        server.fail(fault.times(2));
        let options = ListWatchOptions { initial_backoff: Duration::from_millis(60), ..options() };
        let mut heard = Heard::by(&server, vec![Selection::all(Kind::Service)], options).await;
        if !error.is_empty() {
            let says = || heard.status().error.is_some_and(|says| says.contains(error));
            eventually(&format!("{case}: the health says {error:?}"), says).await;
            assert!(!heard.status().synced, "{case}");
        }
        heard.expect(&ALL).await;
        eventually("it is synced", || heard.status().synced).await;
        let status = heard.status();
        assert_eq!(status.error, None, "{case}: all is well in the end");
        assert!(server.all_failed() && status.failures >= 1, "{case}: {status:?}");
        server.apply(service("c", json!({})));
        heard.expect(&["+default/c"]).await;
    }
}

#[tokio::test]
async fn a_page_that_fails_is_tried_again_without_the_pages_before() {
    for (case, fault, first_pages) in [
        ("internal error", Fault::status(500), 1),
        ("broken off", Fault::break_off("{\"metadata\":"), 1),
        ("garbage", Fault::text(200, "{\"metadata\": {}, \"items\": [}"), 1),
        ("the continuation has expired", Fault::status(410), 2),
        ("the continuation is not understood", Fault::status(400), 2),
    ] {
        let server = server_with(&["a", "b", "c"]);
        server.set_streaming(Streaming::GateOff);
        server.fail(fault.on("continue="));
        let mut heard = Heard::services(&server).await;
        let events = heard.until("Service)").await;
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
async fn streaming_lists_that_always_break_give_way_to_pages() {
    let server = server_with(&["a", "b"]);
    let first = "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\",\"resourceVersion\":\"1\"}}}\n";
    server.fail(Fault::break_off(first).on("sendInitialEvents").times(1_000));
    let mut heard = Heard::services(&server).await;
    let events = heard.until("Service)").await;
    assert_eq!(events[events.len() - 4..], ALL);
    assert_eq!(server.requests(&["sendInitialEvents"]).len(), 3);
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let server = server_with(&["a", "b"]);
    server.fail(Fault::status(429).retry_after(1));
    let begun = Instant::now();
    let mut heard = Heard::services(&server).await;
    heard.expect(&ALL).await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "it came back after {:?}", begun.elapsed());
}

#[tokio::test]
async fn waits_grow_while_nothing_gets_better() {
    let server = server_with(&[]);
    server.fail(Fault::status(503).times(6));
    let mut heard = Heard::services(&server).await;
    heard.until("Service)").await;
    let times: Vec<Instant> = server.requests(&[]).iter().map(|request| request.at).collect();
    let waits: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits.len(), 6);
    assert!(waits[0] >= Duration::from_millis(20) && waits[5] >= Duration::from_millis(200), "{waits:?}");
    assert!(waits[0] < waits[5], "{waits:?}");
}

#[tokio::test]
async fn a_server_that_comes_up_later_is_found() {
    let mut server = server_with(&["a", "b"]);
    server.stop();
    let mut heard = Heard::services(&server).await;
    eventually("the health says so", || {
        heard.status().error.is_some_and(|error| error.contains("cannot be reached"))
    })
    .await;
    assert!(heard.status().last_contact.is_none());
    server.start_again();
    heard.expect(&ALL).await;
}

#[tokio::test]
async fn renewed_credentials_are_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server_with(&["a", "b"]);
    server.require_token("new");
    let kubeconfig = Some(server.kubeconfig(folder.path(), "old"));
    let access = Access { kubeconfig, master: None };
    let mut heard = Heard::with(access, vec![Selection::all(Kind::Service)], options()).await;
    eventually("the health names the kubeconfig", || {
        heard.status().error.is_some_and(|error| error.contains("kubeconfig"))
    })
    .await;
    server.kubeconfig(folder.path(), "new");
    heard.expect(&ALL).await;
}

#[tokio::test]
async fn a_token_file_may_end_in_a_new_line_and_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server_with(&["a", "b"]);
    let token = |text: &str| std::fs::write(folder.path().join("token"), text).expect("it can be written");
    token("first\n");
    server.require_token("first");
    let kubeconfig = server.kubeconfig(folder.path(), "");
    let text = std::fs::read_to_string(&kubeconfig).expect("it is there");
    std::fs::write(&kubeconfig, text.replace("\"token\":\"\"", "\"tokenFile\":\"token\""))
        .expect("it can be written");
    let access = Access { kubeconfig: Some(kubeconfig), master: None };
    let mut heard = Heard::with(access, vec![Selection::all(Kind::Service)], options()).await;
    heard.expect(&ALL).await;
    token("second\r\n");
    server.require_token("second");
    server.disconnect_all();
    server.apply(service("c", json!({})));
    heard.expect(&["+default/c"]).await;
    // What cannot be used does not take the place of what can.
    token("");
    server.disconnect_all();
    server.apply(service("d", json!({})));
    heard.expect(&["+default/d"]).await;
}

#[tokio::test]
async fn master_overrides_the_kubeconfig() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut elsewhere, server) = (server_with(&[]), server_with(&["a", "b"]));
    server.require_token("secret");
    let kubeconfig = Some(elsewhere.kubeconfig(folder.path(), "secret"));
    elsewhere.stop();
    let access = Access { kubeconfig, master: Some(server.url()) };
    let mut heard = Heard::with(access, vec![Selection::all(Kind::Service)], options()).await;
    heard.expect(&ALL).await;
}

#[tokio::test]
async fn a_broken_watch_goes_on_where_it_was() {
    let mut server = server_with(&["a", "b"]);
    let mut heard = Heard::services(&server).await;
    heard.expect(&ALL).await;
    server.apply(service("c", json!({})));
    heard.expect(&["+default/c"]).await;

    server.disconnect_all();
    server.delete("services", "default/a");
    heard.expect(&["-default/a"]).await;

    server.send_raw("{\"type\":\"MODIFIED\",\"object\":{\"metadata\":");
    server.disconnect_all();
    server.apply(service("d", json!({})));
    heard.expect(&["+default/d"]).await;

    server.close_all();
    server.apply(service("e", json!({})));
    heard.expect(&["+default/e"]).await;

    server.stop();
    server.apply(service("f", json!({})));
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.start_again();
    heard.expect(&["+default/f"]).await;

    assert_eq!(heard.status().lists, 1, "nothing was listed again");
    assert_eq!(server.requests(&["sendInitialEvents"]).len(), 1);
    assert!(
        !server.requests(&["resourceVersion=3&"]).is_empty(),
        "after the first break from the last event"
    );
}

#[tokio::test]
async fn bookmarks_move_the_revision_on() {
    let server = server_with(&["a", "b"]);
    let mut heard = Heard::services(&server).await;
    heard.expect(&ALL).await;
    let before = heard.status().last_contact;
    server.set_revision(1_000);
    server.bookmark_now();
    eventually("the bookmark is heard", || heard.status().last_contact > before).await;
    server.disconnect_all();
    eventually("a watch from the bookmark", || !server.requests(&["resourceVersion=1000&"]).is_empty()).await;
    heard.expect_silence(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn an_expired_revision_is_listed_again() {
    for (case, streaming) in [("streaming", Streaming::Supported), ("by pages", Streaming::EtcdTooOld)] {
        let mut server = server_with(&["a", "b"]);
        server.set_streaming(streaming);
        let mut heard = Heard::services(&server).await;
        heard.expect(&ALL).await;
        eventually("it watches", || server.watches() == 1).await;
        server.stop();
        server.delete("services", "default/a");
        server.apply(service("c", json!({})));
        server.compact();
        server.start_again();
        // The list itself tells the index that `a` is gone.
        heard.expect(&["(Service", "+default/b", "+default/c", "Service)"]).await;
        eventually(case, || heard.status().lists == 2).await;
    }
}

#[tokio::test]
async fn a_revision_that_a_restored_server_has_not_reached_is_given_up() {
    let server = server_with(&["a", "b"]);
    let mut heard = Heard::services(&server).await;
    heard.expect(&ALL).await;
    server.apply(service("c", json!({})));
    heard.expect(&["+default/c"]).await;
    server.restore(2);
    heard.expect(&ALL).await;
}

#[tokio::test]
async fn a_silent_watch_is_dead_and_one_with_bookmarks_is_not() {
    let server = server_with(&["a", "b"]);
    server.bookmark_every(Duration::from_millis(100));
    let mut heard = Heard::services(&server).await;
    heard.expect(&ALL).await;
    heard.expect_silence(Duration::from_millis(1_200)).await;
    assert_eq!(server.requests(&[]).len(), 1, "the first watch lives");
    server.bookmark_every(Duration::from_secs(60));
    server.disconnect_all();
    eventually("a second watch, and a third after its silence", || server.requests(&[]).len() >= 3).await;
    assert_eq!(heard.status().lists, 1);
}

#[tokio::test]
async fn garbage_in_a_watch_is_listed_again() {
    for garbage in ["<html>\n", "{\"type\": 5}\n", "{\"type\":\"ERROR\",\"object\":{\"code\":400}}\n"] {
        let server = server_with(&["a", "b"]);
        let mut heard = Heard::services(&server).await;
        heard.expect(&ALL).await;
        server.send_raw(garbage);
        heard.expect(&ALL).await;
    }
}

#[tokio::test]
async fn errors_inside_a_watch_that_may_pass_are_no_reason_to_list_again() {
    let server = server_with(&["a", "b"]);
    let mut heard = Heard::services(&server).await;
    heard.expect(&ALL).await;
    server.send_raw(
        "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":500,\"reason\":\"InternalError\"}}\n",
    );
    server.apply(service("c", json!({})));
    let mut events = heard.until("+default/c").await;
    events.dedup();
    assert_eq!(events, ["+default/c"]);
    assert_eq!(heard.status().lists, 1);
}

#[tokio::test]
async fn an_unreadable_object_costs_only_itself() {
    for (case, streaming) in [("streaming", Streaming::Supported), ("by pages", Streaming::GateOff)] {
        let server = server_with(&["a"]);
        server.set_streaming(streaming);
        server.apply(service("bad", json!({"ports": "none"})));
        server.apply(service("b", json!({"clusterIP": "not an address"})));
        let mut heard = Heard::services(&server).await;
        heard.expect(&["(Service", "+default/a", "+default/b", "=default/bad", "Service)"]).await;
        eventually(case, || heard.status().unreadable == 1 && heard.status().with_problems == 1).await;
        // In a watch: a bad version of a good object, and of one that is new.
        server.apply(service("a", json!({"ports": 1})));
        server.apply(service("worse", json!({"externalIPs": {"x": 1}})));
        server.apply(service("c", json!({})));
        // What was good of them stays.
        heard.expect(&["=default/a", "=default/worse", "+default/c"]).await;
        eventually(case, || heard.status().unreadable == 3).await;
        server.delete("services", "default/worse");
        server.apply(service("bad", json!({})));
        heard.expect(&["-default/worse", "+default/bad"]).await;
        eventually(case, || heard.status().unreadable == 1).await;
        assert_eq!(heard.status().lists, 1, "{case}");
    }
}

#[tokio::test]
async fn the_hint_for_a_kind_that_is_forbidden_names_a_role_that_allows_it() {
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
        let heard = Heard::by(&server, vec![selection], options()).await;
        eventually(&format!("{kind}: {hint}"), || {
            heard.status().error.is_some_and(|says| says.contains(hint))
        })
        .await;
    }
}
