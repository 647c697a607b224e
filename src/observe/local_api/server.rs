//! The server of the local API: listens on the socket, and tries again while that fails.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::socket::{ApiSocket, SocketError};
use crate::observe::health::{Health, HealthProblem};
use crate::observe::http::Stop;
use crate::observe::http::connection_pool::ConnectionPool;
use crate::observe::http::serve::{serve, stopped};
use crate::observe::metrics::Metrics;

/// The component of health problems of the local API.
const COMPONENT: &str = "local API";

/// The time between two attempts to listen, and between two checks that the file of the socket still exists.
const RETRY: Duration = Duration::from_secs(5);

/// The running server.
#[derive(Debug)]
pub(crate) struct LocalApiServer(JoinHandle<()>);

impl LocalApiServer {
    /// Starts the server, which runs until the stop signal. A socket that cannot be created is a warning in health: the daemon
    /// serves also without the local API.
    pub(crate) fn start(
        path: PathBuf,
        router: Router,
        connections: usize,
        health: Arc<Health>,
        metrics: Metrics,
        stop: Stop,
    ) -> Self {
        let pool = ConnectionPool::new(COMPONENT, connections, metrics.http_connections("local_api"));
        let report = move |error: Option<&SocketError>| {
            metrics.set_local_api_listening(error.is_none());
            let problem = error
                .map(|error| format!("{error}; commands such as portcullis status cannot ask this daemon"));
            health.set_problems(COMPONENT, problem.into_iter().map(HealthProblem::warning).collect());
        };
        LocalApiServer(tokio::spawn(run(path, router, pool, report, stop)))
    }

    /// Waits until the server has stopped.
    pub(crate) async fn stopped(self) {
        // An error means that it panicked, which ends the process.
        let _ = self.0.await;
    }
}

async fn run(
    path: PathBuf,
    router: Router,
    pool: Arc<ConnectionPool>,
    report: impl Fn(Option<&SocketError>),
    mut stop: Stop,
) {
    let mut reported = String::new();
    loop {
        match listen(&path) {
            Ok((socket, listener)) => {
                tracing::info!("serving the local API on {}", path.display());
                report(None);
                reported.clear();
                tokio::select! {
                    () = serve(listener, router.clone(), Arc::clone(&pool), stop.clone()) => return,
                    () = is_unreachable(&socket) => {
                        tracing::warn!("the socket {} was removed; creating it again", path.display());
                    }
                }
            }
            Err(error) => {
                let text = error.to_string();
                if text != reported {
                    tracing::warn!(
                        "cannot serve the local API: {text}; retrying every {} s",
                        RETRY.as_secs()
                    );
                    reported = text;
                }
                report(Some(&error));
                tokio::select! {
                    () = sleep(RETRY) => {}
                    () = stopped(&mut stop) => return,
                }
            }
        }
    }
}

fn listen(path: &Path) -> Result<(ApiSocket, UnixListener), SocketError> {
    let (socket, listener) = ApiSocket::listen(path)?;
    let listener = UnixListener::from_std(listener);
    let listener =
        listener.map_err(|source| SocketError::Io { action: "listen on", path: path.to_owned(), source })?;
    Ok((socket, listener))
}

/// Waits until the file of the socket was removed or replaced.
async fn is_unreachable(socket: &ApiSocket) {
    while socket.is_reachable() {
        sleep(RETRY).await;
    }
}
