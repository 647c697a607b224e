//! What happened recently, in a ring of bounded size.
//!
//! Syncs without anything to report are most of what happens; they have a ring of their own, so that they do not displace
//! failures, drift and isolation.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::documents::{EntryType, TimelineDocument, TimelineEntry, TypeMeta};
use crate::moment::Moment;
use crate::source::KindStatus;

/// The number of syncs without anything to report that are kept.
const ROUTINE: usize = 64;

/// The number of all other entries that are kept.
const NOTABLE: usize = 256;

/// The longest text or error of an entry, in bytes.
const MAX_TEXT: usize = 500;

/// The timeline. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    last_number: u64,
    routine: VecDeque<TimelineEntry>,
    notable: VecDeque<TimelineEntry>,
    /// The kinds of objects when [`Timeline::add_sources`] was last called.
    kinds: Vec<KindStatus>,
}

/// Which entries of the timeline are requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// Those after this number.
    Number(u64),
    /// Those after this time.
    Time(Timestamp),
}

impl Timeline {
    /// Adds an entry, which gets the next number.
    pub(crate) fn add(&self, mut entry: TimelineEntry) {
        truncate(&mut entry.text);
        entry.error.as_mut().into_iter().for_each(truncate);
        let mut entries = self.entries();
        entries.last_number += 1;
        entry.number = entries.last_number;
        let (ring, limit) = if entry.r#type.is_routine() {
            (&mut entries.routine, ROUTINE)
        } else {
            (&mut entries.notable, NOTABLE)
        };
        if ring.len() == limit {
            ring.pop_front();
        }
        ring.push_back(entry);
    }

    /// Returns the last `limit` entries since a number or time.
    pub(crate) fn document(&self, since: Since, limit: usize, now: Moment) -> TimelineDocument {
        let entries = self.entries();
        let is_requested = |entry: &&TimelineEntry| match since {
            Since::Number(number) => entry.number > number,
            Since::Time(time) => entry.time > time,
        };
        let mut requested: Vec<TimelineEntry> =
            entries.routine.iter().chain(&entries.notable).filter(is_requested).cloned().collect();
        requested.sort_by_key(|entry| entry.number);
        let omitted = requested.len().saturating_sub(limit);
        requested.drain(..omitted);
        let kept = (entries.routine.len() + entries.notable.len()) as u64;
        TimelineDocument {
            meta: TypeMeta::new("Timeline"),
            time: now.wall(),
            discarded: entries.last_number - kept,
            omitted,
            entries: requested,
        }
    }

    /// Sets the kinds of objects, and returns those before.
    pub(super) fn replace_kinds(&self, kinds: &[KindStatus]) -> Vec<KindStatus> {
        std::mem::replace(&mut self.entries().kinds, kinds.to_vec())
    }

    /// Returns the last `limit` entries of these types, oldest first.
    pub(crate) fn last(&self, limit: usize, is_requested: impl Fn(EntryType) -> bool) -> Vec<TimelineEntry> {
        let entries = self.entries();
        let all = entries.routine.iter().chain(&entries.notable);
        let mut requested: Vec<&TimelineEntry> = all.filter(|entry| is_requested(entry.r#type)).collect();
        requested.sort_by_key(|entry| entry.number);
        let first = requested.len().saturating_sub(limit);
        requested[first..].iter().map(|entry| (*entry).clone()).collect()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // A panic with the lock held leaves complete values behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn truncate(text: &mut String) {
    if text.len() > MAX_TEXT {
        let end = text.floor_char_boundary(MAX_TEXT);
        text.truncate(end);
        text.push('…');
    }
    // The allocation may be larger than the text.
    text.shrink_to_fit();
}

impl TimelineEntry {
    /// Creates an entry with a text. [`Timeline::add`] gives it its number.
    pub(crate) fn new(r#type: EntryType, component: &str, text: String, at: Moment) -> Self {
        TimelineEntry {
            number: 0,
            time: at.wall(),
            r#type,
            component: component.to_owned(),
            rules: None,
            text,
            trigger: None,
            duration_seconds: None,
            restored: None,
            process: None,
            object: None,
            error: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routine_syncs_do_not_displace_failures() {
        let timeline = Timeline::default();
        let now = Moment::now();
        let add = |r#type| timeline.add(TimelineEntry::new(r#type, "services", "é".repeat(400), now));
        add(EntryType::SyncFailed);
        (0..1000).for_each(|_| add(EntryType::Sync));
        let document = timeline.document(Since::Number(0), 1000, now);
        assert_eq!((document.entries.len(), document.discarded, document.omitted), (65, 936, 0));
        assert_eq!((document.entries[0].number, document.entries[1].number), (1, 938));
        assert_eq!(document.entries[0].text.len(), MAX_TEXT + '…'.len_utf8());
        let document = timeline.document(Since::Number(990), 4, now);
        let numbers: Vec<u64> = document.entries.iter().map(|entry| entry.number).collect();
        assert_eq!((numbers, document.omitted), (vec![998, 999, 1000, 1001], 7));
        assert_eq!(timeline.document(Since::Time(now.wall()), 10, now).entries, []);
        (0..1000).for_each(|_| add(EntryType::Drift));
        let document = timeline.document(Since::Number(0), 1000, now);
        assert_eq!(document.entries.len(), ROUTINE + NOTABLE);
        let last = timeline.last(2, |r#type| r#type == EntryType::Sync);
        assert_eq!(last.iter().map(|entry| entry.number).collect::<Vec<_>>(), [1000, 1001]);
    }
}
