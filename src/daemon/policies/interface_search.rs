//! The schedule of searches for pod interfaces, and the report of pods without one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use portcullis_cluster::{Backoff, NamespacedName};

/// The wait before the first search for missing interfaces; it doubles with each search.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The wait before the last search. Pods that are still missing are then reported, and searched for again only when
/// addresses change.
const LAST_WAIT: Duration = Duration::from_secs(4);

/// The search for the missing interfaces of isolated pods.
#[derive(Debug)]
pub(super) struct InterfaceSearch {
    /// The time of the next search.
    next: Option<Instant>,
    backoff: Backoff,
    /// The time of the first link change after the last search.
    links_changed: Option<Instant>,
    /// True if the search began because links changed. A new interface gets its addresses after it was added, so pods
    /// that were already reported are also searched for several times.
    after_links_changed: bool,
    /// Pods without an interface.
    missing: BTreeSet<NamespacedName>,
    /// Missing pods that were already reported.
    reported: BTreeSet<NamespacedName>,
}

impl Default for InterfaceSearch {
    fn default() -> Self {
        InterfaceSearch {
            next: None,
            backoff: Backoff::new(FIRST_WAIT, LAST_WAIT),
            links_changed: None,
            after_links_changed: false,
            missing: BTreeSet::new(),
            reported: BTreeSet::new(),
        }
    }
}

impl InterfaceSearch {
    /// Returns the time of the next search; `None` if none is needed.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next.into_iter().chain(self.links_changed).min()
    }

    /// Requests a search after links changed: a pod may have a new interface with the same addresses.
    pub(super) fn links_changed(&mut self, now: Instant) {
        self.links_changed.get_or_insert(now);
    }

    /// Records the start of a sync. Returns true if the sync has to search for interfaces.
    pub(super) fn start_if_due(&mut self, now: Instant) -> bool {
        let due = self.is_due(now);
        self.after_links_changed |= self.links_changed.take_if(|at| now >= *at).is_some();
        due
    }

    /// Returns true if a search is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next().is_some_and(|at| now >= at)
    }

    /// Records the pods without an interface. Returns the pods to report: each pod once, after several searches.
    pub(super) fn record(&mut self, missing: Vec<NamespacedName>, now: Instant) -> Vec<NamespacedName> {
        let missing: BTreeSet<NamespacedName> = missing.into_iter().collect();
        self.reported.retain(|pod| missing.contains(pod));
        let is_new = missing.iter().any(|pod| !self.missing.contains(pod));
        self.missing = missing;
        let has_ended = self.missing.is_subset(&self.reported) && !self.after_links_changed;
        if self.next.is_none() || is_new {
            self.backoff.reset();
        }
        self.next = match self.next {
            _ if self.missing.is_empty() || has_ended => None,
            Some(next) if now < next && !is_new => Some(next),
            Some(_) if self.backoff.is_at_max() => None,
            _ => Some(self.backoff.next_retry(now)),
        };
        if self.next.is_some() {
            return Vec::new();
        }
        self.after_links_changed = false;
        let report = self.missing.difference(&self.reported).cloned().collect();
        self.reported = self.missing.clone();
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_pods_are_searched_for_and_then_reported_once() {
        let pods = |names: &[&str]| -> Vec<NamespacedName> {
            names.iter().map(|name| NamespacedName::new("shop", name)).collect()
        };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        // Second of the search, missing pods, reported pods, second of the next search.
        type Row<'a> = (u64, &'a [&'a str], &'a [&'a str], Option<u64>);
        let rows: [Row<'_>; 10] = [
            (0, &["a"], &[], Some(1)),
            (1, &["a"], &[], Some(3)),
            (2, &["a"], &[], Some(3)),
            (3, &["a"], &[], Some(7)),
            (7, &["a"], &["a"], None),
            (20, &["a"], &[], None),
            (30, &["a", "b"], &[], Some(31)),
            (31, &["a"], &[], None),
            (40, &[], &[], None),
            (50, &["a"], &[], Some(51)),
        ];
        let mut search = InterfaceSearch::default();
        for (second, missing, reported, next) in rows {
            assert_eq!(search.record(pods(missing), at(second)), pods(reported), "at {second} s");
            assert_eq!(search.next(), next.map(at), "at {second} s");
        }
    }

    #[test]
    fn changed_links_cause_searches_until_all_pods_have_an_interface() {
        let pods = |names: &[&str]| -> Vec<NamespacedName> {
            names.iter().map(|name| NamespacedName::new("shop", name)).collect()
        };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut search = InterfaceSearch::default();
        assert!(search.record(pods(&[]), at(0)).is_empty());
        assert!(!search.start_if_due(at(5)), "no search is needed while no interface is missing");
        search.links_changed(at(10));
        assert_eq!(search.next(), Some(at(10)));
        assert!(search.start_if_due(at(10)));
        search.links_changed(at(11));
        // The result of this search is older than the second change.
        assert!(search.record(pods(&["a"]), at(11)).is_empty());
        assert_eq!(search.next(), Some(at(11)));
        assert!(search.start_if_due(at(11)));
        assert!(search.record(pods(&["a"]), at(11)).is_empty());
        assert_eq!(search.next(), Some(at(12)));
        for (second, reported, next) in
            [(12, &[][..], Some(14)), (14, &[], Some(18)), (18, &["a"], None), (19, &[], None)]
        {
            assert_eq!(search.start_if_due(at(second)), second < 19, "at {second} s");
            assert_eq!(search.record(pods(&["a"]), at(second)), pods(reported), "at {second} s");
            assert_eq!(search.next(), next.map(at), "at {second} s");
        }
        // The pod was reported, and its new interface has no address yet.
        search.links_changed(at(30));
        assert!(search.start_if_due(at(30)) && search.record(pods(&["a"]), at(30)).is_empty());
        assert_eq!(search.next(), Some(at(31)));
        assert!(search.start_if_due(at(31)) && search.record(pods(&[]), at(31)).is_empty());
        assert_eq!(search.next(), None);
    }
}
