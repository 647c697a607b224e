//! Parts that the running daemon provides: documents of its local API, and its HTTP endpoints.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::part::{MAX_PART, Part, PartBuffer, PartError};
use crate::config::Config;

/// The time that the daemon has to respond; a stuck one must not delay the other parts for long.
const RESPONSE_LIMIT: Duration = Duration::from_secs(5);

/// Paths of the metrics server.
const METRICS_PATHS: [(&str, &str, &str); 6] = [
    ("/metrics", "daemon/metrics.txt", "metrics of the daemon"),
    ("/metrics/services", "daemon/metrics-services.txt", "metrics of each Service port"),
    ("/proxyMode", "daemon/proxy-mode.txt", "proxy mode of the daemon"),
    ("/configz", "daemon/configz.json", "configuration of the daemon"),
    ("/flagz", "daemon/flagz.txt", "flags of the daemon"),
    ("/statusz", "daemon/statusz.txt", "version and uptime of the daemon"),
];

/// Paths of the health server.
const HEALTH_PATHS: [(&str, &str, &str); 2] = [
    ("/healthz", "daemon/healthz.json", "health of the daemon, with its problems"),
    ("/livez", "daemon/livez.json", "liveness of the daemon"),
];

/// Returns the parts of the HTTP endpoints.
pub(super) fn http_parts(config: &Config) -> Vec<Part> {
    let metrics = endpoint(config.metrics_bind_address, "metricsBindAddress", &METRICS_PATHS);
    metrics
        .into_iter()
        .chain(endpoint(config.healthz_bind_address, "healthzBindAddress", &HEALTH_PATHS))
        .collect()
}

/// Returns the parts of one server.
fn endpoint(
    address: Option<SocketAddr>,
    setting: &'static str,
    paths: &'static [(&'static str, &'static str, &'static str)],
) -> Vec<Part> {
    let is_silent = Arc::new(AtomicBool::new(false));
    let part = |(path, name, description): &(&'static str, &'static str, &'static str)| {
        let (path, is_silent) = (*path, Arc::clone(&is_silent));
        Part::new(*name, description, move |out| {
            let Some(address) = address.map(local_address) else {
                return Err(PartError::NotApplicable(format!("{setting} is empty")));
            };
            if is_silent.load(Relaxed) {
                return Err(PartError::Failed(format!("{address} did not respond to an earlier request")));
            }
            get(address, path, out).map_err(|error| match error {
                GetError::Timeout => {
                    is_silent.store(true, Relaxed);
                    let seconds = RESPONSE_LIMIT.as_secs();
                    PartError::Failed(format!("http://{address}{path}: no response within {seconds} s"))
                }
                GetError::NotFound => {
                    PartError::NotApplicable(format!("http://{address}{path}: 404 Not Found"))
                }
                GetError::Failed(reason) => PartError::Failed(format!("http://{address}{path}: {reason}")),
            })
        })
    };
    paths.iter().map(part).collect()
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

/// Why there is no response.
enum GetError {
    Timeout,
    NotFound,
    Failed(String),
}

impl From<io::Error> for GetError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => GetError::Timeout,
            _ => GetError::Failed(error.to_string()),
        }
    }
}

/// Requests a path, and writes the body of the response. A response with an error status is written too, as `/healthz` has one.
fn get(address: SocketAddr, path: &str, out: &mut PartBuffer) -> Result<(), GetError> {
    let until = Instant::now() + RESPONSE_LIMIT;
    let mut stream = TcpStream::connect_timeout(&address, RESPONSE_LIMIT)?;
    stream.set_write_timeout(Some(RESPONSE_LIMIT))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let (mut bytes, mut chunk) = (Vec::new(), vec![0; 64 * 1024]);
    while bytes.len() <= MAX_PART {
        let left = until.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match stream.read(&mut chunk)? {
            0 => break,
            length => bytes.extend_from_slice(&chunk[..length]),
        }
    }
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let head = head.ok_or_else(|| GetError::Failed("the response is not HTTP".to_owned()))?;
    if String::from_utf8_lossy(&bytes[..head]).split(' ').nth(1) == Some("404") {
        return Err(GetError::NotFound);
    }
    Ok(out.write_all(&bytes[head + 4..])?)
}
