//! HTTP responses of the API server, read with a timeout for each part.

use std::time::{Duration, Instant};

use http::header::RETRY_AFTER;
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use tokio::time::timeout;

use super::request_error::{RequestError, StatusError};
use crate::error_chain::describe;
use crate::source::access::AccessError;

/// The largest body of an error response that is read, in bytes.
const MAX_ERROR_BODY: usize = 64 << 10;

/// The number of bytes of a page that must arrive within the time limit, unless the page ends.
const PROGRESS: usize = 64 << 10;

/// A successful response, of which the body is still to be read.
pub(super) struct Response {
    body: Body,
}

/// Sends a request and waits up to `limit` for the head of the response.
///
/// # Errors
/// The request could not be sent, or the response has another status than success.
pub(super) async fn send_request(
    client: &Client,
    request: http::Request<Body>,
    limit: Duration,
) -> Result<Response, RequestError> {
    let response = match timeout(limit, client.send(request)).await {
        Err(_) => return Err(RequestError::TimedOut(limit)),
        Ok(Err(error)) => return Err(send_error(&error)),
        Ok(Ok(response)) => response,
    };
    let (head, body) = response.into_parts();
    if head.status.is_success() {
        return Ok(Response { body });
    }
    let read = timeout(limit, Limited::new(body, MAX_ERROR_BODY).collect()).await;
    // The status is used even if the body cannot be read.
    let bytes = read.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
    let mut status_error = StatusError::from_body(head.status.as_u16(), &bytes);
    let seconds = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    status_error.retry_after = seconds.map(Duration::from_secs).or(status_error.retry_after);
    Err(RequestError::Rejected(status_error))
}

/// Tells an error of the credentials from one of the connection.
fn send_error(error: &kube::Error) -> RequestError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<kube::client::AuthError>() {
            let of =
                "credentials for the API server (the exec plugin or the token of the kubeconfig)".to_owned();
            return RequestError::Access(AccessError::Credentials { of, message: describe(error) });
        }
        cause = error.source();
    }
    RequestError::Unreachable(describe(error))
}

impl Response {
    /// Returns the next bytes, waiting up to `limit`; `None` at the end.
    pub(super) async fn next(
        &mut self,
        limit: Duration,
    ) -> Result<Option<impl AsRef<[u8]> + use<>>, RequestError> {
        loop {
            match timeout(limit, self.body.frame()).await {
                Err(_) => return Err(RequestError::TimedOut(limit)),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(RequestError::Disconnected(describe(&error))),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Returns the whole body. `on_data` is called for each part of it. The wait of up to `limit` is for the end of the body, or
    /// for another [`PROGRESS`] bytes, so that single bytes do not keep a response alive.
    pub(super) async fn whole(
        mut self,
        limit: Duration,
        mut on_data: impl FnMut(),
    ) -> Result<Vec<u8>, RequestError> {
        let mut bytes = Vec::new();
        let (mut since, mut mark) = (Instant::now(), PROGRESS);
        loop {
            let data = self.next(limit.saturating_sub(since.elapsed())).await;
            let Some(data) = data.map_err(|error| error.with_limit(limit))? else { return Ok(bytes) };
            bytes.extend_from_slice(data.as_ref());
            if bytes.len() >= mark {
                on_data();
                (since, mark) = (Instant::now(), bytes.len() + PROGRESS);
            }
        }
    }
}
