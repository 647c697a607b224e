//! The table of faults of API servers, and of what is between them and the node.

use std::time::Duration;

use crate::api_server::Fault;
use crate::api_server::fault_proxy::{End, ProxyFault};

/// A kind of broken API server.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) fault: Origin,
    /// A text in the error that the health has; empty for any error.
    pub(crate) error: &'static str,
}

/// Where a fault originates.
#[derive(Clone)]
pub(crate) enum Origin {
    /// The server responds so to all requests.
    Server(Fault),
    /// The connection breaks so.
    Connection(ProxyFault),
}

fn server(name: &'static str, fault: Fault, error: &'static str) -> Row {
    // More often than any test requests.
    Row { name, fault: Origin::Server(fault.times(usize::MAX)), error }
}

fn connection(name: &'static str, fault: ProxyFault, error: &'static str) -> Row {
    Row { name, fault: Origin::Connection(fault), error }
}

/// A connection on which every request gets these bytes.
fn bytes(name: &'static str, bytes: impl Into<Vec<u8>>, end: End, error: &'static str) -> Row {
    connection(name, ProxyFault::Respond(bytes.into(), end), error)
}

/// The head of a response in chunks.
const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A page that names itself as the next one.
const REPEATING: &str = r#"{"kind":"ServiceList","metadata":{"resourceVersion":"9","continue":"x"},"items":[{"metadata":{"name":"a","namespace":"default"}}]}"#;

/// A page that ends in the middle of an object.
const TRUNCATED: &str =
    r#"{"kind":"ServiceList","metadata":{"resourceVersion":"9"},"items":[{"metadata":{"name":"a","#;

/// The same as a watch event.
const TRUNCATED_EVENT: &str = r#"{"type":"ADDED","object":{"metadata":{"name":"a","namesp"#;

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = responses();
    rows.extend(contents());
    rows.extend(connections());
    rows.extend(protocols());
    rows
}

/// Error responses.
fn responses() -> Vec<Row> {
    let redirect = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/login\r\nContent-Length: 0\r\n\r\n";
    vec![
        server("400 bad request", Fault::status(400), "400 BadRequest"),
        server("401 unauthorized", Fault::status(401), "the credentials are not accepted"),
        server("403 forbidden", Fault::status(403), "allow this user to list and watch services"),
        server("404 for a required kind", Fault::text(404, "404 page not found"), "does not serve"),
        server("408 timeout", Fault::status(408), "408"),
        server("410 for everything", Fault::status(410), "410 Expired"),
        server("422 invalid", Fault::status(422), "422"),
        server("429 too many requests", Fault::status(429), "429 TooManyRequests"),
        server("429 with Retry-After", Fault::status(429).retry_after(1), "429 TooManyRequests"),
        server("429 with Retry-After of a year", Fault::status(429).retry_after(31_536_000), "429"),
        server("500 internal error", Fault::status(500), "500 InternalError"),
        server("502 page of a load balancer", Fault::text(502, "<html>Bad Gateway</html>"), "Bad Gateway"),
        server("503 unavailable", Fault::status(503), "503 ServiceUnavailable"),
        server("503 with Retry-After of a year", Fault::status(503).retry_after(31_536_000), "503"),
        server("504 gateway timeout", Fault::status(504), "504"),
        bytes("302 to a login page", redirect, End::Close, "302"),
    ]
}

