//! Limits of connections: clients that open many, send slowly, or send too much.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use portcullis::config::ProxyMode;
use portcullis::observe::http::ConnectionLimits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::client::get;
use crate::proxy::Proxy;

/// Generous time limit for anything that the servers do within 5 s.
const PATIENCE: Duration = Duration::from_secs(60);

const LIMITS: ConnectionLimits = ConnectionLimits {
    health: 8,
    metrics: 4,
    page: 4,
    local_api: 1,
    health_check_node_ports: 4,
    listeners: 4,
};

/// The head of a request without its end.
const HALF_HEAD: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\n";

async fn proxy() -> Proxy {
    Proxy::listening_with(ProxyMode::Nftables, "{}", LIMITS).await
}

/// Connects from another loopback address, as another peer.
async fn connect_from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
    socket.bind(SocketAddr::new(from, 0)).expect("an address of the loopback interface");
    socket.connect(to).await.expect("it listens")
}

/// Opens connections with the half of a request.
async fn half_open(from: u8, to: SocketAddr, number: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..number {
        let mut stream = connect_from(from, to).await;
        // The server may have closed it.
        drop(stream.write_all(HALF_HEAD).await);
        streams.push(stream);
    }
    streams
}

/// Sends a request on a connection that stays open, and returns the status line.
async fn request(stream: &mut TcpStream, path: &str) -> String {
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("the connection is open");
    read_status(stream).await
}

async fn read_status(stream: &mut TcpStream) -> String {
    let mut response = vec![0; 1 << 16];
    let read = timeout(PATIENCE, stream.read(&mut response)).await.expect("a response in time");
    let length = read.expect("the connection is open");
    let text = String::from_utf8_lossy(&response[..length]).into_owned();
    text.lines().next().unwrap_or_default().to_owned()
}

/// Waits until the server closes a connection.
async fn until_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is also an end.
    drop(timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the server closes it"));
}

/// Returns the value of a series.
fn series(proxy: &Proxy, name: &str) -> f64 {
    let text = proxy.metrics.render().expect("metrics");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in\n{text}"))
}

fn open(proxy: &Proxy, server: &str) -> f64 {
    series(proxy, &format!("portcullis_http_connections{{server=\"{server}\"}}"))
}

fn rejected(proxy: &Proxy, server: &str, reason: &str) -> f64 {
    series(
        proxy,
        &format!("portcullis_http_connections_rejected_total{{reason=\"{reason}\",server=\"{server}\"}}"),
    )
}

#[tokio::test]
async fn half_open_connections_beyond_the_limit_are_closed_and_requests_are_served() {
    let proxy = proxy().await;
    for (server, port, path, limit) in
        [("healthz", proxy.health_port(), "/livez", 8.0), ("metrics", proxy.metrics_port(), "/metrics", 4.0)]
    {
        // The client is the same peer as the one with all these connections.
        let streams = half_open(1, port, 100).await;
        let response = get(port, path).await.expect("a response during the flood");
        assert_eq!(response.status, 200, "{server}");
        assert!(open(&proxy, server) <= limit, "{server}: {}", open(&proxy, server));
        assert!(rejected(&proxy, server, "limit") >= 100.0 - limit, "{server}");
        drop(streams);
    }
}

#[tokio::test]
async fn flood_of_one_peer_closes_no_connection_of_another() {
    let proxy = proxy().await;
    let port = proxy.health_port();
    let mut other = connect_from(2, port).await;
    assert_eq!(request(&mut other, "/livez").await, "HTTP/1.1 200 OK");
    let _streams = half_open(3, port, 100).await;
    let _metrics_streams = half_open(3, proxy.metrics_port(), 100).await;
    assert_eq!(request(&mut other, "/livez").await, "HTTP/1.1 200 OK", "it was idle for the longest time");
    assert_eq!(get(port, "/healthz").await.expect("a response of a new peer").status, 200);
    assert_eq!(request(&mut other, "/livez").await, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn clients_that_send_no_complete_request_in_time_are_closed_and_idle_ones_are_not() {
    let proxy = proxy().await;
    let port = proxy.health_port();
    let mut idle = connect_from(2, port).await;
    assert_eq!(request(&mut idle, "/livez").await, "HTTP/1.1 200 OK");
    let start = Instant::now();
    let mut silent = connect_from(3, port).await;
    let mut half = half_open(4, port, 1).await.remove(0);
    let mut half_after_a_request = connect_from(5, port).await;
    assert_eq!(request(&mut half_after_a_request, "/livez").await, "HTTP/1.1 200 OK");
    half_after_a_request.write_all(HALF_HEAD).await.expect("the connection is open");
    let (mut trickle, mut trickling) = connect_from(6, port).await.into_split();
    let trickler = tokio::spawn(async move {
        // A complete head would take minutes.
        for byte in HALF_HEAD.iter().cycle() {
            if trickling.write_all(&[*byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(500)).await;
        }
    });
    for stream in [&mut silent, &mut half, &mut half_after_a_request] {
        until_closed(stream).await;
    }
    let mut rest = Vec::new();
    drop(timeout(PATIENCE, trickle.read_to_end(&mut rest)).await.expect("the server closes it"));
    assert!(start.elapsed() >= Duration::from_secs(4), "they had {:?}", start.elapsed());
    assert_eq!(rejected(&proxy, "healthz", "timeout"), 4.0);
    assert_eq!(request(&mut idle, "/livez").await, "HTTP/1.1 200 OK", "it is kept for the next request");
    trickler.abort();
}

#[tokio::test]
async fn large_heads_are_rejected_and_bodies_are_not_read() {
    let proxy = proxy().await;
    let header = format!("X-Long: {}\r\n", "x".repeat(64 << 10));
    let many: String = (0..1_000).map(|i| format!("X-{i}: y\r\n")).collect();
    let path = format!("/{}", "p".repeat(64 << 10));
    let rows = [
        ("a long header", format!("GET /livez HTTP/1.1\r\nHost: x\r\n{header}\r\n"), "HTTP/1.1 431 "),
        ("many headers", format!("GET /livez HTTP/1.1\r\nHost: x\r\n{many}\r\n"), "HTTP/1.1 431 "),
        ("a long path", format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 4"),
        (
            "a body of a terabyte",
            "POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n".to_owned(),
            "HTTP/1.1 200 ",
        ),
        (
            "a body without end",
            "POST /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n".to_owned(),
            "HTTP/1.1 200 ",
        ),
        ("no HTTP", "\u{0}\u{1}\u{2}\r\n\r\n".to_owned(), "HTTP/1.1 400 "),
    ];
    for (case, head, expected) in rows {
        let mut stream = TcpStream::connect(proxy.health_port()).await.expect("it listens");
        // The server may respond, and close, before everything is sent.
        drop(stream.write_all(head.as_bytes()).await);
        let status = read_status(&mut stream).await;
        assert!(status.starts_with(expected), "{case}: {status:?}");
        let filler = vec![b'x'; 1 << 16];
        let mut sent = 0_usize;
        while let Ok(Ok(())) = timeout(PATIENCE, stream.write_all(&filler)).await {
            sent += filler.len();
            assert!(sent < 1 << 30, "{case}: the server reads on");
        }
    }
    let wait = Instant::now();
    while open(&proxy, "healthz") > 0.0 {
        assert!(wait.elapsed() < PATIENCE, "connections stay open");
        sleep(Duration::from_millis(50)).await;
    }
}
