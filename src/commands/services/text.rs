//! Prints Services as a table.

use std::io::{self, Write};
use std::net::SocketAddr;

use super::columns;
use crate::service_report::{
    EndpointCounts, Finding, FrontendItem, Reason, ServiceItem, ServiceReport, ServiceStatus, Severity,
};
use crate::truncated_list;

/// The number of frontends that a table shows.
const SHOWN_FRONTENDS: usize = 2;

/// The number of reasons that a table shows.
const SHOWN_REASONS: usize = 2;

/// Prints a line for each Service.
pub(super) fn print(
    found: &ServiceReport,
    has_namespaces: bool,
    is_wide: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    if found.items.is_empty() {
        return writeln!(out, "no Services");
    }
    let mut head = vec!["NAME", "TYPE", "FRONTENDS", "ENDPOINTS", "STATUS"];
    if has_namespaces {
        head.insert(0, "NAMESPACE");
    }
    if is_wide {
        head.extend(["LOCAL", "AFFINITY", "SELECTION", "MESSAGE"]);
    }
    let row = |item: &ServiceItem| {
        let shown = if is_wide { usize::MAX } else { SHOWN_FRONTENDS };
        let namespace = has_namespaces.then(|| item.namespace.clone());
        let mut row: Vec<String> = namespace.into_iter().collect();
        row.extend([
            item.name.clone(),
            item.service_type.clone().unwrap_or_else(|| "-".to_owned()),
            frontends(item, shown),
            endpoints(&item.endpoint_counts),
            status(item),
        ]);
        if is_wide {
            row.extend(wide_columns(item));
        }
        row
    };
    columns::print("", &head, &found.items.iter().map(row).collect::<Vec<_>>(), out)
}

/// Prints a line for each error and warning.
pub(super) fn print_problems(found: &ServiceReport, out: &mut dyn Write) -> io::Result<()> {
    if found.items.is_empty() {
        return writeln!(out, "no Service has a problem");
    }
    let mut rows = Vec::new();
    for item in &found.items {
        let name = || [item.namespace.clone(), item.name.clone()];
        for finding in item.findings.iter().filter(|finding| finding.severity >= Severity::Warning) {
            let Finding { severity, reason, .. } = finding;
            let cells = [severity.as_str().to_owned(), reason.to_string(), with_hint(finding)];
            rows.push(name().into_iter().chain(cells).collect());
        }
        if item.omitted_findings > 0 {
            let more = format!("and {} more", item.omitted_findings);
            rows.push(name().into_iter().chain(["-".to_owned(), "-".to_owned(), more]).collect());
        }
    }
    columns::print("", &["NAMESPACE", "NAME", "SEVERITY", "REASON", "MESSAGE"], &rows, out)
}

fn with_hint(finding: &Finding) -> String {
    match &finding.hint {
        Some(hint) => format!("{}; {hint}", finding.message),
        None => finding.message.clone(),
    }
}

/// Returns the status, or the reasons for it.
pub(super) fn status(item: &ServiceItem) -> String {
    let is_problem = item.has_problem() || item.status == ServiceStatus::NotProxied;
    let reasons: &[Reason] = match item.status {
        _ if item.is_pending() => &[Reason::Pending],
        ServiceStatus::Serving => &[],
        _ if is_problem => &item.reasons,
        _ => &[],
    };
    match reasons {
        [] => status_name(item.status).to_owned(),
        reasons => truncated_list::names(reasons, SHOWN_REASONS),
    }
}

/// Returns the name of a status.
pub(super) fn status_name(status: ServiceStatus) -> &'static str {
    match status {
        ServiceStatus::Serving => "Serving",
        ServiceStatus::Degraded => "Degraded",
        ServiceStatus::NotServing => "NotServing",
        ServiceStatus::NotProxied => "NotProxied",
    }
}

/// Returns the first frontends and the number of the rest. A node port of both families is one.
fn frontends(item: &ServiceItem, shown: usize) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut duplicates = 0;
    for frontend in item.frontends.iter().map(frontend) {
        match texts.contains(&frontend) {
            true => duplicates += 1,
            false => texts.push(frontend),
        }
    }
    let count = item.frontend_count.saturating_sub(duplicates);
    texts.truncate(shown);
    match count.saturating_sub(texts.len()) {
        _ if count == 0 => "-".to_owned(),
        0 => texts.join(", "),
        more => format!("{} and {more} more", texts.join(", ")),
    }
}

/// Returns `10.96.0.10:53/udp`, or `:30080/tcp` for a node port.
pub(super) fn frontend(frontend: &FrontendItem) -> String {
    let FrontendItem { address, port, protocol, .. } = frontend;
    match address {
        Some(address) => format!("{}/{protocol}", SocketAddr::new(*address, *port)),
        None => format!(":{port}/{protocol}"),
    }
}

/// Returns ready and all endpoints: `2/3`, or with the families if they differ.
fn endpoints(counts: &[EndpointCounts]) -> String {
    let pair = |counts: &EndpointCounts| format!("{}/{}", counts.ready, counts.total);
    match counts {
        [] => "0/0".to_owned(),
        [only] => pair(only),
        [first, second] if pair(first) == pair(second) => pair(first),
        several => {
            let texts: Vec<String> =
                several.iter().map(|counts| format!("{} {}", counts.family, pair(counts))).collect();
            texts.join(", ")
        }
    }
}

fn wide_columns(item: &ServiceItem) -> [String; 4] {
    let local = item.endpoint_counts.iter().map(|counts| counts.local).max().unwrap_or_default();
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        local.to_string(),
        or_none(item.session_affinity_seconds.map(|seconds| format!("{seconds}s"))),
        or_none(item.balancing.as_ref().map(|balancing| balancing.method.clone())),
        or_none(item.findings.first().map(|finding| finding.message.clone())),
    ]
}
