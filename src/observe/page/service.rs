//! One Service: its findings, frontends and endpoints.

use std::net::SocketAddr;

use maud::{Markup, html};

use super::format::{self, counted};
use super::icons::Level;
use super::layout::{Page, Part};
use super::query::{Query, link};
use super::services::{frontend_text, kind_text, notes, state};
use super::table::{Caption, Column, number, table, text};
use crate::service_report::{
    EndpointItem, Finding, FrontendItem, Reason, ServiceItem, ServiceQuery, ServiceReport, ServiceStatus,
    Severity,
};

/// The number of frontends that the page lists.
const MAX_FRONTENDS: usize = 200;

/// The number of endpoints that the page lists.
const ENDPOINTS: usize = 1000;

const FRONTENDS: [Column; 6] = [
    text("Frontend"),
    text("Kind"),
    text("Port"),
    text("Traffic policy"),
    number("Endpoints used"),
    text("State"),
];

const ENDPOINT_COLUMNS: [Column; 6] = [
    text("Endpoint"),
    text("Port"),
    text("Pod"),
    text("Node"),
    text("State"),
    number("Share of new connections"),
];

/// Returns the query for the Service that a request names; `None` if it names none.
pub(super) fn query(request: &Query<'_>) -> Option<ServiceQuery> {
    Some(ServiceQuery {
        namespace: Some(request.given("namespace")?.to_owned()),
        name: Some(request.given("name")?.to_owned()),
        endpoints: true,
        limit: Some(1),
        ..ServiceQuery::default()
    })
}

/// Returns the page.
pub(super) fn page(service: &ServiceItem, report: &ServiceReport) -> Page {
    let name = format!("{}/{}", service.namespace, service.name);
    let content = html! {
        h1 { "Service " (name) }
        (banner(service))
        (facts(service))
        section aria-labelledby="frontends" {
            h2 #frontends { "Frontends" }
            @let is_isolated = service.findings.iter().any(|finding| finding.reason == Reason::Isolated);
            @let shown = service.frontends.iter().take(MAX_FRONTENDS);
            @let rows: Vec<Markup> = shown.map(|frontend| frontend_row(frontend, is_isolated)).collect();
            (table(Caption::Shown(&counted(service.frontend_count, "frontend")), &FRONTENDS, &rows, "This node serves no frontend of the Service."))
            @if service.frontend_count > rows.len() {
                p .note { (counted(service.frontend_count - rows.len(), "more frontend")) "; " code { "portcullis services" } " lists them all." }
            }
        }
        section aria-labelledby="endpoints" {
            h2 #endpoints { "Endpoints" }
            (endpoints(service.endpoints.as_deref().unwrap_or_default()))
        }
        p .more {
            a href=(link(Part::Explain.path(), [("to", name.as_str())])) { "Explain a connection to this Service" }
        }
        (notes(report))
    };
    Page { title: format!("Service {name}"), part: Some(Part::Services), refreshes: true, content }
}

fn banner(service: &ServiceItem) -> Markup {
    let level = match (service.status, service.severity()) {
        (ServiceStatus::NotServing, _) | (_, Some(Severity::Error)) => Level::Bad,
        (ServiceStatus::Degraded, _) | (_, Some(Severity::Warning)) => Level::Warning,
        _ => Level::Good,
    };
    let headline = match service.status {
        _ if service.is_pending() => "Change pending",
        ServiceStatus::Serving => "Serving",
        ServiceStatus::Degraded => "Degraded",
        ServiceStatus::NotServing => "Not serving",
        ServiceStatus::NotProxied => "Not proxied",
    };
    let is_judged = service.status != ServiceStatus::NotProxied && !service.is_pending();
    html! {
        section .verdict .(if is_judged { level.class() } else { "neutral" }) aria-labelledby="state" {
            @if is_judged { (level.icon()) } @else { span {} }
            h2 #state { (headline) }
            @if service.findings.is_empty() { p { "Every frontend answers." } }
            @else {
                ul {
                    @for finding in &service.findings { li { (finding_text(finding)) } }
                    @if service.omitted_findings > 0 { li { (counted(service.omitted_findings, "more reason")) } }
                }
            }
        }
    }
}

fn finding_text(finding: &Finding) -> Markup {
    html! { (finding.message) @if let Some(hint) = &finding.hint { " " em { (hint) } } }
}

