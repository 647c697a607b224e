//! The pages of a report of the running daemon.
//!
//! The daemon computes a page while the one before is decoded.

use std::sync::mpsc;
use std::thread;

use http::StatusCode;
use hyper::body::Bytes;
use serde::Deserialize;

use super::ServicesError;
use crate::local_client::{self, LocalClient, LocalClientError};
use crate::service_report::{KIND, NotFound, ServiceQuery, ServiceReport};

/// The number of pages that wait to be decoded.
const WAITING: usize = 1;

/// The part of a page that is needed to request the next one.
#[derive(Deserialize)]
struct PageEnd {
    next: Option<String>,
}

/// Requests all pages of a query from the daemon, and passes them to `add` in their order.
pub(super) fn request_all(
    client: &LocalClient,
    query: &ServiceQuery,
    mut add: impl FnMut(ServiceReport),
) -> Result<(), ServicesError> {
    thread::scope(|scope| {
        let (sender, pages) = mpsc::sync_channel(WAITING);
        scope.spawn(move || fetch_all(client, query.clone(), &sender));
        for page in pages {
            add(page.and_then(|text| local_client::parse(&text, KIND)).map_err(error)?);
        }
        Ok(())
    })
}

/// Requests pages until the last one, or until the receiver is gone after an error.
fn fetch_all(
    client: &LocalClient,
    mut query: ServiceQuery,
    pages: &mpsc::SyncSender<Result<Bytes, LocalClientError>>,
) {
    loop {
        let page = client.fetch(&format!("/v1/services?{}", query.to_query_string()));
        // An unexpected document is reported when it is decoded.
        let end = page.as_ref().ok().and_then(|text| serde_json::from_slice::<PageEnd>(text).ok());
        let next = end.and_then(|end| end.next);
        if pages.send(page).is_err() || next.is_none() {
            return;
        }
        query.after = next;
    }
}

fn error(error: LocalClientError) -> ServicesError {
    match error {
        LocalClientError::Status { status: StatusCode::NOT_FOUND, message, .. } => NotFound(message).into(),
        error => ServicesError::NoDaemon(error.to_string()),
    }
}
