//! HTTP/1 server on a listener, with limits and graceful shutdown.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::connection::ObservedStream;
use super::connection_pool::{AdmittedConnection, ConnectionPool};

/// Stop signal: true once the servers must stop. A dropped sender means the same.
pub type Stop = watch::Receiver<bool>;

/// The largest head of a request, in bytes. A larger one is answered with 431. The body of a request is not read.
const MAX_HEAD: usize = 16 << 10;

/// Time limit for responses in progress after the stop signal.
const GRACE: Duration = Duration::from_secs(2);

/// Pause after a failed `accept`, which would fail again immediately, for example with too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Waits for the stop signal.
pub(crate) async fn stopped(stop: &mut Stop) {
    // An error means that the sender was dropped.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Serves requests until the stop signal, and finishes the responses in progress. If the future is
/// dropped, the listener and all connections are closed.
pub(crate) async fn serve(listener: TcpListener, router: Router, pool: Arc<ConnectionPool>, mut stop: Stop) {
    let mut connections = JoinSet::new();
    loop {
        // Admission is not cancelled when another connection ends, as the stream would be lost.
        let admitted = async {
            let (stream, peer) = accept(&listener, &pool).await;
            (stream, pool.admit(peer).await)
        };
        let (stream, admitted) = tokio::select! {
            admitted = admitted => admitted,
            () = stopped(&mut stop) => break,
        };
        connections.spawn(serve_connection(stream, router.clone(), admitted, stop.clone()));
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept(listener: &TcpListener, pool: &ConnectionPool) -> (TcpStream, IpAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer.ip().to_canonical()),
            Err(error) => {
                pool.accept_failed(&error);
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves a connection to its end. `admitted` is dropped last, after the stream is closed.
async fn serve_connection(stream: TcpStream, router: Router, admitted: AdmittedConnection, mut stop: Stop) {
    let connection = Arc::clone(&admitted.connection);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request| {
        connection.request_received();
        let response = router.call(request);
        let connection = &connection;
        async move {
            let response = response.await;
            connection.response_ready();
            response
        }
    });
    // Header names in title case, as in Go, for clients that compare them case-sensitively.
    let http = http1::Builder::new()
        .title_case_headers(true)
        .max_buf_size(MAX_HEAD)
        // `Connection::must_close` has the time limits.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(ObservedStream::new(stream, &connection)), service);
    let mut http = std::pin::pin!(http);
    let ended = tokio::select! {
        ended = http.as_mut() => Some(ended),
        reason = connection.must_close() => {
            admitted.close(reason);
            return;
        }
        () = stopped(&mut stop) => None,
    };
    let ended = match ended {
        Some(ended) => Some(ended),
        None => {
            http.as_mut().graceful_shutdown();
            timeout(GRACE, http).await.ok()
        }
    };
    if let Some(Err(error)) = ended {
        tracing::debug!("an HTTP connection ended early: {error}");
    }
}
