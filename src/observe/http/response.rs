//! HTTP responses with the headers of Go's HTTP library, and so of kube-proxy.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};

/// Content type of plain text.
pub(crate) const PLAIN: &str = "text/plain; charset=utf-8";

/// Content type of JSON.
pub(crate) const JSON: &str = "application/json";

/// Returns a response with a content type and `X-Content-Type-Options: nosniff`.
pub(crate) fn nosniff(status: StatusCode, content_type: &'static str, body: impl IntoResponse) -> Response {
    let mut response = with_type(status, content_type, body);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Returns a response with a content type.
pub(super) fn with_type(status: StatusCode, content_type: &'static str, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Handles requests for unknown paths.
pub(super) async fn not_found() -> Response {
    nosniff(StatusCode::NOT_FOUND, PLAIN, "404 page not found\n")
}