/// Successful responses with other contents.
fn contents() -> Vec<Row> {
    let gzip = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 22\r\n\r\n\
        \x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00";
    let not_gzip = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n{}\n";
    let brotli = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: br\r\nContent-Length: 3\r\n\r\n{}\n";
    let status = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","code":500}"#;
    let nodes = r#"{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"9"},"items":[]}"#;
    vec![
        server("a web page", Fault::text(200, "<html>Log in</html>\n"), "malformed"),
        server("an empty body", Fault::text(200, ""), ""),
        server("an empty object", Fault::text(200, "{}\n"), "malformed"),
        server("an array", Fault::text(200, "[]\n"), "malformed"),
        server("a Status with code 200", Fault::text(200, status), ""),
        server("a list of another kind", Fault::text(200, nodes), ""),
        server("NUL bytes", Fault::text(200, "\0\0\0\n\0\n"), "malformed"),
        server("a truncated list", Fault::text(200, TRUNCATED), ""),
        server("a truncated event", Fault::text(200, TRUNCATED_EVENT), ""),
        server("pages that repeat", Fault::text(200, REPEATING), ""),
        bytes("gzip of an empty object", gzip, End::Close, ""),
        bytes("gzip that ends too early", &gzip[..gzip.len() - 4], End::Close, ""),
        bytes("text that is not gzip", not_gzip, End::Close, ""),
        bytes("an encoding that was not requested", brotli, End::Close, "not requested"),
    ]
}

/// Connections that break.
fn connections() -> Vec<Row> {
    let drip = Duration::from_millis(25);
    vec![
        server("no response", Fault::hang(), "no data from the API server"),
        server("interrupted before the body", Fault::interrupt(""), "interrupted"),
        server("interrupted in an event", Fault::interrupt(TRUNCATED_EVENT), "interrupted"),
        connection("closed after accept", ProxyFault::CloseOnAccept, ""),
        connection("a black hole", ProxyFault::BlackHole, "no data from the API server"),
        connection("closed in the head", ProxyFault::Cut(20, End::Close), ""),
        connection("reset in the head", ProxyFault::Cut(20, End::Reset), ""),
        connection("half-closed in the head", ProxyFault::Cut(20, End::HalfClose), ""),
        connection("silent in the head", ProxyFault::Cut(20, End::Hang), "no data"),
        connection("closed in the body", ProxyFault::Cut(140, End::Close), ""),
        connection("reset in the body", ProxyFault::Cut(140, End::Reset), ""),
        connection("half-closed in the body", ProxyFault::Cut(140, End::HalfClose), ""),
        connection("silent in the body", ProxyFault::Cut(140, End::Hang), "no data"),
        connection("a head byte by byte", ProxyFault::Drip(0, drip), "no data"),
        connection("a body byte by byte", ProxyFault::Drip(140, drip), "no data"),
        connection("a proxy that buffers watches", ProxyFault::Buffer, "no data"),
        connection("corrupt bytes in the head", ProxyFault::Corrupt(0), ""),
        connection("corrupt bytes in the body", ProxyFault::Corrupt(140), ""),
    ]
}

/// Violations of HTTP.
fn protocols() -> Vec<Row> {
    let long_head = format!("HTTP/1.1 200 OK\r\nX-Long: {}\r\n\r\n", "x".repeat(2 << 20));
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000);
    // An empty SETTINGS frame and a GOAWAY frame.
    let mut http2 = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    http2.extend([0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let length = |length: &str| {
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{{")
    };
    vec![
        bytes("no HTTP", "SSH-2.0-OpenSSH_9.6\r\n", End::Close, ""),
        bytes("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x46", End::Close, ""),
        bytes("HTTP/2 with GOAWAY", http2, End::Close, ""),
        bytes("a head of 2 MiB", long_head, End::Hang, ""),
        bytes("10,000 interim responses", interim, End::Hang, ""),
        bytes("a chunk without size", format!("{CHUNKED}ZZZ\r\n{{}}\r\n"), End::Close, ""),
        bytes("a chunk of 2^68 bytes", format!("{CHUNKED}FFFFFFFFFFFFFFFFF\r\n{{"), End::Close, ""),
        bytes("a chunk that never ends", format!("{CHUNKED}FFFFFF\r\n{{"), End::Hang, "no data"),
        bytes("chunks without an end", format!("{CHUNKED}1\r\n{{\r\n"), End::Close, ""),
        bytes("a body shorter than its length", length("1000"), End::Close, ""),
        bytes("the same, half-closed", length("1000"), End::HalfClose, ""),
        bytes("the same, silent", length("1000"), End::Hang, "no data"),
        bytes("a length that is no number", length("many"), End::Close, ""),
        bytes("two lengths", length("1000\r\nContent-Length: 7"), End::Close, ""),
    ]
}
