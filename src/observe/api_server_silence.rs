//! Reports the silence of the API server in the log and as Events.
//!
//! `/healthz` and the metrics show it by themselves. An Event can be sent immediately only if the server answers about other
//! kinds of objects; so when it is heard again, another Event says for how long it was not.

use std::time::{Duration, Instant};

use crate::source::{EventRecorder, EventType};

/// The action of these Events.
const WATCH: &str = "WatchObjects";

/// Whether the API server has been silent for too long, since when.
#[derive(Debug, Default)]
pub(crate) struct SilenceReporter {
    since: Option<Instant>,
}

/// What there is to report.
#[derive(Debug, PartialEq, Eq)]
enum Report {
    Silent,
    HeardAgain(Duration),
}

impl SilenceReporter {
    /// Reports a change. `problem` is what health says of the silence, if it lasts too long now.
    pub(crate) fn observe(&mut self, problem: Option<&str>, now: Instant, recorder: &EventRecorder) {
        match self.changed(problem.is_some(), now) {
            Some(Report::Silent) => {
                let problem = problem.unwrap_or_default();
                let text = format!("{problem}; keeping the last rules, which may be stale");
                tracing::warn!("{text}");
                recorder.node_event(EventType::Warning, ["APIServerSilent", WATCH], &text);
            }
            Some(Report::HeardAgain(silent)) => {
                let text = format!(
                    "the API server answers again after it was reported silent for {} s; the rules follow it",
                    silent.as_secs()
                );
                tracing::info!("{text}");
                recorder.node_event(EventType::Normal, ["APIServerHeardAgain", WATCH], &text);
            }
            None => {}
        }
    }

    fn changed(&mut self, silent: bool, now: Instant) -> Option<Report> {
        match (silent, self.since) {
            (true, None) => {
                self.since = Some(now);
                Some(Report::Silent)
            }
            (false, Some(since)) => {
                self.since = None;
                Some(Report::HeardAgain(now.saturating_duration_since(since)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_reported_once_and_so_is_its_end() {
        let start = Instant::now();
        let mut reporter = SilenceReporter::default();
        let rows = [
            (0, false, None),
            (5, true, Some(Report::Silent)),
            (10, true, None),
            (65, false, Some(Report::HeardAgain(Duration::from_secs(60)))),
            (70, false, None),
            (75, true, Some(Report::Silent)),
        ];
        for (second, silent, expected) in rows {
            assert_eq!(reporter.changed(silent, start + Duration::from_secs(second)), expected, "{second}");
        }
    }
}
