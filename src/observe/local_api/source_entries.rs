//! Entries of the timeline about the start and the sources.

use super::documents::{EntryType, TimelineEntry};
use super::timeline::Timeline;
use crate::config::ProxyMode;
use crate::moment::Moment;
use crate::source::KindStatus;
use crate::truncated_list;

/// How many kinds an entry names.
const NAMED: usize = 10;

impl Timeline {
    /// Adds the start of the daemon.
    pub(crate) fn add_start(&self, mode: ProxyMode, at: Moment) {
        let text = format!("started portcullis {} in {} mode", env!("CARGO_PKG_VERSION"), mode.name());
        self.add(TimelineEntry::new(EntryType::Started, "daemon", text, at));
    }

    /// Adds the kinds of objects whose lists and watches, or whose manifests, fail since the last call, and those that do not
    /// fail any more.
    pub(crate) fn add_sources(&self, kinds: &[KindStatus], at: Moment) {
        let failing = kinds.iter().filter(|kind| kind.error.is_some());
        let failing: Vec<&'static str> = failing.map(|kind| kind.kind.plural()).collect();
        let before = self.replace_failing_kinds(failing.clone());
        let difference = |all: &[&'static str], without: &[&'static str]| -> Vec<&'static str> {
            all.iter().copied().filter(|kind| !without.contains(kind)).collect()
        };
        let (failed, recovered) = (difference(&failing, &before), difference(&before, &failing));
        if !failed.is_empty() {
            let errors = kinds.iter().filter(|kind| failed.contains(&kind.kind.plural()));
            // Most kinds fail for the same reason.
            let error = errors.into_iter().find_map(|kind| kind.error.clone());
            let text = format!(
                "cannot read {}: {}",
                truncated_list::names(failed, NAMED),
                error.as_deref().unwrap_or_default()
            );
            let entry = TimelineEntry::new(EntryType::SourceFailed, "source", text, at);
            self.add(TimelineEntry { error, ..entry });
        }
        if !recovered.is_empty() {
            let text = format!("reading {} succeeds again", truncated_list::names(recovered, NAMED));
            self.add(TimelineEntry::new(EntryType::SourceRecovered, "source", text, at));
        }
    }
}
