//! Serves HTTP/1 on a listener until told to stop.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// True once it is time to stop. A sender that is gone means the same.
pub type Stop = watch::Receiver<bool>;

/// How long a client may take to send a request's head, and may keep an idle connection.
const HEAD_LIMIT: Duration = Duration::from_secs(30);

/// How long an answer may take when it is time to stop.
const GRACE: Duration = Duration::from_secs(2);

/// After an error that another attempt at once would meet again, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Returns when it is time to stop.
pub(crate) async fn stopped(stop: &mut Stop) {
    // An error is a sender that is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Answers what comes in. Returns when it is time to stop and the answers under way are given. If it is
/// dropped, the listener and all connections close.
pub(crate) async fn serve(listener: TcpListener, router: Router, mut stop: Stop) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            stream = accept(&listener) => {
                connections.spawn(converse(stream, router.clone(), stop.clone()));
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
                tracing::warn!("a connection could not be accepted: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, router: Router, mut stop: Stop) {
    // Headers are spelled as Go spells them, for clients that are picky against the standard.
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
