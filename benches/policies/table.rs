//! The tables that are printed.

use std::fmt;

use super::figures::{Millis, Samples, Times, ratio};
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
        let First { ours, thought, bare, written } = self.first;
        writeln!(f, "{}", in_process::about(self.pods))?;
        writeln!(f, "{written}")?;
        head(f)?;
        row(f, "first sync", [ours, thought, bare], None)?;
        self.changes.iter().try_for_each(|change| change_row(f, change.what, change))
    }
}

fn head(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let names = |names: &[&str]| names.iter().map(|name| format!("{name:>9}")).collect::<String>();
    let (wall, processor) =
        (names(&["median", "worst", "thought", "bare"]), names(&["CPU", "thought", "bare"]));
    writeln!(f, "  {:<28}{:>9}{wall}{:>7} │{processor}{:>7}", "", "elements", "ratio", "ratio")
}

fn change_row(f: &mut fmt::Formatter<'_>, what: &str, change: &Change) -> fmt::Result {
    let Change { ours, thought, bare, elements, .. } = change;
    row(f, what, [ours, thought, bare], Some(*elements))
}

fn row(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    [ours, thought, bare]: [&Samples; 3],
    elements: Option<usize>,
) -> fmt::Result {
    let elements = elements.map(grouped).unwrap_or_default();
    write!(f, "  {what:<28}{elements:>9}{}{}", Millis(ours.wall.median()), Millis(ours.wall.worst()))?;
    let medians =
        |times: fn(&Samples) -> &Times| [ours, thought, bare].map(|samples| times(samples).median());
    let [took, thought_for, limit] = medians(|samples| &samples.wall);
    write!(f, "{}{}{:>7.2} │", Millis(thought_for), Millis(limit), ratio(took, limit))?;
    let [took, thought_for, limit] = medians(|samples| &samples.processor);
    writeln!(f, "{}{}{}{:>7.2}", Millis(took), Millis(thought_for), Millis(limit), ratio(took, limit))
}

/// The start of a remote pod in clusters of several sizes.
pub(crate) struct Growth<'a>(pub(crate) &'a [(usize, Change)]);

impl fmt::Display for Growth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "A pod starts elsewhere, by the cluster's size")?;
        head(f)?;
        self.0
            .iter()
            .try_for_each(|(pods, change)| change_row(f, &format!("{} pods", grouped(*pods)), change))
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
        let ratio = ratio(repair.median(), repair_bare.wall.median());
        write!(f, "  {:<28}{}", "table deleted, to whole", Millis(repair.median()))?;
        writeln!(f, "{}{}{ratio:>7.2}", Millis(repair.worst()), Millis(repair_bare.wall.median()))?;
        let first = first.as_secs_f64() * 1e3;
        writeln!(
            f,
            "  first sync of policies {first:.1} ms; memory at most {with:.1} MB, without policies {without:.1} MB"
        )
    }
}

/// What packets cost.
pub(crate) struct Packets<'a> {
    pub(crate) levels: &'a [Level],
    pub(crate) rows: &'a [Row],
}

impl fmt::Display for Packets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Packets, a second, by the policies of the pod that is talked to; ratios are to no table at all"
        )?;
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