fn facts(service: &ServiceItem) -> Markup {
    html! {
        dl .facts {
            @if let Some(kind) = &service.service_type { dt { "Type" } dd { (kind) } }
            dt { "State" } dd { (state(service)) }
            @if let Some(balancing) = &service.balancing {
                dt { "Balancing" }
                dd {
                    (balancing.method)
                    @if !balancing.is_even { ", shares depend on clients or open connections" }
                }
            }
            dt { "Session affinity" }
            dd {
                @match service.session_affinity_seconds {
                    Some(seconds) => { "by client address, for " (format::whole_seconds(seconds.into())) }
                    None => "none",
                }
            }
            @for counts in &service.endpoint_counts {
                dt { (counts.family) " endpoints" }
                dd {
                    (format::count(counts.ready)) " ready of " (format::count(counts.total)) ", "
                    (format::count(counts.local)) " on this node"
                    @if counts.terminating > 0 { ", " (format::count(counts.terminating)) " terminating" }
                }
            }
        }
    }
}

/// Returns the row of a frontend. `is_isolated`: if it answers, then by the last accepted rules of the Service.
fn frontend_row(frontend: &FrontendItem, is_isolated: bool) -> Markup {
    html! {
        tr {
            th scope="row" { code { (frontend_text(frontend)) } }
            td data-label="Kind" { (kind_text(frontend.kind)) ", " (frontend.family) }
            td data-label="Port" { (frontend.port_name) }
            td data-label="Traffic policy" {
                (frontend.traffic_policy)
                @if let Some(ranges) = &frontend.source_ranges { ", only from " (ranges.join(", ")) }
            }
            td .number data-label="Endpoints used" { (format::count(frontend.endpoints)) }
            td data-label="State" {
                @match &frontend.shadowed_by {
                    Some(other) => { (Level::Bad.state("shadowed")) " by " (other) }
                    None if frontend.answers && is_isolated => (Level::Warning.state("as last accepted")),
                    None if frontend.answers => (Level::Good.state("answers")),
                    None => (Level::Bad.state("does not answer")),
                }
            }
        }
    }
}

fn endpoints(all: &[EndpointItem]) -> Markup {
    let rows: Vec<Markup> = all.iter().take(ENDPOINTS).map(endpoint_row).collect();
    let omitted = all.len() - rows.len();
    html! {
        (table(Caption::Shown(&counted(all.len(), "endpoint")), &ENDPOINT_COLUMNS, &rows, "No EndpointSlice has an endpoint for the Service."))
        @if omitted > 0 {
            p .note { (counted(omitted, "more endpoint")) "; " code { "portcullis services" } " lists them all." }
        }
    }
}

fn endpoint_row(endpoint: &EndpointItem) -> Markup {
    let (level, word) = match endpoint {
        EndpointItem { ready: true, .. } => (Level::Good, "ready"),
        EndpointItem { terminating: true, serving: true, .. } => {
            (Level::Warning, "terminating, still serves")
        }
        EndpointItem { terminating: true, .. } => (Level::Bad, "terminating"),
        _ => (Level::Bad, "not ready"),
    };
    html! {
        tr {
            th scope="row" { code { (SocketAddr::new(endpoint.address, endpoint.port)) "/" (endpoint.protocol) } }
            td data-label="Port" { (endpoint.port_name) }
            td .name data-label="Pod" { @if let Some(pod) = &endpoint.pod { (pod) } }
            td data-label="Node" {
                @if let Some(node) = &endpoint.node { (node) } @if endpoint.is_local { " (this node)" }
            }
            td data-label="State" { (level.state(word)) }
            td .number data-label="Share" { (shares(endpoint)) }
        }
    }
}

/// Returns the shares by traffic policy; equal ones are shown once.
fn shares(endpoint: &EndpointItem) -> Markup {
    let percent = |share: f64| format!("{share:.1} %");
    match (endpoint.cluster_share_percent, endpoint.local_share_percent) {
        (None, None) => html! {},
        (Some(share), None) | (None, Some(share)) => html! { (percent(share)) },
        (Some(cluster), Some(local)) if percent(cluster) == percent(local) => html! { (percent(cluster)) },
        (Some(cluster), Some(local)) => html! { "Cluster " (percent(cluster)) ", Local " (percent(local)) },
    }
}
