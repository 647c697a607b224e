//! The Services: a table with search and paging.

use maud::{Markup, html};

use super::explain;
use super::format::{count, counted};
use super::icons::Level;
use super::layout::{Page, Part};
use super::query::{Query, link};
use super::table::{Caption, Column, number, table, text};
use crate::service_report::{
    EndpointCounts, Finding, FrontendItem, FrontendKindName, ServiceItem, ServiceQuery, ServiceReport,
    ServiceStatus, Severity,
};

/// The number of Services on a page.
pub(super) const PAGE: usize = 50;

/// The number of Services with problems that the overview lists.
const PROBLEMS: usize = 10;

const COLUMNS: [Column; 5] =
    [text("Service"), text("State"), text("Frontends"), number("Endpoints ready"), text("Reason")];

/// The number of frontends that a row of the table shows.
const FRONTENDS: usize = 4;

/// The number of findings that a row of the table shows.
const FINDINGS: usize = 3;

/// Returns the query for the Services that a request asks for.
pub(super) fn query(request: &Query<'_>) -> ServiceQuery {
    let text = |name| request.given(name).map(str::to_owned);
    ServiceQuery {
        namespace: text("namespace"),
        search: text("q"),
        problems: request.is_set("problems"),
        offset: (request.page() - 1).saturating_mul(PAGE),
        limit: Some(PAGE),
        ..ServiceQuery::default()
    }
}

/// Returns the query for the first Services with problems.
pub(super) fn problems_query() -> ServiceQuery {
    ServiceQuery { problems: true, limit: Some(PROBLEMS), ..ServiceQuery::default() }
}

/// Returns the page. `report`: the Services, or why they are not known.
pub(super) fn page(request: &Query<'_>, report: Result<&ServiceReport, &str>) -> Page {
    let filter = Filter::new(request);
    let content = html! {
        h1 { "Services" }
        (filter.form())
        @match report {
            Ok(report) => {
                (table_of(Caption::Shown(&filter.caption(report)), report, filter.if_empty(report)))
                (pages(request.page(), report.total.div_ceil(PAGE), &|page| filter.link_to(page)))
                (notes(report))
            }
            Err(message) => (explain::problem("No Services", message)),
        }
    };
    Page { title: "Services".to_owned(), part: Some(Part::Services), refreshes: true, content }
}

/// Which Services a page shows.
struct Filter<'a> {
    search: &'a str,
    namespace: &'a str,
    only_problems: bool,
}

impl<'a> Filter<'a> {
    fn new(request: &'a Query<'_>) -> Self {
        Filter {
            search: request.text("q"),
            namespace: request.text("namespace"),
            only_problems: request.is_set("problems"),
        }
    }

    fn is_set(&self) -> bool {
        !self.search.is_empty() || !self.namespace.is_empty() || self.only_problems
    }

    fn form(&self) -> Markup {
        html! {
            form .filter method="get" action=(Part::Services.path()) role="search" {
                div {
                    label for="q" { "Name, address or port" }
                    input #q type="search" name="q" value=(self.search) maxlength="253" autocomplete="off" spellcheck="false";
                }
                div {
                    label for="namespace" { "Namespace" }
                    input #namespace type="text" name="namespace" value=(self.namespace) maxlength="63" autocomplete="off"
                        spellcheck="false";
                }
                div .check {
                    input #only-problems type="checkbox" name="problems" value="yes" checked[self.only_problems];
                    label for="only-problems" { "Only with problems" }
                }
                div { button type="submit" { "Search" } }
                @if self.is_set() { div .check { a href=(Part::Services.path()) { "Show all" } } }
            }
        }
    }

    fn caption(&self, report: &ServiceReport) -> String {
        let (first, last) = (report.offset + 1, report.offset + report.items.len());
        format!("{} to {} of {}", count(first), count(last), counted(report.total, "Service"))
    }

    fn if_empty(&self, report: &ServiceReport) -> &'static str {
        match (self.is_set(), report.total) {
            (_, 1..) => "There is no such page of the result.",
            (true, _) => "No Service matches.",
            (false, _) => "This cluster has no Services.",
        }
    }

    fn link_to(&self, page: usize) -> String {
        let page = page.to_string();
        let problems = if self.only_problems { "yes" } else { "" };
        let parameters =
            [("q", self.search), ("namespace", self.namespace), ("problems", problems), ("page", &page)];
        link(Part::Services.path(), parameters)
    }
}

