//! Answers as Go's HTTP library, and so kube-proxy, writes them.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};

/// Plain text.
pub(super) const PLAIN: &str = "text/plain; charset=utf-8";

/// JSON.
pub(crate) const JSON: &str = "application/json";

/// An answer whose type browsers are told not to guess at.
pub(crate) fn exact(status: StatusCode, content_type: &'static str, body: impl IntoResponse) -> Response {
    let mut answer = typed(status, content_type, body);
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// An answer of a type.
pub(super) fn typed(status: StatusCode, content_type: &'static str, body: impl IntoResponse) -> Response {
    let mut answer = body.into_response();
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// There is nothing at this path.
pub(super) async fn not_found() -> Response {
    exact(StatusCode::NOT_FOUND, PLAIN, "404 page not found\n")
}
