//! Lists in health that lines of the log are missing.

use std::time::Duration;

use crate::moment::Moment;
use crate::observe::health::HealthProblem;

/// How long a line that was dropped from the log is a problem.
const DROPPED_LINES_LISTED: Duration = Duration::from_mins(5);

/// When lines of the log were last dropped.
#[derive(Debug, Default)]
pub(crate) struct DroppedLines {
    last: Option<(u64, Moment)>,
}

impl DroppedLines {
    /// The problem, if `total` says that lines were dropped lately.
    pub(crate) fn problem(&mut self, total: u64, now: Moment) -> Option<HealthProblem> {
        if total > self.last.map_or(0, |(before, _)| before) {
            self.last = Some((total, now));
        }
        let (total, at) = self.last?;
        let text = format!(
            "{total} lines were dropped since the start, the last at {}: standard error could not take them",
            at.wall()
        );
        (now.since(at) < DROPPED_LINES_LISTED).then(|| HealthProblem::warning(text))
    }
}
