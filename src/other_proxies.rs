//! Detection of other service proxies on this node, by their HTTP endpoints.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde::Serialize;

use crate::config::Config;

/// The timeout of connecting, reading and writing.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The longest response that is read, in bytes. Metrics begin with those of the program itself.
const MAX_RESPONSE: u64 = 1 << 20;

/// A proxy that responded.
#[derive(Debug, Serialize)]
pub(crate) struct RunningProxy {
    /// The address of the endpoint.
    pub(crate) address: SocketAddr,
    /// Its name, from its metrics.
    pub(crate) name: &'static str,
    /// Its mode, if it is known.
    pub(crate) mode: Option<String>,
}

impl fmt::Display for RunningProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is listening on {}", self.name, self.address)?;
        self.mode.iter().try_for_each(|mode| write!(f, " in {mode} mode"))
    }
}

/// Sends requests to the metrics and health addresses of the configuration, which are kube-proxy's by default. A proxy that
/// responds at both is returned once.
pub(crate) fn detect(config: &Config) -> Vec<RunningProxy> {
    let metrics = config.metrics_bind_address.map(local_address).and_then(|address| {
        let mode = get(address, "/proxyMode").ok()?;
        let text = get(address, "/metrics").unwrap_or_default();
        let name = match () {
            () if text.contains("portcullis_") => "portcullis",
            () if text.contains("kubeproxy_") => "kube-proxy",
            () => "another program",
        };
        let mode = ["iptables", "ipvs", "nftables"].into_iter().find(|known| mode.trim() == *known);
        Some(RunningProxy { address, name, mode: mode.map(str::to_owned) })
    });
    let health = || {
        let address = config.healthz_bind_address.map(local_address)?;
        get(address, "/healthz").ok()?;
        Some(RunningProxy { address, name: "another program", mode: None })
    };
    metrics.or_else(health).into_iter().collect()
}

/// Returns the address to connect to for a bind address.
fn local_address(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Requests a path and returns the body of the response.
fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.take(MAX_RESPONSE).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
}
