//! Errors of requests to the API server.

use std::time::Duration;

use serde::Deserialize;

use super::limits::{MAX_ERROR_TEXT, bytes_text};
use crate::source::access::AccessError;

/// An error of a request, or of the stream that it returned.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// No client can be created.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// No connection could be made.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// The server responded with an error status, as the response or inside a watch.
    #[error("the API server responded {}", .0)]
    Rejected(StatusError),
    /// The connection ended before the response did.
    #[error("the connection to the API server was interrupted: {0}")]
    Disconnected(String),
    /// Nothing was received in time.
    #[error("no data from the API server for {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The response is not what the API specifies.
    #[error("malformed response of the API server: {}", shortened(.0.clone()))]
    Malformed(String),
    /// The pages of a list repeat, or there are too many.
    #[error(
        "the API server sends a list without end: the continue token of page {0} was sent before, or there are too many pages"
    )]
    EndlessList(usize),
    /// A part of the response is larger than its limit.
    #[error("the API server's response is too large: {what} has more than {}", bytes_text(*.limit))]
    TooLarge {
        /// The part, with the kind.
        what: String,
        /// The limit, in bytes.
        limit: usize,
    },
    /// A list has more objects than the limit.
    #[error("the API server's response is too large: more than {limit} objects in a list of {plural}")]
    TooMany {
        /// The plural of the kind.
        plural: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The receiver of the events was dropped.
    #[error("the receiver of events is closed")]
    ReceiverClosed,
}

impl RequestError {
    /// Sets the time limit that is reported. The wait that timed out is only the rest of it.
    pub(super) fn with_limit(self, limit: Duration) -> Self {
        match self {
            RequestError::TimedOut(_) => RequestError::TimedOut(limit),
            error => error,
        }
    }
}

/// The `Status` object of an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StatusError {
    /// The HTTP status, or the code of an ERROR watch event.
    pub(super) code: u16,
    /// The machine-readable reason, such as `Expired`; may be empty.
    pub(super) reason: String,
    /// The human-readable message.
    pub(super) message: String,
    /// The delay of Retry-After, or of `details.retryAfterSeconds`.
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

/// The fields of the API's `Status` object that are used.
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
    /// Parses a body, which is a `Status` object unless an HTTP proxy sent it.
    pub(super) fn from_body(code: u16, body: &[u8]) -> StatusError {
        let Ok(status) = serde_json::from_slice::<Status>(body) else {
            let text = String::from_utf8_lossy(body);
            let message = text.trim().chars().take(200).collect();
            return StatusError { code, message, ..StatusError::default() };
        };
        let seconds = status.details.map_or(0, |details| details.retry_after_seconds);
        StatusError {
            code: if code == 0 { status.code } else { code },
            reason: shortened(status.reason),
            message: shortened(status.message),
            retry_after: (seconds > 0).then(|| Duration::from_secs(seconds)),
        }
    }

    /// Returns true if the resourceVersion or the continue token is too old (410).
    pub(super) fn is_expired(&self) -> bool {
        self.code == 410
    }

    /// Returns true if the same request may succeed later.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self.code, 401 | 403 | 404 | 408 | 429 | 500..)
    }
}

/// Truncates a text of the server, which is shown in logs and by health checks. Messages of parsers repeat values of any
/// length.
fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_ERROR_TEXT) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_errors_are_parsed_from_status_objects_and_from_other_bodies() {
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
