//! HTTP/1 server on a listener, with graceful shutdown.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Stop signal: true once the servers must stop. A dropped sender means the same.
pub type Stop = watch::Receiver<bool>;

/// Time limit for a request head, and for an idle connection.
const HEAD_LIMIT: Duration = Duration::from_secs(30);

/// Time limit for responses in progress after the stop signal.
const GRACE: Duration = Duration::from_secs(2);

/// Pause after a failed `accept`, which would fail again immediately, for example with too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Waits for the stop signal.
pub(crate) async fn stopped(stop: &mut Stop) {
    // An error means that the sender was dropped.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Serves requests until the stop signal, and finishes the responses in progress. If the future is
/// dropped, the listener and all connections are closed.
pub(crate) async fn serve(listener: TcpListener, router: Router, mut stop: Stop) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            stream = accept(&listener) => {
                connections.spawn(serve_connection(stream, router.clone(), stop.clone()));
            }
            Some(_) = connections.join_next() => {}
            () = stopped(&mut stop) => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, router: Router, mut stop: Stop) {
    // Header names in title case, as in Go, for clients that compare them case-sensitively.
    let connection = http1::Builder::new()
        .title_case_headers(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stopped(&mut stop) => None,
    };
    let ended = match ended {
        Some(ended) => Some(ended),
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(GRACE, connection).await.ok()
        }
    };
    if let Some(Err(error)) = ended {
        tracing::debug!("an HTTP connection ended early: {error}");
    }
}
