//! When to sync: at once after a change, but not too often, again after a failure, and now and then anyway.

use std::time::{Duration, Instant};

/// The first time until a failed sync is tried again; it doubles with each failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The longest time until a failed sync is tried again.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// When syncs are due. Knows no clock: every call says what time it is.
#[derive(Debug)]
pub(super) struct Schedule {
    min_period: Duration,
    period: Duration,
    wanted: bool,
    last_start: Option<Instant>,
    retry: Option<(Instant, Duration)>,
    next_check: Instant,
    upkeep: Option<Instant>,
}

/// Why a sync is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Something changed, or the last sync failed.
    Change,
    /// It is time to look whether the rules still stand.
    Check,
    /// The mode waits for something of its own, such as for connections to end.
    Upkeep,
}

impl Schedule {
    /// Syncs start at least `min_period` apart, and the rules are looked after every `period`.
    pub(super) fn new(min_period: Duration, period: Duration, now: Instant) -> Self {
        Schedule {
            min_period,
            period,
            wanted: false,
            last_start: None,
            retry: None,
            next_check: now + period,
            upkeep: None,
        }
    }

    /// Something changed.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// The rules are to be compared with the kernel at this time, if not before.
    pub(super) fn check_at(&mut self, at: Instant) {
        self.next_check = self.next_check.min(at);
    }

    /// Whether the last sync failed.
    pub(super) fn is_retrying(&self) -> bool {
        self.retry.is_some()
    }

    /// When the mode wants to be called, whatever else happens.
    pub(super) fn upkeep(&mut self, at: Option<Instant>) {
        self.upkeep = at;
    }

    /// When the next sync is due.
    pub(super) fn next(&self) -> Instant {
        let retry = self.retry.map(|(at, _)| at);
        // A change is tried at once even while an older one waits to be tried again: it may be what mends it.
        let change = self.wanted.then(|| self.last_start.map(|start| start + self.min_period));
        let change = change.map(|earliest| earliest.unwrap_or_else(|| self.next_check - self.period));
        let upkeep =
            self.upkeep.map(|at| self.last_start.map_or(at, |start| at.max(start + self.min_period)));
        [retry, change, upkeep].into_iter().flatten().fold(self.next_check, Instant::min)
    }

    /// Why a sync is due now, if one is.
    pub(super) fn due(&self, now: Instant) -> Option<Due> {
        let rested = self.last_start.is_none_or(|start| now >= start + self.min_period);
        let retry = self.retry.is_some_and(|(at, _)| now >= at);
        if now >= self.next_check {
            Some(Due::Check)
        } else if (self.wanted && rested) || retry {
            Some(Due::Change)
        } else if self.upkeep.is_some_and(|at| now >= at) && rested {
            Some(Due::Upkeep)
        } else {
            None
        }
    }

    /// A sync starts.
    pub(super) fn started(&mut self, due: Due, now: Instant) {
        self.wanted = false;
        self.upkeep = None;
        self.last_start = Some(now);
        if due == Due::Check {
            self.next_check = now + self.period;
        }
    }

    /// A sync ended.
    pub(super) fn ended(&mut self, failed: bool, now: Instant) {
        self.retry = failed.then(|| {
            let wait = self.retry.map_or(FIRST_RETRY, |(_, wait)| (wait * 2).min(LAST_RETRY));
            (now + wait, wait)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_secs(1);
    const PERIOD: Duration = Duration::from_secs(30);

    #[test]
    fn a_change_syncs_at_once_and_the_next_waits() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut schedule = Schedule::new(MIN, PERIOD, start);
        assert_eq!(schedule.due(start), None);
        assert_eq!(schedule.next(), start + PERIOD);
        schedule.want();
        assert!(schedule.next() <= start);
        assert_eq!(schedule.due(start), Some(Due::Change));
        schedule.started(Due::Change, at(0));
        schedule.ended(false, at(10));
        schedule.want();
        assert_eq!(schedule.due(at(500)), None);
        assert_eq!(schedule.next(), at(1000));
        assert_eq!(schedule.due(at(1000)), Some(Due::Change));
    }

    #[test]
    fn failures_are_tried_again_ever_later_and_a_change_is_tried_at_once() {
        let start = Instant::now();
        let mut schedule = Schedule::new(MIN, Duration::from_secs(3600), start);
        let mut now = start;
        for expected in [1, 2, 4, 8, 16, 30, 30] {
            schedule.started(Due::Change, now);
            schedule.ended(true, now);
            assert_eq!(schedule.next(), now + Duration::from_secs(expected));
            assert_eq!(schedule.due(schedule.next()), Some(Due::Change));
            now = schedule.next();
        }
        schedule.started(Due::Change, now);
        schedule.ended(true, now);
        schedule.want();
        assert_eq!(schedule.due(now + MIN), Some(Due::Change));
        schedule.started(Due::Change, now + MIN);
        schedule.ended(false, now + MIN);
        assert_eq!(schedule.due(now + LAST_RETRY * 2), None);
    }

    #[test]
    fn the_mode_is_called_when_it_wants_to_be_but_not_too_often() {
        let start = Instant::now();
        let mut schedule = Schedule::new(MIN, PERIOD, start);
        schedule.started(Due::Change, start);
        schedule.ended(false, start);
        for (wanted, due) in [(0, 1000), (500, 1000), (5000, 5000)] {
            let at = |millis| start + Duration::from_millis(millis);
            schedule.upkeep(Some(at(wanted)));
            assert_eq!(schedule.next(), at(due));
            assert_eq!(schedule.due(at(due - 1)), None);
            assert_eq!(schedule.due(at(due)), Some(Due::Upkeep));
        }
        schedule.want();
        assert_eq!(schedule.due(start + MIN), Some(Due::Change), "a change does not wait for it");
        schedule.started(Due::Change, start + MIN);
        assert_eq!(schedule.next(), start + PERIOD, "each sync says anew when the next is wanted");
    }

    #[test]
    fn the_rules_are_looked_after_every_period() {
        let start = Instant::now();
        let mut schedule = Schedule::new(MIN, PERIOD, start);
        assert_eq!(schedule.due(start + PERIOD), Some(Due::Check));
        schedule.started(Due::Check, start + PERIOD);
        schedule.ended(false, start + PERIOD);
        assert_eq!(schedule.next(), start + PERIOD * 2);
    }
}
