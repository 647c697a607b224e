//! Output tables.

use std::fmt;

use super::figures::{Millis, Samples, Times, ratio};
use super::follower::{Change, First};
use super::in_process::{self, grouped};
use super::packets::{self, Row};
use super::through_daemon::{Measured, MeasuredBlocks};

/// Table of syncs and changes in this process.
pub(crate) struct InProcess<'a> {
    pub(crate) pods: usize,
    pub(crate) first: &'a First,
    pub(crate) changes: &'a [Change],
}

impl fmt::Display for InProcess<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let First { ours, compile, bare, written } = self.first;
        writeln!(f, "{}", in_process::about(self.pods))?;
        writeln!(f, "{written}")?;
        head(f)?;
        row(f, "first sync", [ours, compile, bare], None)?;
        self.changes.iter().try_for_each(|change| change_row(f, change.what, change))
    }
}

fn head(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let names = |names: &[&str]| names.iter().map(|name| format!("{name:>9}")).collect::<String>();
    let (wall, processor) =
        (names(&["median", "worst", "compile", "bare"]), names(&["CPU", "compile", "bare"]));
    writeln!(f, "  {:<34}{:>9}{wall}{:>7} │{processor}{:>7}", "", "elements", "ratio", "ratio")
}

fn change_row(f: &mut fmt::Formatter<'_>, what: &str, change: &Change) -> fmt::Result {
    let Change { ours, compile, bare, elements, .. } = change;
    row(f, what, [ours, compile, bare], Some(*elements))
}

fn row(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    [ours, compile, bare]: [&Samples; 3],
    elements: Option<usize>,
) -> fmt::Result {
    let elements = elements.map(grouped).unwrap_or_default();
    write!(f, "  {what:<34}{elements:>9}{}{}", Millis(ours.wall.median()), Millis(ours.wall.worst()))?;
    let medians =
        |times: fn(&Samples) -> &Times| [ours, compile, bare].map(|samples| times(samples).median());
    let [took, compile_time, limit] = medians(|samples| &samples.wall);
    write!(f, "{}{}{:>7.2} │", Millis(compile_time), Millis(limit), ratio(took, limit))?;
    let [took, compile_time, limit] = medians(|samples| &samples.processor);
    writeln!(f, "{}{}{}{:>7.2}", Millis(took), Millis(compile_time), Millis(limit), ratio(took, limit))
}

/// Table of the start of a remote pod in clusters of several sizes.
pub(crate) struct Growth<'a>(pub(crate) &'a [(usize, Change)]);

impl fmt::Display for Growth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "A pod starts elsewhere, by cluster size")?;
        head(f)?;
        self.0
            .iter()
            .try_for_each(|(pods, change)| change_row(f, &format!("{} pods", grouped(*pods)), change))
    }
}

/// Table of changes that meet large policies.
pub(crate) struct Large<'a> {
    pub(crate) pods: usize,
    pub(crate) changes: &'a [Change],
}

impl fmt::Display for Large<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Large policies, and policies of all pods, in the cluster of {} pods",
            grouped(self.pods)
        )?;
        head(f)?;
        self.changes.iter().try_for_each(|change| change_row(f, change.what, change))
    }
}

/// Table of the daemon with an API server.
pub(crate) struct Daemon<'a>(pub(crate) &'a Measured);

impl fmt::Display for Daemon<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Measured { changes, first, repair, repair_bare, memory: (with, without) } = self.0;
        writeln!(f, "The daemon: from the API server's write to the kernel's notification")?;
        writeln!(f, "  {:<34}{:>9}{:>9}{:>9}{:>7}", "", "median", "worst", "bare", "ratio")?;
        for (what, times) in changes {
            writeln!(f, "  {what:<34}{}{}", Millis(times.median()), Millis(times.worst()))?;
        }
        let ratio = ratio(repair.median(), repair_bare.wall.median());
        write!(f, "  {:<34}{}", "table deleted and restored", Millis(repair.median()))?;
        writeln!(f, "{}{}{ratio:>7.2}", Millis(repair.worst()), Millis(repair_bare.wall.median()))?;
        let first = first.as_secs_f64() * 1e3;
        writeln!(
            f,
            "  first sync of policies {first:.1} ms; RSS at most {with:.1} MB, without policies {without:.1} MB"
        )
    }
}

/// Table of the daemon with a policy of many address blocks.
pub(crate) struct DaemonBlocks<'a>(pub(crate) &'a MeasuredBlocks);

impl fmt::Display for DaemonBlocks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MeasuredBlocks { latency, processor, memory: [before, peak, after] } = self.0;
        write!(
            f,
            "  {:<34}{}{}",
            "1 of 19,900 blocks changes",
            Millis(latency.median()),
            Millis(latency.worst())
        )?;
        writeln!(
            f,
            "  CPU {:.0} ms; RSS {before:.1} MB before, {peak:.1} MB at the peak, {after:.1} MB after",
            processor.median().as_secs_f64() * 1e3
        )
    }
}

/// Table of packet rates.
pub(crate) struct Packets<'a>(pub(crate) &'a [Row]);

impl fmt::Display for Packets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Per second and CPU, from low quantiles of short measurements, by policies of the server pod; ratios are relative to no table"
        )?;
        write!(f, "  {:<34}", "")?;
        packets::columns().iter().try_for_each(|column| write!(f, "{column:>32}"))?;
        writeln!(f)?;
        for Row { variant, rates } in self.0 {
            write!(f, "  {:<34}", variant.to_string())?;
            for (rate, ratio) in rates {
                write!(f, "{:>25}{ratio:>7.2}", grouped(*rate as usize))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
