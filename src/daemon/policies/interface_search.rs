//! When the interfaces of pods are looked for again, and what is said of pods that have none.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use portcullis_cluster::NamespacedName;

/// The time until the first look for interfaces that were not found; it doubles with each look.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// After a wait of so long pods are reported, and looked for again only when addresses change.
const LAST_WAIT: Duration = Duration::from_secs(4);

/// The search for interfaces of isolated pods that were not found yet.
#[derive(Debug, Default)]
pub(super) struct InterfaceSearch {
    /// When to look again, and how long that wait is.
    next: Option<(Instant, Duration)>,
    /// When links changed after the last look.
    links_changed: Option<Instant>,
    /// The search began when links had changed. A new interface gets its addresses only after it was added, so pods that
    /// were reported are looked for several times too.
    after_links_changed: bool,
    /// Pods that are waited for.
    missing: BTreeSet<NamespacedName>,
    /// Pods that were reported.
    reported: BTreeSet<NamespacedName>,
}

impl InterfaceSearch {
    /// When to look again; `None` while there is no need to.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next.map(|(at, _)| at).into_iter().chain(self.links_changed).min()
    }

    /// Has the interfaces looked for, as links have changed: a pod may have another interface at the same addresses.
    pub(super) fn links_changed(&mut self, now: Instant) {
        self.links_changed.get_or_insert(now);
    }

    /// Whether the sync that starts now is to look for interfaces.
    pub(super) fn start_if_due(&mut self, now: Instant) -> bool {
        let due = self.is_due(now);
        self.after_links_changed |= self.links_changed.take_if(|at| now >= *at).is_some();
        due
    }

    /// Whether it is time to look again.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next().is_some_and(|at| now >= at)
    }

    /// Takes in of which pods no interface was found. Pods to report, each once, after they have been looked for
    /// several times.
    pub(super) fn take(&mut self, missing: Vec<NamespacedName>, now: Instant) -> Vec<NamespacedName> {
        let missing: BTreeSet<NamespacedName> = missing.into_iter().collect();
        self.reported.retain(|pod| missing.contains(pod));
        let is_new = missing.iter().any(|pod| !self.missing.contains(pod));
        self.missing = missing;
        let has_ended = self.missing.is_subset(&self.reported) && !self.after_links_changed;
        self.next = match self.next {
            _ if self.missing.is_empty() || has_ended => None,
            Some(next) if now < next.0 && !is_new => Some(next),
            Some((_, wait)) if wait >= LAST_WAIT && !is_new => None,
            Some((_, wait)) if !is_new => Some((now + wait * 2, wait * 2)),
            _ => Some((now + FIRST_WAIT, FIRST_WAIT)),
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
    fn pods_are_looked_for_and_then_reported_once() {
        let pods = |names: &[&str]| -> Vec<NamespacedName> {
            names.iter().map(|name| NamespacedName::new("shop", name)).collect()
        };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        // When it was looked, what was not found, what is reported, when to look again.
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
            assert_eq!(search.take(pods(missing), at(second)), pods(reported), "at {second} s");
            assert_eq!(search.next(), next.map(at), "at {second} s");
        }
    }

    #[test]
    fn changed_links_are_looked_at_until_all_pods_have_one_again() {
        let pods = |names: &[&str]| -> Vec<NamespacedName> {
            names.iter().map(|name| NamespacedName::new("shop", name)).collect()
        };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut search = InterfaceSearch::default();
        assert!(search.take(pods(&[]), at(0)).is_empty());
        assert!(!search.start_if_due(at(5)), "there is nothing to look for");
        search.links_changed(at(10));
        assert_eq!(search.next(), Some(at(10)));
        assert!(search.start_if_due(at(10)));
        search.links_changed(at(11));
        // What this look found is older than the second change.
        assert!(search.take(pods(&["a"]), at(11)).is_empty());
        assert_eq!(search.next(), Some(at(11)));
        assert!(search.start_if_due(at(11)));
        assert!(search.take(pods(&["a"]), at(11)).is_empty());
        assert_eq!(search.next(), Some(at(12)));
        for (second, reported, next) in
            [(12, &[][..], Some(14)), (14, &[], Some(18)), (18, &["a"], None), (19, &[], None)]
        {
            assert_eq!(search.start_if_due(at(second)), second < 19, "at {second} s");
            assert_eq!(search.take(pods(&["a"]), at(second)), pods(reported), "at {second} s");
            assert_eq!(search.next(), next.map(at), "at {second} s");
        }
        // It was reported, and its new interface has no address yet.
        search.links_changed(at(30));
        assert!(search.start_if_due(at(30)) && search.take(pods(&["a"]), at(30)).is_empty());
        assert_eq!(search.next(), Some(at(31)));
        assert!(search.start_if_due(at(31)) && search.take(pods(&[]), at(31)).is_empty());
        assert_eq!(search.next(), None);
    }
}
