//! The status page: what the daemon knows, for a browser, on an address of its own.
//!
//! ```text
//! LocalApi ─ status, timeline, Services ──┐
//! loop ◄─ Queries: policies               ├─► Page ─► layout ─► HTML
//! copy of the index ─ matrix, explain ────┘
//! ```
//!
//! A file has a page. The pages show the documents of the [local API](super::local_api) and call the functions of
//! `portcullis explain` and `portcullis policy matrix`; nothing is computed for them alone, and no request changes anything.
//! They work without the script, which only replaces their content every few seconds. [`guard`] has the checks of requests and
//! the headers of responses.

mod assets;
mod error_page;
mod evaluation;
mod explain;
mod format;
mod guard;
mod icons;
mod layout;
mod namespace;
mod overview;
mod pod_network;
mod policies;
mod query;
mod service;
mod services;
mod sources;
mod table;
#[cfg(test)]
mod tests;
mod timeline;
mod verdict;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::middleware;
use axum::response::Response;
use axum::routing::get;
use http::{HeaderMap, StatusCode};

use self::evaluation::Evaluations;
use self::layout::{Identity, Page};
use self::policies::PolicySummary;
use self::query::Query;
use super::local_api::{LocalApi, ServicesError, Since};

/// The time that a page waits for the loop.
const LOOP_LIMIT: Duration = Duration::from_secs(2);

/// What the pages read. Clones share it.
#[derive(Clone)]
struct Site {
    api: LocalApi,
    identity: Identity,
    evaluations: Evaluations,
}

/// Returns the routes of the page for the address on which it is served.
pub(crate) fn router(api: LocalApi, address: SocketAddr) -> Router {
    let facts = api.facts();
    let identity = Identity { node: facts.node.to_string(), mode: facts.config.mode.name() };
    let evaluations = Evaluations::new(facts.config.clone(), api.queries().clone());
    let site = Site { api, identity, evaluations };
    Router::new()
        .route("/", get(overview))
        .route("/services", get(services))
        .route("/service", get(service))
        .route("/policies", get(policies))
        .route("/policies/namespace", get(namespace))
        .route("/timeline", get(timeline))
        .route("/sources", get(sources))
        .route("/explain", get(explain))
        .route("/assets/{hash}/{name}", get(asset))
        .fallback(not_found)
        .with_state(site)
        .layer(middleware::from_fn_with_state(address, guard::check))
}

impl Site {
    fn respond(&self, page: Page) -> Response {
        page.respond(StatusCode::OK, Some(&self.identity))
    }

    fn error(&self, status: StatusCode, message: &str) -> Response {
        error_page::with_identity(status, message, Some(&self.identity))
    }
}

async fn overview(State(site): State<Site>) -> Response {
    let status = site.api.status().await;
    let query = services::problems_query();
    let problems = site.api.services(query).await.map_err(|error| error.to_string());
    site.respond(overview::page(&status, problems.as_ref().map_err(String::as_str)))
}

async fn services(State(site): State<Site>, RawQuery(query): RawQuery) -> Response {
    let request = Query::parse(query.as_deref());
    match site.api.services(services::query(&request)).await {
        Ok(report) => site.respond(services::page(&request, Ok(&report))),
        Err(error) => services::page(&request, Err(&error.to_string()))
            .respond(services_status(&error), Some(&site.identity)),
    }
}

async fn service(State(site): State<Site>, RawQuery(query): RawQuery) -> Response {
    let request = Query::parse(query.as_deref());
    let Some(query) = service::query(&request) else {
        return site.error(StatusCode::BAD_REQUEST, "Expected the parameters namespace and name.");
    };
    match site.api.services(query).await {
        Ok(report) => match report.items.first() {
            Some(service) => site.respond(service::page(service, &report)),
            None => site.error(StatusCode::NOT_FOUND, "There is no such Service."),
        },
        Err(error) => site.error(services_status(&error), &error.to_string()),
    }
}

async fn policies(State(site): State<Site>, RawQuery(query): RawQuery) -> Response {
    let request = Query::parse(query.as_deref());
    let read = site.api.queries().ask(LOOP_LIMIT, |state| Some(PolicySummary::new(state.index)));
    let (summary, document) = tokio::join!(read, site.api.policies(None));
    let document = document.map_err(|error| error.to_string());
    match summary {
        Ok(summary) => {
            site.respond(policies::page(&request, &summary, document.as_ref().map_err(String::as_str)))
        }
        Err(error) => site.error(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

async fn namespace(State(site): State<Site>, RawQuery(query): RawQuery) -> Response {
    let request = Query::parse(query.as_deref());
    let Some(selection) = namespace::Selection::new(&request) else {
        return site.error(StatusCode::BAD_REQUEST, "Expected the parameter namespace.");
    };
    let wanted = selection.clone();
    match site.evaluations.run(move |config, cluster| wanted.evaluate(config, cluster)).await {
        Ok(view) => site.respond(namespace::page(&selection, &view)),
        Err(error) => site.error(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

async fn timeline(State(site): State<Site>, RawQuery(query): RawQuery) -> Response {
    let is_brief = Query::parse(query.as_deref()).is_set("brief");
    site.respond(timeline::page(&site.api.timeline(Since::Number(0), timeline::LIMIT), is_brief))
}

async fn sources(State(site): State<Site>) -> Response {
    site.respond(sources::page(&site.api.status().await))
}

async fn explain(State(site): State<Site>, RawQuery(query): RawQuery) -> Response {
    let connection = explain::Connection::new(&Query::parse(query.as_deref()));
    if !connection.is_complete() {
        return site.respond(explain::page(&connection, None));
    }
    let wanted = connection.clone();
    let explained = site.evaluations.run(move |config, cluster| wanted.explain(config, cluster)).await;
    site.respond(explain::page(&connection, Some(&explained)))
}

async fn asset(State(site): State<Site>, path: Path<(String, String)>, headers: HeaderMap) -> Response {
    match assets::respond(path, &headers) {
        Some(response) => response,
        None => not_found(State(site)).await,
    }
}

async fn not_found(State(site): State<Site>) -> Response {
    site.error(StatusCode::NOT_FOUND, "There is no such page.")
}

/// Returns the status of a response without a report.
fn services_status(error: &ServicesError) -> StatusCode {
    match error {
        ServicesError::NotFound(_) => StatusCode::NOT_FOUND,
        ServicesError::NotListed | ServicesError::Query(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
