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

    /// Adds the changes of the sources since the last call: kinds of objects that cannot be read, that are read again, and that
    /// were listed again.
    pub(crate) fn add_sources(&self, kinds: &[KindStatus], at: Moment) {
        let before = self.replace_kinds(kinds);
        let select = |is_selected: fn(&KindStatus, &KindStatus) -> bool| -> Vec<&KindStatus> {
            // The kinds of a source do not change.
            let both = before.iter().zip(kinds).filter(|(before, now)| is_selected(before, now));
            both.map(|(_, now)| now).collect()
        };
        let add = |r#type, text, error| {
            self.add(TimelineEntry { error, ..TimelineEntry::new(r#type, "source", text, at) });
        };
        let failed = match before.is_empty() {
            true => kinds.iter().filter(|kind| kind.error.is_some()).collect(),
            false => select(|before, now| before.error.is_none() && now.error.is_some()),
        };
        // Most kinds fail for the same reason.
        if let Some(error) = failed.iter().find_map(|kind| kind.error.clone()) {
            add(EntryType::SourceFailed, format!("cannot read {}: {error}", names(&failed)), Some(error));
        }
        let recovered = select(|before, now| before.error.is_some() && now.error.is_none());
        if !recovered.is_empty() {
            let text = format!("reading {} succeeds again", names(&recovered));
            add(EntryType::SourceRecovered, text, None);
        }
        let relisted = select(|before, now| before.lists > 0 && now.lists > before.lists);
        if !relisted.is_empty() {
            let text = format!("listed {} again, as their watch could not be continued", names(&relisted));
            add(EntryType::Relisted, text, None);
        }
    }
}

fn names(kinds: &[&KindStatus]) -> String {
    truncated_list::names(kinds.iter().map(|kind| kind.kind.plural()), NAMED)
}
