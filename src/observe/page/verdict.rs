//! The verdict: whether the node is healthy, in one line, with the reasons.

use maud::{Markup, html};

use super::format::counted;
use super::icons::Level;
use crate::commands::status::Verdict;
use crate::observe::local_api::documents::{FailedCheck, StatusDocument};

/// The number of reasons that a verdict lists.
const REASONS: usize = 10;

/// The verdict of `portcullis status`, with the reasons.
pub(super) struct Banner {
    pub(super) level: Level,
    pub(super) headline: String,
    reasons: Vec<String>,
}

impl Banner {
    /// Returns the banner of a status.
    pub(super) fn new(status: &StatusDocument) -> Self {
        let reasons = reasons(status);
        let (level, headline) = match Verdict::new(status) {
            Verdict::Unhealthy => (Level::Bad, "Unhealthy".to_owned()),
            Verdict::Unknown if !status.event_loop.responded => {
                (Level::Warning, "Not known: the event loop does not respond".to_owned())
            }
            Verdict::Unknown => (Level::Warning, "Starting: not all rules are synced yet".to_owned()),
            Verdict::Healthy if reasons.is_empty() => (Level::Good, "Healthy".to_owned()),
            Verdict::Healthy => {
                (Level::Warning, format!("Healthy, with {}", counted(reasons.len(), "warning")))
            }
        };
        Banner { level, headline, reasons }
    }

    /// Returns the banner.
    pub(super) fn markup(&self) -> Markup {
        let omitted = self.reasons.len().saturating_sub(REASONS);
        html! {
            section .verdict .(self.level.class()) aria-labelledby="verdict" {
                (self.level.icon())
                h1 #verdict { (self.headline) }
                @if self.reasons.is_empty() {
                    p { "All rules are in sync, and the daemon knows of no problem." }
                } @else {
                    ul {
                        @for reason in self.reasons.iter().take(REASONS) { li { (reason) } }
                        @if omitted > 0 { li { (counted(omitted, "more problem")) } }
                    }
                }
            }
        }
    }
}

/// Returns what is wrong: first what fails a health check.
fn reasons(status: &StatusDocument) -> Vec<String> {
    let (warnings, failures): (Vec<_>, Vec<_>) =
        status.problems.iter().partition(|problem| problem.fails == FailedCheck::Nothing);
    let problems = failures.into_iter().chain(warnings).map(|problem| problem.text.clone());
    let unsynced = status.rules.iter().filter(|rules| rules.last_success.is_none());
    let unsynced: Vec<&str> = unsynced.map(|rules| rules.rules.as_str()).collect();
    let unsynced =
        (!unsynced.is_empty()).then(|| format!("not synced since the start: {}", unsynced.join(", ")));
    let ineligible = "load balancers send no traffic to this node: it is being deleted, or tainted by the cluster autoscaler";
    let ineligible = (!status.node_eligible).then(|| ineligible.to_owned());
    let proxies = status.other_proxies.iter().map(|proxy| {
        format!("another proxy listened on {} when the daemon started: {}", proxy.address, proxy.name)
    });
    let first = status.event_loop.error.clone().into_iter().chain(problems);
    first.chain(unsynced).chain(ineligible).chain(proxies).collect()
}
