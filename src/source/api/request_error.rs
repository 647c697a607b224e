//! What can go wrong between us and the API server.

use std::time::Duration;

use serde::Deserialize;

use crate::source::access::AccessError;

/// Why a request did not bring what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// No client can be made.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// No answer came.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// The server says no, as the answer or inside a stream.
    #[error("the API server answers {}", .0)]
    Rejected(StatusError),
    /// The connection ended in the middle.
    #[error("the connection to the API server broke: {0}")]
    Disconnected(String),
    /// Nothing was heard.
    #[error("the API server was silent for {} s", .0.as_secs())]
    TimedOut(Duration),
    /// What came is not what the API gives.
    #[error("the API server sent what cannot be understood: {0}")]
    Malformed(String),
    /// The receiver of the events is gone.
    #[error("nobody listens")]
    ReceiverClosed,
}

/// The server's no.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StatusError {
    /// The HTTP status, or that which an ERROR event names.
    pub(super) code: u16,
    /// The machine's word for it, as in `Expired`; may be empty.
    pub(super) reason: String,
    /// The server's own words.
    pub(super) message: String,
    /// How long it asks us to wait.
    pub(super) retry_after: Option<Duration>,
}

impl std::fmt::Display for StatusError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.code)?;
        if !self.reason.is_empty() {
            write!(f, " {}", self.reason)?;
        }
        if !self.message.is_empty() && self.message != self.reason {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

/// The API's `Status` object.
#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct Status {
    code: u16,
    reason: String,
    message: String,
    details: Option<Details>,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct Details {
    retry_after_seconds: u64,
}

impl StatusError {
    /// From a body, which is a `Status` object unless something stands between us and the server.
    pub(super) fn from_body(code: u16, body: &[u8]) -> StatusError {
        let Ok(status) = serde_json::from_slice::<Status>(body) else {
            let text = String::from_utf8_lossy(body);
            let message = text.trim().chars().take(200).collect();
            return StatusError { code, message, ..StatusError::default() };
        };
        let seconds = status.details.map_or(0, |details| details.retry_after_seconds);
        StatusError {
            code: if code == 0 { status.code } else { code },
            reason: status.reason,
            message: status.message,
            retry_after: (seconds > 0).then(|| Duration::from_secs(seconds)),
        }
    }

    /// The revision or the continuation is too old.
    pub(super) fn is_expired(&self) -> bool {
        self.code == 410
    }

    /// It is not about the request as such, and the same request may do later.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self.code, 401 | 403 | 404 | 408 | 429 | 500..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_read_from_status_objects_and_from_anything_else() {
        let status = br#"{"kind":"Status","message":"slow down","reason":"TooManyRequests","details":{"retryAfterSeconds":3},"code":429}"#;
        let status_error = StatusError::from_body(429, status);
        assert_eq!(status_error.to_string(), "429 TooManyRequests: slow down");
        assert_eq!(status_error.retry_after, Some(Duration::from_secs(3)));
        assert_eq!(StatusError::from_body(0, status).code, 429);
        assert_eq!(
            StatusError::from_body(502, b"<html>Bad Gateway</html>\n").to_string(),
            "502: <html>Bad Gateway</html>"
        );
        let unauthorized = br#"{"message":"Unauthorized","reason":"Unauthorized","code":401}"#;
        assert_eq!(StatusError::from_body(401, unauthorized).to_string(), "401 Unauthorized");
    }
}
