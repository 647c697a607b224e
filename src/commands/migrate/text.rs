//! A report for people.

use std::io::{self, Write};

use super::report::Report;
use super::stake::Counts;

/// So many virtual servers are named.
const NAMED: usize = 5;

/// Prints it.
///
/// # Errors
/// The output cannot be written.
pub(super) fn print(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "To {} mode", report.to)?;
    section(out, "Serves now", &now(report))?;
    section(out, "Will be written", &written(report))?;
    section(out, "Will be removed, once that serves", &or_nothing(&report.removed))?;
    section(out, "Connections under way", &connections(report))?;
    let mut in_the_way: Vec<String> = report.missing.iter().cloned().collect();
    for proxy in report.obstacles() {
        in_the_way.push(format!("{proxy}: it would write its rules again; stop it on this node first"));
    }
    section(out, "In the way", &or_nothing(&in_the_way))?;
    if !report.unknown.is_empty() {
        section(out, "Could not be looked at", &report.unknown)?;
    }
    Ok(())
}

fn section(out: &mut dyn Write, title: &str, lines: &[String]) -> io::Result<()> {
    writeln!(out, "\n{title}")?;
    lines.iter().try_for_each(|line| writeln!(out, "  {line}"))
}

fn or_nothing(lines: &[String]) -> Vec<String> {
    if lines.is_empty() { vec!["nothing".to_owned()] } else { lines.to_vec() }
}

fn now(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    for now in &report.serving {
        lines.push(format!("{} mode, by {}", now.mode, now.whose));
        lines.extend(now.evidence.iter().map(|line| format!("  {line}")));
    }
    or_nothing(&lines)
}

fn written(report: &Report) -> Vec<String> {
    let written = &report.written;
    let mut lines = vec![format!("{} Services with {} ports", written.services, written.ports)];
    lines.extend(written.details.iter().map(|line| format!("  {line}")));
    lines
}

fn connections(report: &Report) -> Vec<String> {
    let stake = &report.connections;
    let mut lines = Vec::new();
    if !stake.translated.is_empty() {
        lines.push(format!(
            "{} translated by rules: they live on, as connection tracking knows them",
            counted(&stake.translated)
        ));
    }
    if !stake.balanced.is_empty() {
        let becomes = match report.to {
            "ipvs" => "they live on".to_owned(),
            _ => format!(
                "TCP and SCTP are waited for, {} s at most, and then reset; UDP goes on through the new rules, maybe \
                 to another endpoint",
                report.drain_seconds
            ),
        };
        lines.push(format!("{} through IPVS: {becomes}", counted(&stake.balanced)));
        let named = stake.virtual_servers.iter().take(NAMED);
        lines.extend(
            named.map(|server| format!("  {} by {}/{}", server.connections, server.address, server.protocol)),
        );
        let more = stake.virtual_servers.len().saturating_sub(NAMED);
        if more > 0 {
            lines.push(format!("  and more through {more} other virtual servers"));
        }
    }
    or_nothing(&lines)
}

fn counted(counts: &Counts) -> String {
    counts.iter().map(|(protocol, count)| format!("{count} {protocol}")).collect::<Vec<_>>().join(", ")
}
