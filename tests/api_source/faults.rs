//! Faults of API servers: no object is lost, health has the error, and the source recovers without help.

use std::sync::Arc;
use std::time::Duration;

use portcullis::source::Access;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::api_server::fault_proxy::FaultProxy;
use crate::api_server::{ApiServer, Streaming};
use crate::fault_table::{Origin, Row, rows};
use crate::follower::{Follower, service as name_of};
use crate::{eventually, server_with, service};

/// An ERROR event after which the source lists again.
const EXPIRED: &str =
    "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":410,\"reason\":\"Expired\"}}\n";

/// What the source requests when it meets the fault.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Watch,
    StreamingList,
    PaginatedList,
}

/// Returns the error in the health, and the time from the end of the fault until a change was received.
async fn run(row: Row, phase: Phase) -> (String, Duration) {
    let name = format!("{} ({phase:?})", row.name);
    let server = server_with(&["a", "b", "c"]);
    if matches!(phase, Phase::PaginatedList) {
        server.set_streaming(Streaming::GateOff);
    }
    let proxy = FaultProxy::start("127.0.0.1", server.address());
    let access =
        Access { kubeconfig: None, master: Some(format!("http://{}", proxy.address())), ..Access::default() };
    let mut follower = Follower::start(&name, access, &["a", "b", "c"]).await;
    eventually(&name, || server.watches() > 0).await;
    let failures = follower.status().failures;
    match row.fault {
        Origin::Server(fault) => server.fail(fault),
        Origin::Connection(fault) => proxy.set(Some(fault)),
    }
    match phase {
        Phase::Watch => server.disconnect_all(),
        Phase::StreamingList | Phase::PaginatedList => server.send_raw(EXPIRED),
    }
    // The first failure is the interruption, the others are the fault.
    let error = follower.until_error(row.error, failures + 2).await;
    server.apply(service("d", json!({})));
    follower.observe(Duration::from_millis(200)).await;

    server.clear_faults();
    proxy.set(None);
    let recovery = follower.until("the change", |index| index.service(&name_of("d")).is_some()).await;
    follower.no_longer_requires("c");
    server.delete("services", "default/c");
    follower.until("the deletion", |index| index.service(&name_of("c")).is_none()).await;
    eventually(&format!("{name}: no error remains"), || follower.status().error.is_none()).await;
    assert!(follower.has("a") && follower.has("b") && follower.status().synced, "{name}");
    (error, recovery)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_of_the_api_server_loses_objects_or_needs_help() {
    let count = rows().len();
    assert!(count >= 55, "{count} kinds of faults");
    let (at_once, mut runs) = (Arc::new(Semaphore::new(8)), JoinSet::new());
    for phase in [Phase::Watch, Phase::StreamingList, Phase::PaginatedList] {
        for row in rows() {
            let permits = Arc::clone(&at_once);
            runs.spawn(async move {
                let _permit = permits.acquire().await.expect("the semaphore is open");
                let name = row.name;
                let (error, recovery) = run(row, phase).await;
                (format!("{phase:?}"), name, error, recovery)
            });
        }
    }
    let mut outcomes = Vec::new();
    while let Some(outcome) = runs.join_next().await {
        outcomes.push(outcome.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())));
    }
    outcomes.sort();
    for (phase, name, error, recovery) in &outcomes {
        let error: String = error.chars().take(90).collect();
        println!("{phase:14} {name:34} {:5} ms  {error}", recovery.as_millis());
    }
    let slowest = outcomes.iter().map(|(.., recovery)| recovery.as_millis()).max().unwrap_or_default();
    println!("{count} kinds of faults, {} runs, slowest recovery {slowest} ms", outcomes.len());
}

