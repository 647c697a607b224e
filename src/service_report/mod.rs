//! The Service report: what a node serves, and why a Service does not answer.
//!
//! ```text
//! index, Desired, node facts ─► Cause (all Services, if they are filtered by problems) ─► Finding ─► ServiceItem ─► page
//! isolated Services             cheap, without text                                       text, of the shown Services
//! ```
//! Pure. `portcullis services`, the local API, the page and the support archive show it; `explain` has the same reasons.

mod cause;
mod documents;
mod endpoint_text;
mod finding;
mod input;
mod item;
mod lookup;
mod no_endpoints;
mod query;
mod reason;
mod selector;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};
use std::net::IpAddr;

use portcullis_cluster::service::Service;
use portcullis_cluster::{Kind, NamespacedName, ObjectKey};

pub use documents::{
    API_VERSION, Balancing, EndpointCounts, EndpointItem, Finding, FrontendItem, FrontendKindName, KIND,
    ServiceItem, ServiceReport, ServiceStatus,
};
pub(crate) use endpoint_text::{no_local_endpoint, not_ready};
pub(crate) use finding::SPLIT_SERVICE;
pub use input::{Isolation, ReportInput};
pub use lookup::NotFound;
pub(crate) use no_endpoints::{Diagnosis, DiagnosisInput, diagnose};
pub use query::{MAX_ITEMS, ServiceQuery};
pub use reason::{Reason, Severity};

use cause::{Cause, causes};
use item::{PodsByAddress, item, needs_pods, unreadable};

/// The maximum number of findings of a Service.
const MAX_FINDINGS: usize = 20;

/// The maximum number of frontends and endpoints of a page that lists endpoints; the last Service may exceed it.
const MAX_ENTRIES: usize = 50_000;

/// The maximum number of pods that the descriptions of a page may visit, so that a page of Services without endpoints takes no
/// longer than others. The first description may exceed it.
const MAX_POD_VISITS: usize = 200_000;

/// Returns the Services that match a query.
///
/// # Errors
/// The query names a Service or a namespace that does not exist.
pub fn report(input: &ReportInput<'_>, query: &ServiceQuery) -> Result<ServiceReport, NotFound> {
    let Some(Selection { total, before, first }) = Selection::new(input, query) else {
        lookup::check(input, query)?;
        return Ok(page_of(input, 0, 0, Vec::new(), None));
    };
    let offset = before.saturating_add(query.offset).min(total);
    let page = first.get(query.offset..).unwrap_or_default();
    let items = Page { input, pod_visits: Cell::new(0) }.items(page, query.endpoints);
    let next = page[..items.len()].last().filter(|_| offset + items.len() < total);
    let next = next.map(|row| row.name().to_string());
    Ok(page_of(input, total, offset, items, next))
}

fn page_of(
    input: &ReportInput<'_>,
    total: usize,
    offset: usize,
    items: Vec<ServiceItem>,
    next: Option<String>,
) -> ServiceReport {
    ServiceReport {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        node: input.desired.node().to_string(),
        mode: input.mode.name().to_owned(),
        total,
        offset,
        next,
        items,
        notes: notes(input),
    }
}

/// The Services that match a query, up to the end of the page.
struct Selection<'a> {
    /// The number of all.
    total: usize,
    /// The number of those that are not after [`ServiceQuery::after`].
    before: usize,
    /// The first ones after it, in order of their names: those that the query omits, and the page.
    first: Vec<Row<'a>>,
}

impl<'a> Selection<'a> {
    /// Selects the Services. Those of later pages are neither kept nor sorted. Returns `None` if the query names none, whether they
    /// have problems or not.
    fn new(input: &ReportInput<'a>, query: &ServiceQuery) -> Option<Self> {
        let wanted = query.offset.saturating_add(query.limit());
        let (mut is_any, mut total, mut before) = (false, 0, 0);
        let mut first: BinaryHeap<Row<'a>> = BinaryHeap::new();
        for row in rows(input, query) {
            is_any = true;
            if query.problems && !row.has_problem(input) {
                continue;
            }
            total += 1;
            if !query.is_after(row.name()) {
                before += 1;
            } else if first.len() < wanted {
                first.push(row);
            } else if let Some(mut last) = first.peek_mut()
                && row < *last
            {
                *last = row;
            }
        }
        is_any.then(|| Selection { total, before, first: first.into_sorted_vec() })
    }
}