fn pages(page: usize, pages: usize, to: &dyn Fn(usize) -> String) -> Markup {
    if pages <= 1 && page == 1 {
        return html! {};
    }
    let last = pages.max(1);
    let step = |target: usize, is_enabled: bool, word: &str, relation: Option<&str>| {
        html! {
            @if is_enabled { a href=(to(target)) rel=[relation] { (word) } }
            @else { span .off aria-disabled="true" { (word) } }
        }
    };
    html! {
        nav .pages aria-label="Pages of Services" {
            (step(1, page > 1, "First", None))
            (step((page - 1).clamp(1, last), page > 1, "Previous", Some("prev")))
            span { "Page " (count(page)) " of " (count(last)) }
            (step(page + 1, page < last, "Next", Some("next")))
            (step(last, page < last, "Last", None))
        }
    }
}

/// Returns the remarks about a report.
pub(super) fn notes(report: &ServiceReport) -> Markup {
    html! { @for note in &report.notes { p .note { (note) } } }
}

/// Returns a table of the Services of a report.
pub(super) fn table_of(caption: Caption<'_>, report: &ServiceReport, if_empty: &str) -> Markup {
    let rows: Vec<Markup> = report.items.iter().map(row).collect();
    table(caption, &COLUMNS, &rows, if_empty)
}

/// Returns the address of the page of a Service.
pub(super) fn detail_link(namespace: &str, name: &str) -> String {
    link("/service", [("namespace", namespace), ("name", name)])
}

fn row(service: &ServiceItem) -> Markup {
    html! {
        tr {
            th .name scope="row" {
                a href=(detail_link(&service.namespace, &service.name)) { (service.namespace) "/" wbr; (service.name) }
            }
            td data-label="State" { (state(service)) }
            td .address data-label="Frontends" { (frontends(service)) }
            td .number data-label="Endpoints ready" { (ready(&service.endpoint_counts)) }
            td .reason data-label="Reason" { (reasons(service)) }
        }
    }
}

/// Returns the state of a Service. A Service that its specification excludes from proxying is neither good nor bad, nor is one with a
/// change that is not programmed yet.
pub(super) fn state(service: &ServiceItem) -> Markup {
    match service.status {
        _ if service.is_pending() => html! { span .state .none { "change pending" } },
        ServiceStatus::Serving => Level::Good.state("serving"),
        ServiceStatus::Degraded => match service.severity() {
            Some(Severity::Error) => Level::Bad.state("degraded"),
            _ => Level::Warning.state("degraded"),
        },
        ServiceStatus::NotServing => Level::Bad.state("not serving"),
        ServiceStatus::NotProxied => html! { span .state .none { "not proxied" } },
    }
}

fn frontends(service: &ServiceItem) -> Markup {
    let omitted = service.frontend_count.saturating_sub(service.frontends.len().min(FRONTENDS));
    html! {
        @if !service.frontends.is_empty() {
            ul {
                @for frontend in service.frontends.iter().take(FRONTENDS) { li { (frontend_text(frontend)) } }
                @if omitted > 0 { li { (count(omitted)) " more" } }
            }
        }
    }
}

/// Returns a frontend as text: `10.96.0.1:80/tcp`, `node port 30080/tcp`.
pub(super) fn frontend_text(frontend: &FrontendItem) -> String {
    let FrontendItem { port, protocol, .. } = frontend;
    match frontend.address {
        Some(address) => format!("{}/{protocol}", std::net::SocketAddr::new(address, *port)),
        None => format!("node port {port}/{protocol}"),
    }
}

/// Returns the name of a kind of frontend.
pub(super) fn kind_text(kind: FrontendKindName) -> &'static str {
    match kind {
        FrontendKindName::ClusterIp => "cluster IP",
        FrontendKindName::NodePort => "node port",
        FrontendKindName::LoadBalancer => "load balancer IP",
        FrontendKindName::ExternalIp => "external IP",
    }
}

/// Returns the numbers of ready and of all endpoints. Families of equal numbers are shown once.
fn ready(counts: &[EndpointCounts]) -> Markup {
    let text = |one: &EndpointCounts| format!("{} of {}", count(one.ready), count(one.total));
    let Some(first) = counts.first() else { return html! {} };
    let are_equal = counts.iter().all(|one| text(one) == text(first));
    html! {
        @if are_equal { (text(first)) }
        @else { ul .plain { @for one in counts { li { (one.family) " " (text(one)) } } } }
    }
}

fn reasons(service: &ServiceItem) -> Markup {
    let shown: Vec<&Finding> = service.findings.iter().take(FINDINGS).collect();
    let omitted = service.findings.len() - shown.len() + service.omitted_findings;
    html! {
        @if let ([only], 0) = (&shown[..], omitted) { (only.message) }
        @else if !shown.is_empty() {
            ul .plain {
                @for finding in shown { li { (finding.message) } }
                @if omitted > 0 { li { (counted(omitted, "more reason")) } }
            }
        }
    }
}
