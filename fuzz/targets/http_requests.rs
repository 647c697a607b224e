//! Requests to the health and metrics servers.

use std::cell::OnceCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portcullis::config::ProxyMode;
use portcullis::moment::Moment;
use portcullis::observe::health::{Health, Limits};
use portcullis::observe::http::{Addresses, ConnectionLimits, Diagnostics, Servers, ServiceTraffic};
use portcullis::observe::metrics::Metrics;
use portcullis::source::EventRecorder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// The longest response to one request: the metrics.
const LONGEST_RESPONSE: usize = 200_000;

thread_local! {
    static SERVER: OnceCell<Server> = const { OnceCell::new() };
}

struct Server {
    runtime: Runtime,
    addresses: [SocketAddr; 2],
    _servers: Servers,
    _stop: watch::Sender<bool>,
}

impl Server {
    fn start() -> Server {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (stop, stopped) = watch::channel(false);
        let any_port = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let addresses = Addresses { healthz: any_port, metrics: any_port, page: None, hard_fail: true };
        let limits = Limits::new(Duration::from_secs(30), true);
        let diagnostics = Diagnostics {
            proxy_mode: "nftables",
            configuration: "{}".to_owned(),
            flags: Vec::new(),
            started: Moment::now(),
            version: "0.0.0",
            service_traffic: ServiceTraffic::channel().0,
        };
        let recorder = EventRecorder::disabled();
        let servers = runtime.block_on(async {
            let servers = Servers::start(
                addresses,
                ConnectionLimits::for_descriptors(1_024),
                Arc::new(Health::new(limits, Moment::now(), Arc::default())),
                Metrics::new(ProxyMode::Nftables),
                diagnostics,
                stopped,
                &recorder,
            );
            let servers = servers.await.unwrap();
            while servers.healthz_address().is_none() || servers.metrics_address().is_none() {
                tokio::task::yield_now().await;
            }
            servers
        });
        let addresses = [servers.healthz_address().unwrap(), servers.metrics_address().unwrap()];
        Server { runtime, addresses, _servers: servers, _stop: stop }
    }
}

/// Sends bytes to a server, and reads its responses until it closes the connection.
pub(crate) fn serve(input: &[u8]) {
    SERVER.with(|server| {
        let server = server.get_or_init(Server::start);
        for address in server.addresses {
            let received = server.runtime.block_on(async {
                let mut stream = TcpStream::connect(address).await.unwrap();
                // The server may close the connection before it has read everything.
                let _ = stream.write_all(input).await;
                let _ = stream.shutdown().await;
                let mut received = Vec::new();
                let _ = stream.read_to_end(&mut received).await;
                received
            });
            assert!(received.is_empty() || received.starts_with(b"HTTP/1."), "{}", received.escape_ascii());
            let requests = input.split(|byte| *byte == b'\n').count();
            assert!(received.len() <= requests * LONGEST_RESPONSE, "{} bytes were received", received.len());
        }
    });
}
