//! The test server, compared with recordings of a real API server.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::api_server::{ApiServer, Streaming};

fn recording(name: &str) -> Value {
    serde_json::from_str(&text(name)).expect("a recording is JSON")
}

fn text(name: &str) -> String {
    let path = format!("{}/fixtures/apiserver/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the request and the events of a recorded watch.
fn watch_recording(name: &str) -> (String, Vec<Value>) {
    let lines: Vec<Value> =
        text(name).lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    let request = lines[0]["request"].as_str().expect("the first line is the request").to_owned();
    (
        request,
        lines.into_iter().skip(1).filter_map(|mut line| line.get_mut("line").map(Value::take)).collect(),
    )
}

/// Returns the items of a recorded list, with the kind of the list.
fn items(name: &str) -> Vec<Value> {
    let mut body = recording(name)["body"].take();
    let kind = body["kind"].as_str().expect("a list has a kind").trim_end_matches("List").to_owned();
    let version = body["apiVersion"].take();
    let complete = |item: &Value| {
        let mut object = serde_json::json!({"kind": kind, "apiVersion": version});
        item.as_object().expect("an item").iter().for_each(|(name, value)| object[name] = value.clone());
        object
    };
    body["items"].as_array_mut().expect("a list has items").iter().map(complete).collect()
}

/// Starts a server with the objects of the recorded one.
fn server() -> ApiServer {
    let server = ApiServer::start();
    for list in ["list-services", "list-endpointslices", "list-nodes", "list-namespaces", "list-servicecidrs"]
    {
        server.load(items(&format!("{list}.json")));
    }
    server.set_revision(86);
    server
}

/// Sends a recorded request (`GET /path`) and reads the head of the response.
fn get(server: &ApiServer, request: &str) -> (u16, BTreeMap<String, String>, BufReader<TcpStream>) {
    let mut stream =
        TcpStream::connect(server.url().trim_start_matches("http://")).expect("the server listens");
    write!(stream, "{request} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .expect("the server reads");
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).expect("the server answers");
        line.trim_end().to_owned()
    };
    let code = line().split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
    let mut headers = BTreeMap::new();
    while let Some((name, value)) = line().split_once(": ") {
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    (code, headers, reader)
}

/// Reads the body, and joins its chunks.
fn body(headers: &BTreeMap<String, String>, mut reader: BufReader<TcpStream>) -> String {
    let mut whole = String::new();
    if !headers.contains_key("transfer-encoding") {
        reader.read_to_string(&mut whole).expect("a body");
        return whole;
    }
    loop {
        let mut size = String::new();
        reader.read_line(&mut size).expect("a chunk");
        let size = usize::from_str_radix(size.trim(), 16).expect("the size of a chunk");
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).expect("a chunk");
        if size == 0 {
            return whole;
        }
        whole += std::str::from_utf8(&chunk[..size]).expect("JSON is UTF-8");
    }
}

#[test]
fn responses_are_equal() {
    let server = server();
    for name in [
        "list-services.json",
        "list-services-page-1.json",
        "list-services-page-2.json",
        "list-services-kube-proxy-selector.json",
        "list-endpointslices.json",
        "list-node-by-name.json",
        "list-nodes.json",
        "list-namespaces.json",
        "list-servicecidrs.json",
        "get-404.json",
    ] {
        let recorded = recording(name);
        let (code, headers, reader) = get(&server, recorded["request"].as_str().expect("a request"));
        assert_eq!(code, recorded["status"], "{name}");
        assert_eq!(headers["content-type"], "application/json", "{name}");
        let ours: Value = serde_json::from_str(&body(&headers, reader)).expect("JSON");
        assert_eq!(ours, recorded["body"], "{name}");
    }
}

#[test]
fn error_responses_are_equal() {
    let server = server();
    server.set_revision(113);
    let recorded = recording("list-rv-in-future.json");
    let (code, headers, reader) = get(&server, recorded["request"].as_str().expect("a request"));
    assert_eq!((code, headers["retry-after"].as_str()), (504, "1"));
    assert_eq!(serde_json::from_str::<Value>(&body(&headers, reader)).expect("JSON"), recorded["body"]);

    server.require_token("secret");
    let recorded = recording("list-401.json");
    let (code, headers, reader) = get(&server, "GET /api/v1/services");
    assert_eq!(code, 401);
    assert_eq!(serde_json::from_str::<Value>(&body(&headers, reader)).expect("JSON"), recorded["body"]);
}

/// Replays a recorded watch: makes each recorded change, and compares the events.
fn replay(name: &str, server: &ApiServer, plural: &str) {
    let (request, expected) = watch_recording(name);
    let (code, headers, reader) = get(server, &request);
    assert_eq!((code, headers["transfer-encoding"].as_str()), (200, "chunked"), "{name}");
    let mut changes = expected.iter().skip_while(|event| {
        // Objects from before the request exist already.
        let revision =
            event["object"]["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok());
        revision.is_none_or(|revision: u64| revision <= 86)
    });
    for event in changes.by_ref() {
        let object = &event["object"];
        let revision = object["metadata"]["resourceVersion"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .expect("a revision");
        match event["type"].as_str().expect("a type") {
            "DELETED" => {
                let metadata = &object["metadata"];
                let name = format!(
                    "{}/{}",
                    metadata["namespace"].as_str().expect("it has one"),
                    metadata["name"].as_str().expect("it has one")
                );
                server.delete_recorded(plural, &name, revision);
            }
            "BOOKMARK" => {
                server.set_revision(revision);
                server.bookmark_now();
            }
            _ => {
                server.apply_recorded(object.clone());
            }
        }
    }
    server.close_all();
    let body = body(&headers, reader);
    let ours: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(ours, expected, "{name}");
}

#[test]
fn watches_are_equal() {
    replay("watch-services.jsonl", &server(), "services");
    replay("watch-endpointslices.jsonl", &server(), "endpointslices");
    replay("watchlist-services.jsonl", &server(), "services");
}

#[test]
fn rejected_watches_are_equal() {
    let server = server();
    server.set_streaming(Streaming::EtcdTooOld);
    replay("watchlist-services-unsupported.jsonl", &server, "services");
    server.set_revision(125);
    server.compact();
    replay("watch-services-rv-expired.jsonl", &server, "services");
    replay("watch-services-rv-in-future.jsonl", &server, "services");
}
