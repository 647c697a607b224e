//! The tables that are printed.

use std::fmt;

use super::figures::{Millis, ratio};
use super::in_process::{self, Change, First, grouped};
use super::packets::{Level, Row};
use super::through_daemon::Measured;

/// Syncs and changes in this process.
pub(crate) struct InProcess<'a> {
    pub(crate) pods: usize,
    pub(crate) first: &'a First,
    pub(crate) changes: &'a [Change],
}

impl fmt::Display for InProcess<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", in_process::about(self.pods))?;
        writeln!(f, "{}", self.first.written)?;
        head(f)?;
        let First { ours, compiled, bare, .. } = self.first;
        write!(f, "  {:<28}{}{}", "first sync", Millis(ours.median()), Millis(ours.worst()))?;
        let ratio = ratio(ours.median(), bare.median());
        writeln!(f, "{}{}{ratio:>7.2}", Millis(compiled.median()), Millis(bare.median()))?;
        self.changes.iter().try_for_each(|change| row(f, change.what, change))
    }
}

fn head(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let columns = ["median", "worst", "thought", "bare"].map(|column| format!("{column:>9}")).concat();
    writeln!(f, "  {:<28}{columns}{:>7}{:>10}", "", "ratio", "elements")
}

fn row(f: &mut fmt::Formatter<'_>, what: &str, change: &Change) -> fmt::Result {
    let Change { ours, thought, bare, elements, .. } = change;
    write!(f, "  {what:<28}{}{}", Millis(ours.median()), Millis(ours.worst()))?;
    let ratio = ratio(ours.median(), bare.median());
    writeln!(f, "{}{}{ratio:>7.2}{elements:>10}", Millis(thought.median()), Millis(bare.median()))
}

/// The start of a remote pod in clusters of several sizes.
pub(crate) struct Growth<'a>(pub(crate) &'a [(usize, Change)]);

impl fmt::Display for Growth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "A pod starts elsewhere, by the cluster's size")?;
        head(f)?;
        self.0.iter().try_for_each(|(pods, change)| row(f, &format!("{} pods", grouped(*pods)), change))
    }
}

/// The daemon, in front of an API server.
pub(crate) struct Daemon<'a>(pub(crate) &'a Measured);

impl fmt::Display for Daemon<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Measured { changes, first, repair, repair_bare, memory: (with, without) } = self.0;
        writeln!(f, "The daemon: from the API server's write to the kernel's notification")?;
        writeln!(f, "  {:<28}{:>9}{:>9}{:>9}{:>7}", "", "median", "worst", "bare", "ratio")?;
        for (what, times) in changes {
            writeln!(f, "  {what:<28}{}{}", Millis(times.median()), Millis(times.worst()))?;
        }
        let ratio = ratio(repair.median(), repair_bare.median());
        write!(f, "  {:<28}{}", "table deleted, to whole", Millis(repair.median()))?;
        writeln!(f, "{}{}{ratio:>7.2}", Millis(repair.worst()), Millis(repair_bare.median()))?;
        let first = first.as_secs_f64() * 1e3;
        writeln!(f, "  first sync of policies {first:.1} ms; memory at most {with:.1} MB, without policies {without:.1} MB")
    }
}

/// What packets cost.
pub(crate) struct Packets<'a> {
    pub(crate) levels: &'a [Level],
    pub(crate) rows: &'a [Row],
}

impl fmt::Display for Packets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Packets, a second, by the policies of the pod that is talked to; ratios are to no table at all")?;
        write!(f, "  {:<34}", "")?;
        for level in self.levels {
            let name = match level {
                Level::NoTable => "no table".to_owned(),
                Level::Policies(count) => format!("{count} policies"),
            };
            write!(f, "{name:>18}")?;
        }
        writeln!(f)?;
        for Row { what, way, rates } in self.rows {
            write!(f, "  {:<34}", format!("{what}, {way}"))?;
            let limit = rates.first().copied().unwrap_or(f64::NAN);
            for rate in rates {
                write!(f, "{:>11}{:>7.2}", grouped(*rate as usize), rate / limit)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
