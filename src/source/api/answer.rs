//! One request, and the bytes that come back.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use tokio::time::timeout;

use super::failure::{Failure, Refusal};
use crate::error_chain::describe;
use crate::source::access::AccessError;

/// The most that is read of a refusal, in bytes.
const REFUSAL: usize = 64 << 10;

/// An answer that has begun well.
pub(super) struct Answer {
    body: Body,
}

/// Sends a request and waits for the head of the answer, `patience` at most.
pub(super) async fn ask(
    client: &Client,
    request: http::Request<Body>,
    patience: Duration,
) -> Result<Answer, Failure> {
    let answer = match timeout(patience, client.send(request)).await {
        Err(_) => return Err(Failure::Silent(patience)),
        Ok(Err(error)) => return Err(not_sent(&error)),
        Ok(Ok(answer)) => answer,
    };
    let (head, body) = answer.into_parts();
    if head.status.is_success() {
        return Ok(Answer { body });
    }
    let read = timeout(patience, Limited::new(body, REFUSAL).collect()).await;
    // The status counts, even where its explanation cannot be read.
    let bytes = read.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
    let mut refusal = Refusal::from_body(head.status.as_u16(), &bytes);
    let seconds = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    refusal.retry_after = seconds.map(Duration::from_secs).or(refusal.retry_after);
    Err(Failure::Refused(refusal))
}

/// Why a request was not sent, or not answered: the server is to blame only where the credentials could be had.
fn not_sent(error: &kube::Error) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<kube::client::AuthError>() {
            let of =
                "credentials for the API server (the exec plugin or the token of the kubeconfig)".to_owned();
            return Failure::Access(AccessError::Credentials { of, message: describe(error) });
        }
        cause = error.source();
    }
    Failure::Unreachable(describe(error))
}

impl Answer {
    /// The next bytes, waited for `patience` at most; `None` at the end.
    pub(super) async fn next(
        &mut self,
        patience: Duration,
    ) -> Result<Option<impl AsRef<[u8]> + use<>>, Failure> {
        loop {
            match timeout(patience, self.body.frame()).await {
                Err(_) => return Err(Failure::Silent(patience)),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(Failure::Broken(describe(&error))),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// All of it.
    pub(super) async fn whole(
        mut self,
        patience: Duration,
        mut heard: impl FnMut(),
    ) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while let Some(data) = self.next(patience).await? {
            heard();
            bytes.extend_from_slice(data.as_ref());
        }
        Ok(bytes)
    }
}
