//! HTTP/1 server on a listener, with limits and graceful shutdown.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::connection::ObservedStream;
use super::connection_pool::{AdmittedConnection, ConnectionPool};
use super::peer::Peer;

/// Stop signal: true once the servers must stop. A dropped sender means the same.
pub type Stop = watch::Receiver<bool>;

/// The largest head of a request, in bytes. A larger one is answered with 431. The body of a request is not read.
const MAX_HEAD: usize = 16 << 10;

/// Time limit for responses in progress after the stop signal.
const GRACE: Duration = Duration::from_secs(2);

/// Pause after a failed `accept`, which would fail again immediately, for example with too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Marks a response without an end, by its extensions. Its sender must send something at least every 30 seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streamed;

/// A listener for connections of any transport.
pub(crate) trait Accept {
    /// The stream of a connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for a connection.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Peer)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        Ok((stream, Peer::Address(peer.ip().to_canonical())))
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = UnixListener::accept(self).await?;
        let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
        let process = process.and_then(|process| u32::try_from(process).ok()).unwrap_or_default();
        Ok((stream, Peer::Process(process)))
    }
}

/// Waits for the stop signal.
pub(crate) async fn stopped(stop: &mut Stop) {
    // An error means that the sender was dropped.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Serves requests until the stop signal, and finishes the responses in progress. If the future is
/// dropped, the listener and all connections are closed.
pub(crate) async fn serve<L: Accept>(listener: L, router: Router, pool: Arc<ConnectionPool>, mut stop: Stop) {
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

async fn accept<L: Accept>(listener: &L, pool: &ConnectionPool) -> (L::Stream, Peer) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                pool.accept_failed(&error);
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves a connection to its end. `admitted` is dropped last, after the stream is closed.
async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    router: Router,
    admitted: AdmittedConnection,
    mut stop: Stop,
) {
    let connection = Arc::clone(&admitted.connection);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request| {
        connection.request_received();
        let response = router.call(request);
        let connection = &connection;
        async move {
            let response = response.await;
            let is_stream =
                response.as_ref().is_ok_and(|response| response.extensions().get::<Streamed>().is_some());
            connection.response_ready(is_stream);
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
