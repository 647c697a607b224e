//! Other proxies that run on this node, by what they answer.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde::Serialize;

use crate::config::Config;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// As much of an answer is read. Metrics begin with those of the program itself.
const READ: u64 = 1 << 20;

/// A proxy that answers.
#[derive(Debug, Serialize)]
pub(crate) struct Proxy {
    /// Where it answers.
    pub(crate) address: SocketAddr,
    /// Its name, where its metrics tell.
    pub(crate) name: &'static str,
    /// Its mode, where it says so.
    pub(crate) mode: Option<String>,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answers on {}", self.name, self.address)?;
        self.mode.iter().try_for_each(|mode| write!(f, " in {mode} mode"))
    }
}

/// Asks where a proxy of this configuration has its metrics and health, which is where kube-proxy has them. One that
/// answers at both is told once.
pub(crate) fn running(config: &Config) -> Vec<Proxy> {
    let metrics = config.metrics_bind_address.map(from_here).and_then(|address| {
        let mode = get(address, "/proxyMode").ok()?;
        let told = get(address, "/metrics").unwrap_or_default();
        let name = match () {
            () if told.contains("portcullis_") => "portcullis",
            () if told.contains("kubeproxy_") => "kube-proxy",
            () => "something",
        };
        let mode = ["iptables", "ipvs", "nftables"].into_iter().find(|known| mode.trim() == *known);
        Some(Proxy { address, name, mode: mode.map(str::to_owned) })
    });
    let health = || {
        let address = config.healthz_bind_address.map(from_here)?;
        get(address, "/healthz").ok()?;
        Some(Proxy { address, name: "something", mode: None })
    };
    metrics.or_else(health).into_iter().collect()
}

/// The address by which this machine reaches what listens on an address.
fn from_here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The body of an answer.
fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.take(READ).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
}
