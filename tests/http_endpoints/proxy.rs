//! Tests of the health and metrics servers.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portcullis::config::ProxyMode;
use portcullis::moment::Moment;
use portcullis::observe::health::{Health, Limits};
use portcullis::observe::http::{
    Addresses, BindError, ConnectionLimits, Diagnostics, Servers, ServiceTraffic,
};
use portcullis::observe::metrics::Metrics;
use portcullis::source::EventRecorder;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::client::{Response, get};
use crate::service_syncs;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The servers of a proxy.
pub(crate) struct Proxy {
    health: Arc<Health>,
    pub(crate) metrics: Metrics,
    servers: Servers,
    stop: watch::Sender<bool>,
}

impl Proxy {
    async fn start(mode: ProxyMode, configuration: &str, addresses: Addresses) -> Result<Proxy, BindError> {
        let connections = ConnectionLimits::for_descriptors(1_024);
        Proxy::with_limits(mode, configuration, addresses, connections).await
    }

    async fn with_limits(
        mode: ProxyMode,
        configuration: &str,
        addresses: Addresses,
        connections: ConnectionLimits,
    ) -> Result<Proxy, BindError> {
        let limits = Limits::new(Duration::from_secs(30), true);
        let health = Arc::new(Health::new(limits, Moment::now(), Arc::default()));
        let diagnostics = Diagnostics {
            proxy_mode: mode.name(),
            configuration: configuration.to_owned(),
            flags: vec![("bind-address".into(), "0.0.0.0".into()), ("config".into(), String::new())],
            started: Moment::now(),
            version: "9.9.9",
            service_traffic: ServiceTraffic::channel().0,
        };
        let (stop, stopped) = watch::channel(false);
        let metrics = Metrics::new(mode);
        let servers = Servers::start(
            addresses,
            connections,
            health.clone(),
            metrics.clone(),
            diagnostics,
            stopped,
            &EventRecorder::disabled(),
        )
        .await?;
        Ok(Proxy { health, metrics, servers, stop })
    }

    pub(crate) fn health_port(&self) -> SocketAddr {
        self.servers.healthz_address().expect("it listens")
    }

    pub(crate) fn metrics_port(&self) -> SocketAddr {
        self.servers.metrics_address().expect("it listens")
    }

    /// Starts a proxy and waits until both servers listen.
    async fn listening(mode: ProxyMode, configuration: &str) -> Proxy {
        Proxy::listening_with(mode, configuration, ConnectionLimits::for_descriptors(1_024)).await
    }

    /// The same with these limits of connections.
    pub(crate) async fn listening_with(
        mode: ProxyMode,
        configuration: &str,
        limits: ConnectionLimits,
    ) -> Proxy {
        let addresses =
            Addresses { healthz: Some(ANY_PORT), metrics: Some(ANY_PORT), page: None, hard_fail: true };
        let proxy = Self::with_limits(mode, configuration, addresses, limits).await.expect("free ports");
        while proxy.servers.healthz_address().is_none() || proxy.servers.metrics_address().is_none() {
            sleep(Duration::from_millis(5)).await;
        }
        proxy
    }
}

fn recorded() -> serde_json::Map<String, Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/kube-proxy/endpoints.json");
    let text = std::fs::read_to_string(path).expect("the recording is there");
    serde_json::from_str(&text).expect("it is JSON")
}

/// Returns a body with timestamps replaced; for `/statusz` and `/flagz`, whose content depends on the program, only
/// the header.
fn comparable(path: &str, body: &str) -> String {
    match path {
        "/statusz" => body.split("Started:").next().expect("a first part").to_owned(),
        "/flagz" => body.split("bind-address").next().expect("a first part").to_owned(),
        "/healthz" | "/livez" => {
            let parts = body.split('"').map(|part| if is_time(part) { "TIME" } else { part });
            parts.collect::<Vec<_>>().join("\"")
        }
        _ => body.to_owned(),
    }
}

/// Returns true for a timestamp as formatted by Go: `2026-11-21T05:00:22.769Z`.
fn is_time(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let fraction = shape.strip_prefix("0000-00-00T00:00:00").and_then(|rest| rest.strip_suffix('Z'));
    fraction.is_some_and(|fraction| {
        fraction.is_empty() || (fraction.starts_with('.') && fraction[1..].chars().all(|c| c == '0'))
    })
}

