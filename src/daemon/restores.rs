//! Rate limit and log of the restores of a table after external changes.
//!
//! A single external change is reverted immediately. Two programs that write the same table could revert each other's
//! changes thousands of times per second. So restores take tokens from a bucket, which refills slowly, and more slowly the
//! longer the contention lasts.

use std::time::{Duration, Instant};

/// The maximum number of restores without a pause.
const BURST: u32 = 30;

/// The minimum time after which one token is added.
const SHORTEST_REFILL: Duration = Duration::from_millis(500);

/// The maximum time after which one token is added. A changed table may not enforce policies until it is restored.
const LONGEST_REFILL: Duration = Duration::from_secs(10);

/// The time to refill one token is the duration of the contention divided by this number.
const REFILL_DIVISOR: u32 = 16;

/// The time without external changes after which contention is over.
const QUIET_PERIOD: Duration = Duration::from_secs(30);

/// The number of restores that are logged individually.
const LOGGED_INDIVIDUALLY: usize = 3;

/// The minimum time between two log lines about further restores.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// The process that changed rules, if it is not known.
pub(super) const UNKNOWN_PROCESS: &str = "an unknown process";

/// Restores of one table after external changes.
#[derive(Debug)]
pub(super) struct Restores {
    /// The number of restores that may follow immediately.
    tokens: u32,
    refilled_at: Instant,
    /// The time at which the tokens ran out.
    contended_since: Option<Instant>,
    /// The time of the last external change, and the process that made it, if known.
    last_change: Option<(Instant, Option<String>)>,
    /// The number of restores since the last quiet period.
    restores: usize,
    first_restore: Option<Instant>,
    unlogged: Unlogged,
    last_logged: Option<Instant>,
}

/// Restores that have not been logged yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unlogged {
    /// The number of restores.
    pub(super) restores: usize,
    /// The number of restored chains, sets, elements and counters.
    pub(super) objects: usize,
}

impl Unlogged {
    /// Logs the restores. `message` names the objects that `process` changed.
    pub(super) fn log(self, process: &str, message: &'static str) {
        tracing::warn!(restores = self.restores, objects = self.objects, by = process, "{message}");
    }
}

impl Restores {
    /// Creates the rate limit with all tokens.
    pub(super) fn new(now: Instant) -> Self {
        Restores {
            tokens: BURST,
            refilled_at: now,
            contended_since: None,
            last_change: None,
            restores: 0,
            first_restore: None,
            unlogged: Unlogged::default(),
            last_logged: None,
        }
    }

    /// Records that another process may have changed the table. Returns the time at which the table may be restored.
    pub(super) fn changed_by(&mut self, process: &str, now: Instant) -> Instant {
        self.refill(now);
        self.last_change = Some((now, Some(process.to_owned())));
        if self.tokens > 0 { now } else { (self.refilled_at + self.refill_time(now)).max(now) }
    }

    /// Records the start of a sync that compares and restores the table.
    pub(super) fn started(&mut self, now: Instant) {
        self.refill(now);
        match self.tokens.checked_sub(1) {
            Some(left) => self.tokens = left,
            // The refill time has grown slightly since the time of this restore was computed.
            None => self.refilled_at = now,
        }
        if self.tokens == 0 && self.contended_since.is_none() {
            self.contended_since = Some(now);
        }
    }

    /// Records that a sync restored this number of objects. Returns the restores to log, if a log line is due.
    pub(super) fn restored(&mut self, objects: usize, now: Instant) -> Option<Unlogged> {
        self.restores += 1;
        self.first_restore.get_or_insert(now);
        self.unlogged.restores += 1;
        self.unlogged.objects += objects;
        if self.restores <= LOGGED_INDIVIDUALLY { self.log(now) } else { self.due_log(now) }
    }

    /// Returns the restores that have not been logged yet, if a log line is due.
    pub(super) fn due_log(&mut self, now: Instant) -> Option<Unlogged> {
        self.next_log().filter(|at| now >= *at)?;
        self.log(now)
    }

    /// Returns the time at which the next log line is due; `None` if all restores have been logged.
    fn next_log(&self) -> Option<Instant> {
        let last = self.last_logged.filter(|_| self.unlogged != Unlogged::default())?;
        Some(last + LOG_PERIOD)
    }

    fn log(&mut self, now: Instant) -> Option<Unlogged> {
        self.last_logged = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }

    /// Returns the process that made the last external change.
    pub(super) fn process(&self) -> &str {
        let process = self.last_change.as_ref().and_then(|(_, process)| process.as_deref());
        process.unwrap_or(UNKNOWN_PROCESS)
    }

    /// Returns the health problem while another process repeatedly changes the table.
    pub(super) fn contention(&self, now: Instant) -> Option<String> {
        self.contention_ends().filter(|end| now < *end)?;
        let seconds = now.saturating_duration_since(self.first_restore?).as_secs();
        Some(format!(
            "restored {} times in {seconds}s after changes by {}; until one of the two programs is stopped, the rules are \
             wrong for up to {}s at a time",
            self.restores,
            self.process(),
            self.refill_time(now).as_secs_f32().ceil()
        ))
    }

