//! The table that is printed.

use std::fmt;

use super::cluster_state::ENDPOINTS;
use super::figures::{Measured, Ours, Row};

/// All figures, aligned.
pub(crate) struct Table<'a>(pub(crate) &'a [Measured]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Times in seconds, medians; processor time is user and system together.")?;
        writeln!(f, "bare: iptables-restore alone, with the same text. sync: as the daemon measures it.")?;
        writeln!(
            f,
            "event: from the change at the API server (for a first sync: from the last object known)"
        )?;
        writeln!(
            f,
            "to rules in place. Ratios are to bare: of sync, and of all processor time; that of a first"
        )?;
        writeln!(f, "sync has all that the daemon did since its start, the listing of all objects too.")?;
        for measured in self.0 {
            writeln!(f)?;
            one(f, measured)?;
        }
        Ok(())
    }
}

fn one(f: &mut fmt::Formatter<'_>, m: &Measured) -> fmt::Result {
    let (services, lines) = (grouped(m.services), grouped(m.lines));
    let flavour = m.flavour.name();
    writeln!(
        f,
        "{services} Services × {ENDPOINTS} endpoints, {flavour} tool: {lines} lines, restores: {}",
        m.restores
    )?;
    writeln!(
        f,
        "  {:<28}{:>8}{:>8}{:>7}{:>8} │ {:>9}{:>8}{:>8}{:>7}",
        "", "bare", "sync", "ratio", "event", "bare CPU", "tools", "daemon", "ratio"
    )?;
    m.rows.iter().try_for_each(|line| row(f, line))?;
    writeln!(
        f,
        "  served {:.2} s after its start; memory at most {:.1} MB, in the end {:.1} MB",
        m.start_to_served, m.peak_memory, m.memory_after
    )
}

fn row(f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
    write!(f, "  {:<28}{:>8.3}", row.what, row.bare_wall)?;
    match &row.ours {
        None => writeln!(f, "{:>23} │ {:>9.3}", "", row.bare_processor),
        Some(Ours { sync, all, daemon_processor, tools_processor }) => writeln!(
            f,
            "{sync:>8.3}{:>7.2}{all:>8.3} │ {:>9.3}{tools_processor:>8.3}{daemon_processor:>8.3}{:>7.2}",
            sync / row.bare_wall,
            row.bare_processor,
            (tools_processor + daemon_processor) / row.bare_processor
        ),
    }
}

/// A number with commas between thousands.
fn grouped(number: usize) -> String {
    match number / 1000 {
        0 => number.to_string(),
        thousands => format!("{},{:03}", grouped(thousands), number % 1000),
    }
}