/// Events that no server should send. Each is followed by an interruption, so that the source also continues from it.
#[tokio::test]
async fn unexpected_watch_events_lose_no_objects() {
    let object = |revision: &str| {
        format!(
            r#"{{"kind":"Service","metadata":{{"name":"a","namespace":"default"{revision}}},"spec":{{}}}}"#
        )
    };
    let event = |kind: &str, object: &str| format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n");
    let revision = |text: &str| event("MODIFIED", &object(&format!(r#","resourceVersion":"{text}""#)));
    let rows = [
        ("the same object twice", [revision("4"), revision("4")].concat()),
        ("no revision", event("MODIFIED", &object(""))),
        ("an empty revision", revision("")),
        ("revision 0", revision("0")),
        ("a negative revision", revision("-1")),
        ("no number", revision("newest")),
        ("an old revision", revision("1")),
        ("a revision in the future", revision("999999999999")),
        ("a revision of 40 digits", revision(&"9".repeat(40))),
        ("a revision that is a number", event("MODIFIED", &object(r#","resourceVersion":7"#))),
        (
            "deletion of an unknown object",
            event("DELETED", r#"{"metadata":{"name":"z","namespace":"default"}}"#),
        ),
        ("deletion of a nameless object", event("DELETED", "{}")),
        ("an object without metadata", event("ADDED", "{}")),
        ("null", event("ADDED", "null")),
        ("a text", event("MODIFIED", "\"a\"")),
        ("another kind", event("ADDED", r#"{"kind":"Node","metadata":{"name":"a"}}"#)),
        ("an unknown type of event", event("RENAMED", &object(""))),
        ("an empty bookmark", event("BOOKMARK", "{}")),
        ("an error without code", event("ERROR", "{}")),
        ("empty lines", "\n\r\n\n".to_owned()),
        ("a line of 4 MiB", event("MODIFIED", &object(&format!(r#","uid":"{}""#, "x".repeat(4 << 20))))),
        ("half an event", "{\"type\":\"MODIFIED\",\"object\":{\"kind\":\"Serv".to_owned()),
    ];
    for (name, text) in rows {
        let server = server_with(&["a", "b", "c"]);
        let access = Access { kubeconfig: None, master: Some(server.url()), ..Access::default() };
        let mut follower = Follower::start(name, access, &["a", "b", "c"]).await;
        eventually(name, || server.watches() > 0).await;
        server.send_raw(&text);
        follower.observe(Duration::from_millis(50)).await;
        server.disconnect_all();
        server.apply(service("d", json!({})));
        let recovery = follower.until("the change", |index| index.service(&name_of("d")).is_some()).await;
        follower.no_longer_requires("c");
        server.delete("services", "default/c");
        follower.until("the deletion", |index| index.service(&name_of("c")).is_none()).await;
        println!("{name:34} {:5} ms", recovery.as_millis());
    }
}

#[tokio::test]
async fn server_with_an_ipv6_address_is_followed() {
    let server = server_with(&["a"]);
    let proxy = FaultProxy::start("::1", server.address());
    let address = proxy.address();
    assert!(address.is_ipv6());
    for master in [format!("http://{address}"), address.to_string()] {
        let access = Access { kubeconfig: None, master: Some(master), ..Access::default() };
        Follower::start("IPv6", access, &["a"]).await;
    }
}

/// A kind of objects of which the server repeats the first page must not seem to be followed.
#[tokio::test]
async fn list_that_never_ends_is_no_contact() {
    let server = ApiServer::start();
    server.set_streaming(Streaming::GateOff);
    let row = rows().into_iter().find(|row| row.name == "pages that repeat").expect("it is in the table");
    let Origin::Server(fault) = row.fault else { panic!("the server sends it") };
    server.fail(fault.on("limit="));
    let mut source = crate::TestSource::services(&server).await;
    while server.requests(&["continue="]).len() < 5 {
        source.next().await;
    }
    let status = source.status();
    assert!(status.last_contact.is_none() && !status.synced, "{status:?}");
    assert!(status.error.is_some_and(|error| error.contains("list without end")));
}
