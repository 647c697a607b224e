//! Listener of a Service's health check port.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use portcullis_cluster::{Family, NamespacedName};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::desired_ports::ServiceHealthCheck;
use super::response::response;
use crate::moment::Moment;
use crate::observe::health::Health;
use crate::observe::http::connection_pool::ConnectionPool;
use crate::observe::http::serve::serve;

/// Listen backlog, as in Rust's standard library.
const BACKLOG: i32 = 128;

/// A health check port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListenError {
    /// Another program listens on the port.
    #[error("another program listens on {0}; find it with `ss -ltnp`")]
    InUse(SocketAddr),
    /// Another I/O error.
    #[error("cannot listen on {0}: {1}")]
    Other(SocketAddr, io::Error),
    /// No node address serves NodePorts in an IP family of the Service.
    #[error("the node has no address for NodePorts in the Service's IP family")]
    NoAddress,
}

/// The open port of a Service, on the node addresses of its IP families.
pub(super) struct Listener {
    port: u16,
    addresses: Vec<SocketAddr>,
    local_endpoints: BTreeMap<Family, Arc<AtomicUsize>>,
    tasks: JoinSet<()>,
    /// Stops the connections when it is dropped.
    _stop: watch::Sender<bool>,
}

impl Listener {
    /// Opens the port on all addresses or none, and serves requests.
    pub(super) fn open(
        service: &NamespacedName,
        check: &ServiceHealthCheck,
        addresses: &[IpAddr],
        health: &Arc<Health>,
        pool: &Arc<ConnectionPool>,
    ) -> Result<Self, ListenError> {
        let (sender, stop) = watch::channel(false);
        let mut listener = Listener {
            port: check.port.get(),
            addresses: bind_addresses(check, addresses),
            local_endpoints: BTreeMap::new(),
            tasks: JoinSet::new(),
            _stop: sender,
        };
        if listener.addresses.is_empty() {
            return Err(ListenError::NoAddress);
        }
        listener.local_endpoints = check
            .local_endpoints
            .iter()
            .map(|(family, n)| (*family, Arc::new(AtomicUsize::new(*n))))
            .collect();
        let sockets = listener.addresses.iter().map(|address| listen(*address));
        for (socket, address) in sockets.collect::<Result<Vec<_>, _>>()?.into_iter().zip(&listener.addresses)
        {
            let count = Arc::clone(&listener.local_endpoints[&Family::from_address(address.ip())]);
            let (service, health) = (service.clone(), Arc::clone(health));
            let router = Router::new().fallback(async move || {
                let in_sync = health.status(Moment::now()).in_sync();
                response(&service, count.load(Ordering::Relaxed), in_sync)
            });
            listener.tasks.spawn(serve(socket, router, Arc::clone(pool), stop.clone()));
        }
        Ok(listener)
    }

    /// Returns the number of sockets that listen.
    pub(super) fn sockets(&self) -> usize {
        self.addresses.len()
    }

    /// Returns the port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Returns true if this listener can serve the check, after updating the counts.
    pub(super) fn serves(&self, check: &ServiceHealthCheck, addresses: &[IpAddr]) -> bool {
        check.node_port_of.is_none()
            && self.addresses == bind_addresses(check, addresses)
            && self.local_endpoints.keys().eq(check.local_endpoints.keys())
    }

    /// Sets the endpoint counts.
    pub(super) fn set_counts(&self, check: &ServiceHealthCheck) {
        for (family, count) in &self.local_endpoints {
            let now = check.local_endpoints.get(family).copied().unwrap_or_default();
            count.store(now, Ordering::Relaxed);
        }
    }

    /// Closes the port and all connections to it, and returns when the port is free.
    pub(super) async fn close(mut self) {
        self.tasks.shutdown().await;
    }
}

fn bind_addresses(check: &ServiceHealthCheck, addresses: &[IpAddr]) -> Vec<SocketAddr> {
    let served =
        addresses.iter().filter(|ip| check.local_endpoints.contains_key(&Family::from_address(**ip)));
    served.map(|ip| SocketAddr::new(*ip, check.port.get())).collect()
}

fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    open_socket(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse(address),
        _ => ListenError::Other(address, error),
    })
}

fn open_socket(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `::` in addition to `0.0.0.0`, not instead of it.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
