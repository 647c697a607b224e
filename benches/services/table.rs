//! The printed table.

use std::fmt;

use super::changes::CHANGES_A_SECOND;
use super::cluster_state::ENDPOINTS;
use super::figures::{Measured, Ours, Row, grouped};

/// All figures, aligned.
pub(crate) struct Table<'a>(pub(crate) &'a [Measured]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Times in seconds, medians; processor time is user and system together.")?;
        writeln!(
            f,
            "bare: iptables-restore alone, with the same text; for IPVS a loop that sends the same objects, and rules."
        )?;
        writeln!(f, "sync: as the daemon measures it.")?;
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
    writeln!(f, "{} Services × {ENDPOINTS} endpoints, {}: {}", grouped(m.services), m.way, m.written)?;
    writeln!(
        f,
        "  {:<28}{:>8}{:>8}{:>7}{:>8} │ {:>9}{:>8}{:>8}{:>7}",
        "", "bare", "sync", "ratio", "event", "bare CPU", "tools", "daemon", "ratio"
    )?;
    m.rows.iter().try_for_each(|line| row(f, line))?;
    writeln!(
        f,
        "  served {:.2} s after its start; RSS at most {:.1} MB, in the end {:.1} MB, of which {:.1} MB anonymous",
        m.start_to_served, m.peak_resident, m.resident, m.anonymous
    )?;
    match m.under_load {
        None => Ok(()),
        Some(share) => writeln!(
            f,
            "  {CHANGES_A_SECOND} changed endpoints a second take {:.1} % of a processor",
            share * 100.0
        ),
    }
}

fn row(f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
    write!(f, "  {:<28}{}", row.what, Seconds(row.bare_wall))?;
    match &row.ours {
        None => writeln!(f, "{:>23} │  {}", "", Seconds(row.bare_processor)),
        Some(Ours { sync, all, daemon_processor, tools_processor }) => writeln!(
            f,
            "{}{:>7.2}{} │  {}{}{}{:>7.2}",
            Seconds(*sync),
            sync / row.bare_wall,
            Seconds(*all),
            Seconds(row.bare_processor),
            Seconds(*tools_processor),
            Seconds(*daemon_processor),
            (tools_processor + daemon_processor) / row.bare_processor
        ),
    }
}

/// A time in a column of width 8, with as many digits as are significant.
struct Seconds(f64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.0 > 0.0 && self.0 < 0.01 { 5 } else { 3 };
        write!(f, "{:>8.digits$}", self.0)
    }
}
