//! The paths of the local API. Other servers may serve the same router.

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};

use super::documents::ErrorDocument;
use super::services::ServicesError;
use super::{LocalApi, Since};
use crate::observe::http::response::{self, JSON};
use crate::observe::http::serve::Streamed;
use crate::observe::traffic_events::EventFilter;
use crate::service_report::ServiceQuery;

/// The content type of a stream of JSON objects, one in each line.
const LINES: &str = "application/x-ndjson";

/// The number of entries of the timeline without `limit`.
const DEFAULT_LIMIT: usize = 100;

/// Returns the routes of version 1. All of them only read.
pub(crate) fn router(api: LocalApi) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/services", get(services))
        .route("/v1/timeline", get(timeline))
        .route("/v1/policies", get(policies))
        .route("/v1/observe", get(observe))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(api)
}

/// Returns a response with a document.
pub(crate) fn document(document: &impl Serialize) -> Response {
    with_status(StatusCode::OK, document)
}

/// Returns the response to a request that failed.
pub(crate) fn error(status: StatusCode, message: impl Into<String>) -> Response {
    with_status(status, &ErrorDocument::new(message))
}

fn with_status(status: StatusCode, document: &impl Serialize) -> Response {
    match serde_json::to_string(document) {
        Ok(mut text) => {
            text.push('\n');
            response::nosniff(status, JSON, text)
        }
        Err(error) => {
            let message = format!("cannot encode the document: {error}\n");
            response::nosniff(StatusCode::INTERNAL_SERVER_ERROR, response::PLAIN, message)
        }
    }
}

async fn status(State(api): State<LocalApi>) -> Response {
    document(&api.status().await)
}

async fn services(
    State(api): State<LocalApi>,
    query: Result<Query<ServiceQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Query(query) = match query {
        Ok(query) => query,
        Err(rejection) => return error(StatusCode::BAD_REQUEST, rejection.body_text()),
    };
    match api.services(query).await {
        Ok(report) => document(&report),
        Err(ServicesError::NotFound(reason)) => error(StatusCode::NOT_FOUND, reason.to_string()),
        Err(reason) => error(StatusCode::SERVICE_UNAVAILABLE, reason.to_string()),
    }
}

/// The parameters of the timeline.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimelineParameters {
    /// A number, or a time in RFC 3339.
    since: Option<String>,
    /// The largest number of entries.
    limit: Option<usize>,
}

async fn timeline(
    State(api): State<LocalApi>,
    parameters: Result<Query<TimelineParameters>, QueryRejection>,
) -> Response {
    let Query(TimelineParameters { since, limit }) = match parameters {
        Ok(parameters) => parameters,
        Err(rejection) => return error(StatusCode::BAD_REQUEST, rejection.body_text()),
    };
    match since.as_deref().map_or(Ok(Since::Number(0)), Since::parse) {
        Ok(since) => document(&api.timeline(since, limit.unwrap_or(DEFAULT_LIMIT))),
        Err(message) => error(StatusCode::BAD_REQUEST, message),
    }
}

/// The parameters of the policies.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PoliciesParameters {
    /// The namespace of the pods.
    namespace: Option<String>,
}

async fn policies(
    State(api): State<LocalApi>,
    parameters: Result<Query<PoliciesParameters>, QueryRejection>,
) -> Response {
    match parameters {
        Ok(Query(parameters)) => match api.policies(parameters.namespace).await {
            Ok(policies) => document(&policies),
            Err(query_error) => error(StatusCode::SERVICE_UNAVAILABLE, query_error.to_string()),
        },
        Err(rejection) => error(StatusCode::BAD_REQUEST, rejection.body_text()),
    }
}

impl Since {
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse() {
            return Ok(Since::Number(number));
        }
        text.parse().map(Since::Time).map_err(|_| {
            format!("invalid value {text:?} of since: expected the number of an entry, or a time such as 2026-11-30T10:00:00Z")
        })
    }
}

/// Streams traffic events, a JSON object in each line. Empty lines keep the connection open.
async fn observe(State(api): State<LocalApi>, uri: Uri) -> Response {
    let filter = match EventFilter::parse(uri.query().unwrap_or_default()) {
        Ok(filter) => filter,
        Err(invalid) => return error(StatusCode::BAD_REQUEST, invalid.to_string()),
    };
    let lines = match api.events().observe(filter).await {
        Ok(lines) => lines,
        Err(message) => return error(StatusCode::SERVICE_UNAVAILABLE, message),
    };
    let mut response = response::nosniff(StatusCode::OK, LINES, Body::new(lines));
    response.extensions_mut().insert(Streamed);
    response
}

async fn not_found() -> Response {
    const KNOWN: &str = "/v1/status, /v1/services, /v1/timeline, /v1/policies, /v1/observe";
    error(StatusCode::NOT_FOUND, format!("no such document; expected one of {KNOWN}"))
}

async fn method_not_allowed() -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed: no request changes the state of the daemon")
}