    /// Returns the time of the next report that is due without a further change: a log line, or the end of contention.
    pub(super) fn next_report(&self, now: Instant) -> Option<Instant> {
        let end = self.contention_ends().filter(|end| now < *end);
        self.next_log().into_iter().chain(end).min()
    }

    /// Returns the time at which contention ends without further changes; `None` without contention.
    fn contention_ends(&self) -> Option<Instant> {
        self.contended_since.filter(|_| self.restores > 0)?;
        self.last_change.as_ref().map(|(at, _)| *at + QUIET_PERIOD)
    }

    fn refill_time(&self, now: Instant) -> Duration {
        let contended =
            self.contended_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        (contended / REFILL_DIVISOR).clamp(SHORTEST_REFILL, LONGEST_REFILL)
    }

    fn refill(&mut self, now: Instant) {
        if self.last_change.as_ref().is_none_or(|(at, _)| now >= *at + QUIET_PERIOD) {
            let (last_change, unlogged, last_logged) =
                (self.last_change.take(), self.unlogged, self.last_logged);
            *self = Restores { last_change, unlogged, last_logged, ..Restores::new(now) };
            return;
        }
        let each = self.refill_time(now);
        let passed = now.saturating_duration_since(self.refilled_at).as_millis() / each.as_millis();
        let added = u32::try_from(passed).unwrap_or(u32::MAX).min(BURST);
        if self.tokens.saturating_add(added) >= BURST {
            (self.tokens, self.refilled_at) = (BURST, now);
        } else {
            self.tokens += added;
            self.refilled_at += each * added;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the restores and log lines of a number of seconds in which another process reverts each restore immediately.
    fn contend(restores: &mut Restores, start: Instant, seconds: u64) -> (Vec<Duration>, Vec<Unlogged>) {
        let (mut now, mut times, mut logged) = (start, Vec::new(), Vec::new());
        while now < start + Duration::from_secs(seconds) {
            now = restores.changed_by("rival (process 7)", now);
            restores.started(now);
            logged.extend(restores.restored(2, now));
            times.push(now - start);
            now += Duration::from_micros(500);
        }
        (times, logged)
    }

    #[test]
    fn contention_slows_restores_and_is_reported() {
        let start = Instant::now();
        let mut restores = Restores::new(start);
        assert_eq!(restores.contention(start), None);
        let (times, logged) = contend(&mut restores, start, 600);
        let until = |seconds| times.iter().filter(|time| time.as_secs() < seconds).count();
        assert!((30..=32).contains(&until(1)), "{} in the first second", until(1));
        assert!(until(10) <= 60, "{} in ten seconds", until(10));
        assert!((100..200).contains(&times.len()), "{} in ten minutes", times.len());
        let waits = times.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(waits.max().is_some_and(|wait| wait <= LONGEST_REFILL + Duration::from_millis(1)));
        assert!(logged.len() <= 3 + 600 / 10, "{} lines", logged.len());
        assert_eq!(logged[0], Unlogged { restores: 1, objects: 2 });
        assert_eq!(logged[3].objects, logged[3].restores * 2);
        assert!(logged[3].restores > 20, "{:?}", logged[3]);

        let end = start + *times.last().expect("restores");
        let message = restores.contention(end).expect("contention");
        let expected = format!("restored {} times in ", times.len());
        assert!(
            message.starts_with(&expected) && message.contains("after changes by rival (process 7);"),
            "{message}"
        );
        assert!(restores.contention(end + QUIET_PERIOD).is_none(), "contention has ended");
        let later = end + QUIET_PERIOD;
        assert_eq!(restores.changed_by("nft (process 8)", later), later, "all tokens are available again");
        restores.started(later);
        assert_eq!(restores.restored(1, later), Some(Unlogged { restores: 1, objects: 1 }));
        assert_eq!(restores.contention(later), None);
    }

    #[test]
    fn occasional_change_is_reverted_immediately() {
        let start = Instant::now();
        let mut restores = Restores::new(start);
        for second in 0..300 {
            let now = start + Duration::from_secs(second);
            assert_eq!(restores.changed_by("nft (process 8)", now), now);
            restores.started(now);
            restores.restored(1, now);
            assert_eq!(restores.contention(now), None);
        }
    }

    #[test]
    fn last_restores_are_logged_without_a_further_change() {
        let start = Instant::now();
        let mut restores = Restores::new(start);
        for n in 0..5 {
            assert_eq!(restores.restored(2, start).is_some(), n < 3);
        }
        let due = restores.next_log().expect("two restores are not logged yet");
        assert_eq!(due, start + LOG_PERIOD);
        assert_eq!(restores.due_log(due - Duration::from_millis(1)), None);
        restores.changed_by("nft (process 8)", start + QUIET_PERIOD);
        assert_eq!(restores.due_log(start + QUIET_PERIOD), Some(Unlogged { restores: 2, objects: 4 }));
        assert_eq!(restores.next_log(), None);
    }

    #[test]
    fn transactions_that_need_no_restore_are_not_contention() {
        let start = Instant::now();
        let mut restores = Restores::new(start);
        let mut now = start;
        for _ in 0..100 {
            now = restores.changed_by("nft (process 8)", now);
            restores.started(now);
        }
        assert!(now > start, "comparisons are rate-limited");
        assert_eq!(restores.contention(now), None);
    }
}
