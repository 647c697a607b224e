//! The result of a soak and its thresholds.

use std::fmt;

use super::resources::Quarters;
use crate::step::Mode;

/// Largest growth of anonymous memory between the first and the last quarter, in KiB.
const MEMORY_GROWTH_KIB: u64 = 2 << 10;

/// The seconds after which an idle thread of the runtime's pool ends. One that starts in the second half of a short soak is there
/// until its end; in the last quarter of a long one, it ends.
const POOL_KEEP_ALIVE: u64 = 10;

pub(super) struct Report {
    pub(super) mode: Mode,
    pub(super) policies: bool,
    pub(super) seconds: u64,
    pub(super) changes: usize,
    /// All and lost ones.
    pub(super) connections: [usize; 2],
    pub(super) datagrams: [usize; 2],
    /// Connections that a policy denies.
    pub(super) denied: usize,
    pub(super) answered_denied: usize,
    pub(super) quarters: Quarters,
    /// The output of `portcullis diff` if it was not clean.
    pub(super) diff: Option<String>,
}

impl Report {
    /// Returns the thresholds that are missed.
    pub(super) fn missed(&self) -> Vec<String> {
        let Quarters { anonymous_kib, descriptors, threads } = self.quarters;
        let mut missed = Vec::new();
        let mut check = |is_met: bool, what: String| missed.extend((!is_met).then_some(what));
        check(self.connections[1] == 0, format!("{} connections lost", self.connections[1]));
        check(self.datagrams[1] == 0, format!("{} datagrams lost", self.datagrams[1]));
        check(
            self.answered_denied == 0,
            format!("{} denied connections were answered", self.answered_denied),
        );
        check(
            anonymous_kib[1] <= anonymous_kib[0] + MEMORY_GROWTH_KIB,
            format!("anonymous memory grew from {} to {} KiB", anonymous_kib[0], anonymous_kib[1]),
        );
        check(descriptors[1] <= descriptors[0], format!("descriptors grew: {descriptors:?}"));
        let pool = if self.seconds < 8 * POOL_KEEP_ALIVE { 1 } else { 0 };
        check(threads[1] <= threads[0] + pool, format!("threads grew: {threads:?}"));
        check(self.diff.is_none(), format!("diff: {}", self.diff.as_deref().unwrap_or_default()));
        missed.into_iter().map(|what| format!("{}: {what}", self.mode.name())).collect()
    }
}

impl fmt::Display for Report {
    /// Writes a row of a Markdown table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Quarters { anonymous_kib, descriptors, threads } = self.quarters;
        let mib = anonymous_kib.map(|kib| kib as f64 / 1024.0);
        writeln!(
            f,
            "| mode | seconds | changes | connections | lost | datagrams | lost | denied | answered | anonymous MiB, first and last \
             quarter | descriptors | threads | diff |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
        write!(
            f,
            "| {}{} | {} | {} | {} | {} | {} | {} | {} | {} | {:.1} → {:.1} | {} → {} | {} → {} | {} |",
            self.mode.name(),
            if self.policies { ", policies" } else { "" },
            self.seconds,
            self.changes,
            self.connections[0],
            self.connections[1],
            self.datagrams[0],
            self.datagrams[1],
            self.denied,
            self.answered_denied,
            mib[0],
            mib[1],
            descriptors[0],
            descriptors[1],
            threads[0],
            threads[1],
            if self.diff.is_none() { "clean" } else { "not clean" },
        )
    }
}
