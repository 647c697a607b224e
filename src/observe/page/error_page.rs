//! Responses without a page: errors.

use axum::response::Response;
use http::StatusCode;
use maud::html;

use super::icons::Level;
use super::layout::{Identity, Page};

/// Returns the response for a request that is rejected before any page is made.
pub(super) fn response(status: StatusCode, message: &str) -> Response {
    with_identity(status, message, None)
}

/// Returns an error with the head of the other pages.
pub(super) fn with_identity(status: StatusCode, message: &str, identity: Option<&Identity>) -> Response {
    let title = status.canonical_reason().unwrap_or("Error").to_owned();
    let content = html! {
        section .verdict .bad aria-label="Error" {
            (Level::Bad.icon())
            h1 { (title) }
            p { (message) }
        }
    };
    Page { title, part: None, refreshes: false, content }.respond(status, identity)
}
