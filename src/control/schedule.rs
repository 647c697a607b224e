//! The schedule of a controller's jobs: immediately after a change, but not too often; again after a failure; and
//! periodically.

use std::time::{Duration, Instant};

use portcullis_cluster::Backoff;

/// The times at which jobs are due. It reads no clock: time is an argument.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// The shortest time between the starts of two jobs; retries and full syncs ignore it.
    min_interval: Duration,
    /// The time between two full syncs; `None` for controllers without periodic full syncs.
    full_period: Option<Duration>,
    created: Instant,
    /// A change has not been synced yet.
    is_requested: bool,
    last_start: Option<Instant>,
    retry_at: Option<Instant>,
    backoff: Backoff,
    next_full: Option<Instant>,
    timer: Option<Instant>,
}

/// Why a job is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Something changed, or the last job failed.
    Change,
    /// The rules are to be compared with the kernel.
    FullSync,
    /// The controller's timer expired.
    Timer,
}

impl Schedule {
    /// Creates a schedule; the first full sync is due after `full_period`.
    pub(crate) fn new(
        min_interval: Duration,
        full_period: Option<Duration>,
        backoff: Backoff,
        now: Instant,
    ) -> Self {
        Schedule {
            min_interval,
            full_period,
            created: now,
            is_requested: false,
            last_start: None,
            retry_at: None,
            backoff,
            next_full: full_period.map(|period| now + period),
            timer: None,
        }
    }

    /// Requests a job, as something changed.
    pub(crate) fn request(&mut self) {
        self.is_requested = true;
    }

    /// Requests a full sync at this time, unless one is due earlier.
    pub(crate) fn request_full_sync(&mut self, at: Instant) {
        self.next_full = Some(self.next_full.map_or(at, |next| next.min(at)));
    }

    /// Sets the timer: a job is due at this time even if nothing changes.
    pub(crate) fn set_timer(&mut self, at: Option<Instant>) {
        self.timer = at;
    }

    /// Returns true if the last job failed.
    pub(crate) fn is_retrying(&self) -> bool {
        self.retry_at.is_some()
    }

    /// Returns the wait before the next retry of a failed job.
    pub(crate) fn retry_in(&self, now: Instant) -> Option<Duration> {
        self.retry_at.map(|at| at.saturating_duration_since(now))
    }

