//! Prints one Service with its findings, frontends and endpoints.

use std::io::{self, Write};
use std::net::SocketAddr;

use super::columns;
use super::text::{frontend, status_name};
use crate::service_report::{Balancing, EndpointItem, FrontendItem, FrontendKindName, ServiceItem};

/// Prints a Service.
pub(super) fn print(item: &ServiceItem, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "Service:    {}/{}", item.namespace, item.name)?;
    if let Some(service_type) = &item.service_type {
        writeln!(out, "Type:       {service_type}")?;
    }
    writeln!(out, "Status:     {}", status_name(item.status))?;
    if let Some(Balancing { method, is_even }) = &item.balancing {
        let share = if *is_even { "" } else { "; shares depend on clients or open connections" };
        writeln!(out, "Selection:  {method}{share}")?;
    }
    if let Some(seconds) = item.session_affinity_seconds {
        writeln!(out, "Affinity:   by client address for {seconds}s; shares are of new clients")?;
    }
    findings(item, out)?;
    if !item.frontends.is_empty() {
        writeln!(out, "Frontends:")?;
        let rows: Vec<Vec<String>> = item.frontends.iter().map(frontend_row).collect();
        columns::print(
            "  ",
            &["PORT", "KIND", "ADDRESS", "FAMILY", "POLICY", "SOURCES", "ENDPOINTS", "ANSWERS"],
            &rows,
            out,
        )?;
    }
    endpoints(item, out)
}

fn findings(item: &ServiceItem, out: &mut dyn Write) -> io::Result<()> {
    if !item.findings.is_empty() {
        writeln!(out, "Findings:")?;
    }
    for finding in &item.findings {
        writeln!(out, "  {} {}: {}", finding.severity.as_str(), finding.reason, finding.message)?;
        if let Some(hint) = &finding.hint {
            writeln!(out, "    {hint}")?;
        }
    }
    match item.omitted_findings {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more"),
    }
}

fn frontend_row(item: &FrontendItem) -> Vec<String> {
    let kind = match item.kind {
        FrontendKindName::ClusterIp => "cluster IP",
        FrontendKindName::NodePort => "node port",
        FrontendKindName::LoadBalancer => "load balancer",
        FrontendKindName::ExternalIp => "external IP",
    };
    let sources = match item.source_ranges.as_deref() {
        None => "all".to_owned(),
        Some([]) => "none".to_owned(),
        Some(ranges) => ranges.join(","),
    };
    let answers = match (item.answers, &item.shadowed_by) {
        (true, _) => "yes".to_owned(),
        (false, None) => "no".to_owned(),
        (false, Some(by)) => format!("no, served for {by}"),
    };
    vec![
        port_name(&item.port_name),
        kind.to_owned(),
        frontend(item),
        item.family.clone(),
        item.traffic_policy.clone(),
        sources,
        item.endpoints.to_string(),
        answers,
    ]
}

fn endpoints(item: &ServiceItem, out: &mut dyn Write) -> io::Result<()> {
    let endpoints = item.endpoints.as_deref().unwrap_or_default();
    if endpoints.is_empty() {
        return Ok(());
    }
    let has_local_policy = endpoints.iter().any(|endpoint| endpoint.local_share_percent.is_some());
    let mut head = vec!["PORT", "ADDRESS", "POD", "NODE", "STATE", "SHARE"];
    if has_local_policy {
        head.push("LOCAL SHARE");
    }
    let row = |endpoint: &EndpointItem| {
        let node = endpoint.node.clone().unwrap_or_else(|| "-".to_owned());
        let mut row = vec![
            port_name(&endpoint.port_name),
            format!("{}/{}", SocketAddr::new(endpoint.address, endpoint.port), endpoint.protocol),
            endpoint.pod.clone().unwrap_or_else(|| "-".to_owned()),
            if endpoint.is_local { format!("{node} (local)") } else { node },
            state(endpoint).to_owned(),
            share(endpoint.cluster_share_percent),
        ];
        if has_local_policy {
            row.push(share(endpoint.local_share_percent));
        }
        row
    };
    writeln!(out, "Endpoints:")?;
    columns::print("  ", &head, &endpoints.iter().map(row).collect::<Vec<_>>(), out)
}

fn port_name(name: &str) -> String {
    if name.is_empty() { "-".to_owned() } else { name.to_owned() }
}

fn state(endpoint: &EndpointItem) -> &'static str {
    match (endpoint.ready, endpoint.serving, endpoint.terminating) {
        (true, ..) => "ready",
        (false, true, true) => "terminating, serving",
        (false, false, true) => "terminating",
        (false, true, false) => "serving, not ready",
        (false, false, false) => "not ready",
    }
}

fn share(percent: Option<f64>) -> String {
    percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent}%"))
}