#[tokio::test]
async fn responses_equal_the_recorded_ones_of_kube_proxy() {
    let recorded = recorded();
    for mode in [ProxyMode::Iptables, ProxyMode::Nftables] {
        let configz = recorded[&format!("{} 10249/configz", mode.name())]["body"].as_str().expect("a body");
        let configuration = configz.strip_prefix(r#"{"kubeproxy.config.k8s.io":"#).expect("its head");
        let proxy = Proxy::listening(mode, configuration.strip_suffix('}').expect("its end")).await;
        service_syncs::succeeded(&proxy.health);
        let of_mode = recorded.iter().filter_map(|(k, v)| Some((k.strip_prefix(mode.name())?.trim(), v)));
        let mut seen = 0;
        for (place, expected) in of_mode {
            let (port, path) = place.split_at(place.find('/').expect("a path"));
            let address = if port == "10256" { proxy.health_port() } else { proxy.metrics_port() };
            let response = get(address, path).await.expect("a response");
            let found = comparable(path, &response.body);
            assert_eq!(found, comparable(path, expected["body"].as_str().expect("a body")), "{place}");
            assert_eq!(u64::from(response.status), expected["status"].as_u64().expect("a status"), "{place}");
            for name in ["Content-Type", "X-Content-Type-Options"] {
                assert_eq!(response.header(name), expected["headers"][name].as_str(), "{place} {name}");
            }
            seen += 1;
        }
        assert_eq!(seen, 12, "{mode:?}");
    }
}

#[tokio::test]
async fn health_fails_when_a_sync_fails_and_metrics_count_the_responses() {
    let proxy = Proxy::listening(ProxyMode::Iptables, "{}").await;
    let statuses = async || {
        let mut statuses = Vec::new();
        for path in ["/healthz", "/livez"] {
            statuses.push(get(proxy.health_port(), path).await.expect("a response").status);
        }
        statuses
    };
    service_syncs::succeeded(&proxy.health);
    assert_eq!(statuses().await, [200, 200]);
    service_syncs::failed(&proxy.health, "iptables-restore failed");
    assert_eq!(statuses().await, [503, 200]);
    service_syncs::failed_ago(&proxy.health, "iptables-restore failed", Duration::from_secs(15));
    assert_eq!(statuses().await, [503, 503]);
    service_syncs::succeeded(&proxy.health);
    proxy.health.set_node_eligible(false);
    assert_eq!(statuses().await, [503, 200]);

    let Response { status, body, headers } = get(proxy.metrics_port(), "/metrics").await.expect("a response");
    assert_eq!((status, headers["Content-Type"].as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "kubeproxy_proxy_healthz_total{code=\"200\"} 1",
        "kubeproxy_proxy_healthz_total{code=\"503\"} 3",
        "kubeproxy_proxy_livez_total{code=\"200\"} 3",
        "kubeproxy_proxy_livez_total{code=\"503\"} 1",
    ] {
        assert!(body.lines().any(|found| found == line), "{line} is not in\n{body}");
    }
}

#[tokio::test]
async fn an_address_in_use_is_an_error_or_retried() {
    let other_program = TcpListener::bind(ANY_PORT).await.expect("a free port");
    let address = other_program.local_addr().expect("it is bound");
    let addresses = |hard_fail| Addresses { healthz: Some(address), metrics: None, page: None, hard_fail };

    let error =
        Proxy::start(ProxyMode::Iptables, "{}", addresses(true)).await.err().expect("the address is in use");
    let message = error.to_string();
    assert!(message.contains(&address.to_string()), "{message}");
    assert!(message.contains("--healthz-bind-address"), "{message}");

    let proxy = Proxy::start(ProxyMode::Iptables, "{}", addresses(false)).await.expect("the servers retry");
    assert_eq!(proxy.servers.healthz_address(), None);
    drop(other_program);
    crate::client::until(address, "/healthz", |response| response.as_ref().is_ok_and(|a| a.status == 200))
        .await;
    assert_eq!(proxy.servers.healthz_address(), Some(address));
    assert_eq!(proxy.servers.metrics_address(), None);
}

#[tokio::test]
async fn a_connection_serves_several_requests_and_is_closed_by_the_stop_signal() {
    let proxy = Proxy::listening(ProxyMode::Iptables, "{}").await;
    let address = proxy.health_port();
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    for _ in 0..2 {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it reads");
        let mut response = [0; 4096];
        let length = stream.read(&mut response).await.expect("it answers");
        assert!(response[..length].starts_with(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"));
    }
    proxy.stop.send(true).expect("it waits for it");
    timeout(Duration::from_secs(5), proxy.servers.stopped()).await.expect("it stops");
    assert_eq!(stream.read(&mut [0; 1]).await.expect("the end"), 0, "the idle connection is closed");
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
}
