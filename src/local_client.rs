//! The client of the local API of a running daemon.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::observe::local_api::documents::{API_VERSION, ErrorDocument, TypeMeta, Typed};

/// The time limit for a document.
const LIMIT: Duration = Duration::from_secs(30);

/// The largest document, in bytes.
const MAX_DOCUMENT: usize = 256 << 20;

/// The local API of the daemon that listens on a socket.
#[derive(Clone, Debug)]
pub(crate) struct LocalClient {
    socket: PathBuf,
    limit: Duration,
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalClientError {
    /// No daemon listens on the socket.
    #[error("no daemon answers on {}: {reason} (--socket)", .socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// Why the connection failed.
        reason: String,
    },
    /// The daemon did not respond in time.
    #[error("the daemon that listens on {} did not respond within {} s", .socket.display(), .limit.as_secs_f64())]
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// The time limit.
        limit: Duration,
    },
    /// The connection failed, or the response is not HTTP.
    #[error("cannot read the response of the daemon: {0}")]
    Connection(#[from] hyper::Error),
    /// The response is too large, or was cut off.
    #[error("cannot read the response of the daemon: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// The daemon rejected the request.
    #[error("the daemon responded to {path} with {status}: {message}")]
    Status {
        /// The path of the request.
        path: String,
        /// The status.
        status: StatusCode,
        /// The message.
        message: String,
    },
    /// The document is not of the expected kind or version.
    #[error(
        "the daemon responded with an unexpected document: {0}; its version may differ from that of this command"
    )]
    Unexpected(String),
    /// A runtime could not be created.
    #[error("system error: {0}")]
    System(#[from] io::Error),
}

impl LocalClient {
    /// Creates a client of the daemon that listens on a socket.
    pub(crate) fn new(socket: &Path) -> Self {
        LocalClient { socket: socket.to_owned(), limit: LIMIT }
    }

    /// Returns a client with another time limit for a document.
    pub(crate) fn with_limit(self, limit: Duration) -> Self {
        LocalClient { limit, ..self }
    }

    /// Requests a document of this kind. Must not be called in asynchronous code.
    ///
    /// # Errors
    /// [`LocalClientError`]
    pub(crate) fn get<T: DeserializeOwned + Typed>(
        &self,
        path: &str,
        kind: &str,
    ) -> Result<T, LocalClientError> {
        parse(&self.fetch(path)?, kind)
    }

    /// Requests a document, and returns its text for [`parse`]. Must not be called in asynchronous code.
    ///
    /// # Errors
    /// [`LocalClientError`]
    pub(crate) fn fetch(&self, path: &str) -> Result<Bytes, LocalClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.text(path))
    }

    /// Requests a document, and returns its text.
    async fn text(&self, path: &str) -> Result<Bytes, LocalClientError> {
        let request = async {
            let body = self.open(path).await?;
            let collected = Limited::new(body, MAX_DOCUMENT).collect().await;
            Ok(collected.map_err(LocalClientError::Body)?.to_bytes())
        };
        let timed_out = |_| LocalClientError::Timeout { socket: self.socket.clone(), limit: self.limit };
        timeout(self.limit, request).await.map_err(timed_out)?
    }

    /// Requests a path, and returns the body of a successful response.
    ///
    /// # Errors
    /// [`LocalClientError`]
    pub(crate) async fn open(&self, path: &str) -> Result<Incoming, LocalClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.not_running(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the response; its errors are those of the body.
        tokio::spawn(connection);
        let request = Request::get(path).header(HOST, "localhost").body(Empty::<Bytes>::new());
        let request = request.map_err(|error| LocalClientError::Unexpected(error.to_string()))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let body = Limited::new(response.into_body(), MAX_DOCUMENT).collect().await;
        let body = body.map_err(LocalClientError::Body)?.to_bytes();
        let message = serde_json::from_slice(&body).map(|error: ErrorDocument| error.message);
        let message = message.unwrap_or_else(|_| String::from_utf8_lossy(&body).trim().to_owned());
        Err(LocalClientError::Status { path: path.to_owned(), status, message })
    }

    fn not_running(&self, error: &io::Error) -> LocalClientError {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => "there is no such socket".to_owned(),
            io::ErrorKind::ConnectionRefused => "the daemon that created it has ended".to_owned(),
            io::ErrorKind::PermissionDenied => "only root and the user of the daemon may connect".to_owned(),
            _ => error.to_string(),
        };
        LocalClientError::NotRunning { socket: self.socket.clone(), reason }
    }
}

/// Parses a document of this kind. Large documents are read once; one that has other fields is read again for its kind.
///
/// # Errors
/// [`LocalClientError::Unexpected`]
pub(crate) fn parse<T: DeserializeOwned + Typed>(text: &[u8], kind: &str) -> Result<T, LocalClientError> {
    let unexpected = |error: serde_json::Error| LocalClientError::Unexpected(error.to_string());
    let check = |(api_version, found): (&str, &str)| match (api_version, found) == (API_VERSION, kind) {
        true => Ok(()),
        false => {
            let found = format!("{api_version} {found}, expected {API_VERSION} {kind}");
            Err(LocalClientError::Unexpected(found))
        }
    };
    match serde_json::from_slice::<T>(text) {
        Ok(document) => check(document.type_meta()).map(|()| document),
        Err(error) => {
            let TypeMeta { api_version, kind } = serde_json::from_slice(text).map_err(unexpected)?;
            check((&api_version, &kind)).and(Err(unexpected(error)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service_report::{KIND, ServiceReport};

    #[test]
    fn document_of_another_kind_or_version_is_named() {
        let report = r#"{"apiVersion":"portcullis.io/v1","kind":"ServiceReport","node":"a","mode":"ipvs","total":0,"offset":0,
            "next":null,"items":[],"notes":[],"addedLater":1}"#;
        let rows = [
            (report.to_owned(), None),
            (
                report.replace("/v1", "/v2"),
                Some("portcullis.io/v2 ServiceReport, expected portcullis.io/v1 "),
            ),
            (report.replace("ServiceReport", "Status"), Some("portcullis.io/v1 Status, expected ")),
            (report.replace("\"items\":[],", ""), Some("missing field `items`")),
            (
                r#"{"apiVersion":"portcullis.io/v1","kind":"Status"}"#.to_owned(),
                Some("portcullis.io/v1 Status, expec"),
            ),
            ("[]".to_owned(), Some("invalid length 0")),
        ];
        for (text, expected) in rows {
            let result = parse::<ServiceReport>(text.as_bytes(), KIND).map_err(|error| error.to_string());
            match (result, expected) {
                (Ok(_), None) => {}
                (Err(message), Some(expected)) => assert!(message.contains(expected), "{text}: {message}"),
                (result, _) => panic!("{text}: {result:?}"),
            }
        }
    }
    /// The kernel accepts connections for a process that is stuck.
    #[test]
    fn a_daemon_that_does_not_respond_is_given_up_after_the_limit() {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let path = folder.path().join("socket");
        let _stuck = std::os::unix::net::UnixListener::bind(&path).expect("the folder is writable");
        let client = LocalClient::new(&path).with_limit(Duration::from_millis(50));
        let error = client.fetch("/v1/status").expect_err("there is no response");
        assert!(matches!(error, LocalClientError::Timeout { .. }), "{error}");
        assert!(error.to_string().ends_with(" did not respond within 0.05 s"), "{error}");
    }
}
