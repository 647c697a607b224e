//! Prints a migration report as text.

use std::io::{self, Write};

use super::affected_connections::Counts;
use super::migration_report::MigrationReport;
use crate::plural::plural;

/// The number of virtual servers that are listed.
const LISTED: usize = 5;

/// Prints a report.
///
/// # Errors
/// The output cannot be written.
pub(super) fn print(report: &MigrationReport, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "To {} mode", report.to)?;
    section(out, "Current mode", &current_modes(report))?;
    section(out, "To be written", &planned_rules(report))?;
    section(out, "To be removed, once the new mode serves", &or_none(&report.removed))?;
    section(out, "Established connections", &connections(report))?;
    let mut obstacles: Vec<String> = report.missing.iter().cloned().collect();
    for proxy in report.obstacles() {
        obstacles.push(format!("{proxy}, and would write its rules again; stop it on this node first"));
    }
    section(out, "Obstacles", &or_none(&obstacles))?;
    if !report.failed_checks.is_empty() {
        section(out, "Failed checks", &report.failed_checks)?;
    }
    Ok(())
}

fn section(out: &mut dyn Write, title: &str, lines: &[String]) -> io::Result<()> {
    writeln!(out, "\n{title}")?;
    lines.iter().try_for_each(|line| writeln!(out, "  {line}"))
}

fn or_none(lines: &[String]) -> Vec<String> {
    if lines.is_empty() { vec!["none".to_owned()] } else { lines.to_vec() }
}

fn current_modes(report: &MigrationReport) -> Vec<String> {
    let mut lines = Vec::new();
    for current in &report.serving {
        lines.push(format!("{} mode, rules of {}", current.mode, current.proxy));
        lines.extend(current.evidence.iter().map(|line| format!("  {line}")));
    }
    or_none(&lines)
}

fn planned_rules(report: &MigrationReport) -> Vec<String> {
    let planned = &report.planned_rules;
    let mut lines =
        vec![format!("{} with {}", plural(planned.services, "Service"), plural(planned.ports, "port"))];
    lines.extend(planned.details.iter().map(|line| format!("  {line}")));
    lines
}

fn connections(report: &MigrationReport) -> Vec<String> {
    let affected = &report.connections;
    let mut lines = Vec::new();
    if !affected.translated.is_empty() {
        lines.push(format!(
            "{} translated by rules: they continue, as connection tracking keeps their translation",
            describe_counts(&affected.translated)
        ));
    }
    if !affected.balanced.is_empty() {
        let effect = match report.to {
            "ipvs" => "they continue".to_owned(),
            _ => format!(
                "TCP and SCTP connections may end within {} s and are then reset; UDP continues through the new rules, \
                 possibly to another endpoint",
                report.drain_seconds
            ),
        };
        lines.push(format!("{} through IPVS: {effect}", describe_counts(&affected.balanced)));
        let listed = affected.virtual_servers.iter().take(LISTED);
        lines.extend(listed.map(|server| {
            format!("  {} through {}/{}", server.connections, server.address, server.protocol)
        }));
        let more = affected.virtual_servers.len().saturating_sub(LISTED);
        if more > 0 {
            lines.push(format!("  and more through {}", plural(more, "other virtual server")));
        }
    }
    or_none(&lines)
}

fn describe_counts(counts: &Counts) -> String {
    counts.iter().map(|(protocol, count)| format!("{count} {protocol}")).collect::<Vec<_>>().join(", ")
}