    /// Returns when the next job is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let earliest = self.last_start.map(|start| start + self.min_interval);
        // A change does not wait for the retry of an earlier failure: it may be the fix.
        let change = self.is_requested.then(|| earliest.unwrap_or(self.created));
        let timer = self.timer.map(|at| earliest.map_or(at, |earliest| at.max(earliest)));
        [self.retry_at, change, timer, self.next_full].into_iter().flatten().min()
    }

    /// Returns why a job is due now, if one is.
    pub(crate) fn due(&self, now: Instant) -> Option<Due> {
        let is_past = |at: Instant| now >= at;
        let may_start = self.last_start.is_none_or(|start| now >= start + self.min_interval);
        if self.next_full.is_some_and(is_past) {
            Some(Due::FullSync)
        } else if (self.is_requested && may_start) || self.retry_at.is_some_and(is_past) {
            Some(Due::Change)
        } else if self.timer.is_some_and(is_past) && may_start {
            Some(Due::Timer)
        } else {
            None
        }
    }

    /// Records the start of a job.
    pub(crate) fn started(&mut self, due: Due, now: Instant) {
        self.is_requested = false;
        self.timer = None;
        self.last_start = Some(now);
        if due == Due::FullSync {
            self.next_full = self.full_period.map(|period| now + period);
        }
    }

    /// Records the end of a job.
    pub(crate) fn ended(&mut self, has_failed: bool, now: Instant) {
        if has_failed {
            self.retry_at = Some(self.backoff.next_retry(now));
        } else {
            self.retry_at = None;
            self.backoff.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_secs(1);
    const PERIOD: Duration = Duration::from_secs(30);
    const MAX_RETRY: Duration = Duration::from_secs(30);

    fn schedule(period: Option<Duration>, now: Instant) -> Schedule {
        Schedule::new(MIN, period, Backoff::new(Duration::from_secs(1), MAX_RETRY), now)
    }

    #[test]
    fn first_change_is_due_immediately_and_the_next_after_the_min_interval() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut schedule = schedule(Some(PERIOD), start);
        assert_eq!(schedule.due(start), None);
        assert_eq!(schedule.next_due(), Some(start + PERIOD));
        schedule.request();
        assert!(schedule.next_due().is_some_and(|due| due <= start));
        assert_eq!(schedule.due(start), Some(Due::Change));
        schedule.started(Due::Change, at(0));
        schedule.ended(false, at(10));
        schedule.request();
        assert_eq!(schedule.due(at(500)), None);
        assert_eq!(schedule.next_due(), Some(at(1000)));
        assert_eq!(schedule.due(at(1000)), Some(Due::Change));
    }

    #[test]
    fn failures_are_retried_with_backoff_and_changes_do_not_wait_for_it() {
        let start = Instant::now();
        let mut schedule = schedule(Some(Duration::from_secs(3600)), start);
        let mut now = start;
        for expected in [1, 2, 4, 8, 16, 30, 30] {
            schedule.started(Due::Change, now);
            schedule.ended(true, now);
            let next = now + Duration::from_secs(expected);
            assert_eq!(schedule.next_due(), Some(next));
            assert_eq!(schedule.retry_in(now), Some(Duration::from_secs(expected)));
            assert_eq!(schedule.due(next), Some(Due::Change));
            now = next;
        }
        schedule.started(Due::Change, now);
        schedule.ended(true, now);
        schedule.request();
        assert_eq!(schedule.due(now + MIN), Some(Due::Change));
        schedule.started(Due::Change, now + MIN);
        schedule.ended(false, now + MIN);
        assert_eq!(schedule.due(now + MAX_RETRY * 2), None);
    }

    #[test]
    fn timer_is_due_at_its_time_but_not_before_the_min_interval() {
        let start = Instant::now();
        let mut schedule = schedule(Some(PERIOD), start);
        schedule.started(Due::Change, start);
        schedule.ended(false, start);
        for (timer, due) in [(0, 1000), (500, 1000), (5000, 5000)] {
            let at = |millis| start + Duration::from_millis(millis);
            schedule.set_timer(Some(at(timer)));
            assert_eq!(schedule.next_due(), Some(at(due)));
            assert_eq!(schedule.due(at(due - 1)), None);
            assert_eq!(schedule.due(at(due)), Some(Due::Timer));
        }
        schedule.request();
        assert_eq!(schedule.due(start + MIN), Some(Due::Change), "a change does not wait for the timer");
        schedule.started(Due::Change, start + MIN);
        assert_eq!(schedule.next_due(), Some(start + PERIOD), "a start clears the timer");
    }

    #[test]
    fn full_syncs_are_due_periodically_and_on_request() {
        let start = Instant::now();
        let mut periodic = schedule(Some(PERIOD), start);
        assert_eq!(periodic.due(start + PERIOD), Some(Due::FullSync));
        periodic.started(Due::FullSync, start + PERIOD);
        periodic.ended(false, start + PERIOD);
        assert_eq!(periodic.next_due(), Some(start + PERIOD * 2));
        periodic.request_full_sync(start + PERIOD + MIN);
        periodic.request_full_sync(start + PERIOD * 3);
        assert_eq!(periodic.next_due(), Some(start + PERIOD + MIN), "the earlier one counts");

        let mut on_request = schedule(None, start);
        assert_eq!(on_request.next_due(), None);
        on_request.request_full_sync(start + MIN);
        assert_eq!(on_request.due(start + MIN), Some(Due::FullSync));
        on_request.started(Due::FullSync, start + MIN);
        assert_eq!(on_request.next_due(), None);
    }
}