/// A Service that matches a query.
enum Row<'a> {
    Readable(&'a Service),
    Unreadable(&'a NamespacedName),
}

impl<'a> Row<'a> {
    fn name(&self) -> &'a NamespacedName {
        match self {
            Row::Readable(service) => &service.key,
            Row::Unreadable(name) => name,
        }
    }

    fn has_problem(&self, input: &ReportInput<'_>) -> bool {
        match self {
            Row::Readable(service) => {
                causes(input, service).first().is_some_and(|cause| cause.severity() >= Severity::Warning)
            }
            Row::Unreadable(_) => true,
        }
    }
}

impl Ord for Row<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name())
    }
}

impl PartialOrd for Row<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Row<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Row<'_> {}

fn rows<'a>(input: &ReportInput<'a>, query: &ServiceQuery) -> impl Iterator<Item = Row<'a>> {
    let index = input.index;
    let readable = index.services().filter(|service| query.matches(&service.key, Some(service)));
    let is_named = |key: &&ObjectKey| **key != ObjectKey::unnamed(Kind::Service);
    let unreadable = index.unreadable().iter().filter(|key| key.kind == Kind::Service).filter(is_named);
    let unreadable = unreadable.map(|key| &key.name).filter(|name| query.matches(name, None));
    readable.map(Row::Readable).chain(unreadable.map(Row::Unreadable))
}

/// The Services of a page.
struct Page<'a> {
    input: &'a ReportInput<'a>,
    /// The number of pods that descriptions have visited.
    pod_visits: Cell<usize>,
}

impl Page<'_> {
    fn items(&self, rows: &[Row<'_>], has_endpoints: bool) -> Vec<ServiceItem> {
        let pods = has_endpoints.then(|| self.pods(rows));
        let mut entries = 0;
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            if has_endpoints && entries > MAX_ENTRIES {
                break;
            }
            let item = self.item(row, pods.as_ref());
            entries += item.frontends.len() + item.endpoints.as_ref().map_or(0, Vec::len);
            items.push(item);
        }
        items
    }

    fn item(&self, row: &Row<'_>, pods: Option<&PodsByAddress<'_>>) -> ServiceItem {
        let service = match row {
            Row::Readable(service) => service,
            Row::Unreadable(name) => return unreadable(name),
        };
        let causes = causes(self.input, service);
        let mut findings: Vec<Finding> = Vec::new();
        for cause in causes.iter().take(MAX_FINDINGS) {
            let finding = finding::describe(self.input, &service.key, cause, self.may_visit_pods(cause));
            // The ports of both families often have the same one.
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        item(self.input, service, findings, causes.len().saturating_sub(MAX_FINDINGS), pods)
    }

    fn may_visit_pods(&self, cause: &Cause<'_>) -> bool {
        let visited = self.pod_visits.get();
        // The pods of the namespace are searched for the selector, then those of all namespaces for similar ones.
        let visits = self.input.index.count(Kind::Pod).saturating_mul(2);
        let may_visit = self.input.has_pods
            && needs_pods(cause)
            && (visited == 0 || visited.saturating_add(visits) <= MAX_POD_VISITS);
        if may_visit {
            self.pod_visits.set(visited.saturating_add(visits));
        }
        may_visit
    }

    /// Returns the pods that have an address of an endpoint.
    fn pods(&self, rows: &[Row<'_>]) -> PodsByAddress<'_> {
        let slices = rows.iter().flat_map(|row| self.input.index.slices_of(row.name()));
        let addresses: HashSet<IpAddr> =
            slices.flat_map(|slice| slice.endpoints.iter()).map(|endpoint| endpoint.address).collect();
        let running = self.input.index.pods().filter(|pod| !pod.is_finished);
        let with_addresses = running.flat_map(|pod| pod.ips.iter().map(move |ip| (*ip, pod)));
        with_addresses.filter(|(ip, _)| addresses.contains(ip)).collect()
    }
}

/// Returns the remarks about the whole report.
fn notes(input: &ReportInput<'_>) -> Vec<String> {
    let mut notes = input.notes.clone();
    let unreadable = input.index.unreadable().iter().filter(|key| key.kind == Kind::EndpointSlice).count();
    if unreadable > 0 {
        notes.push(format!("{unreadable} EndpointSlices could not be read, so endpoints may be missing"));
    }
    if input.index.unreadable().iter().any(|key| *key == ObjectKey::unnamed(Kind::Service)) {
        notes.push("Services without a readable name could not be read, and are missing here".to_owned());
    }
    notes
}
