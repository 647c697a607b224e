//! Rate limit and log of repairs of a table after external changes.
//!
//! A single change is repaired immediately. Two programs that write the same table would repair each other thousands of times
//! a second, so there is an allowance of repairs that refills slowly, and more slowly while the contention lasts.

use std::time::{Duration, Instant};

/// How many repairs may follow each other without a pause.
const BURST: u32 = 30;

/// The shortest time in which the allowance grows by one repair.
const SHORTEST_REFILL: Duration = Duration::from_millis(500);

/// The longest time in which the allowance grows by one repair. Policies are not enforced until a repair.
const LONGEST_REFILL: Duration = Duration::from_secs(10);

/// The refill takes this part of the time for which the contention has lasted.
const REFILL_PART: u32 = 16;

/// Contention is over when nothing was changed for so long.
const QUIET: Duration = Duration::from_secs(30);

/// How many repairs are logged one by one.
const LOGGED: usize = 3;

/// The time between two log lines after that.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// The repairs of one table.
#[derive(Debug)]
pub(super) struct Repairs {
    /// How many repairs may follow immediately.
    allowance: u32,
    refilled: Instant,
    /// When the allowance was used up.
    contended: Option<Instant>,
    /// The last external change, and the process that made it, if it is known.
    changed: Option<(Instant, Option<String>)>,
    /// Repairs since the table was last left alone.
    repairs: usize,
    first: Option<Instant>,
    unlogged: Unlogged,
    last_logged: Option<Instant>,
}

/// Repairs that no log line has reported yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unlogged {
    /// How many there were.
    pub(super) repairs: usize,
    /// How many chains, sets, elements and counters they restored.
    pub(super) objects: usize,
}

impl Repairs {
    /// None so far.
    pub(super) fn new(now: Instant) -> Self {
        Repairs {
            allowance: BURST,
            refilled: now,
            contended: None,
            changed: None,
            repairs: 0,
            first: None,
            unlogged: Unlogged::default(),
            last_logged: None,
        }
    }

    /// Another process changed the table, or may have. Returns when it may be compared and repaired.
    pub(super) fn changed_by(&mut self, process: &str, now: Instant) -> Instant {
        self.refill(now);
        self.changed = Some((now, Some(process.to_owned())));
        if self.allowance > 0 { now } else { (self.refilled + self.refill_time(now)).max(now) }
    }

    /// The table is compared now.
    pub(super) fn started(&mut self, now: Instant) {
        self.refill(now);
        match self.allowance.checked_sub(1) {
            Some(left) => self.allowance = left,
            // The refill takes a little longer than it did when the time for this one was computed.
            None => self.refilled = now,
        }
        if self.allowance == 0 && self.contended.is_none() {
            self.contended = Some(now);
        }
    }

    /// Takes in that a sync restored this number of objects. Returns what a log line is to report, if one is due.
    pub(super) fn repaired(&mut self, objects: usize, now: Instant) -> Option<Unlogged> {
        self.repairs += 1;
        self.first.get_or_insert(now);
        self.unlogged.repairs += 1;
        self.unlogged.objects += objects;
        if self.repairs <= LOGGED { self.log(now) } else { self.due_log(now) }
    }

    /// What a log line is to report of the repairs that none reported yet, if one is due.
    pub(super) fn due_log(&mut self, now: Instant) -> Option<Unlogged> {
        self.next_log().filter(|at| now >= *at)?;
        self.log(now)
    }

    /// When repairs that no log line reported yet are to be logged.
    fn next_log(&self) -> Option<Instant> {
        let last = self.last_logged.filter(|_| self.unlogged != Unlogged::default())?;
        Some(last + LOG_PERIOD)
    }

    fn log(&mut self, now: Instant) -> Option<Unlogged> {
        self.last_logged = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }

    /// The process that made the last external change.
    pub(super) fn process(&self) -> &str {
        let process = self.changed.as_ref().and_then(|(_, process)| process.as_deref());
        process.unwrap_or("an unknown process")
    }

    /// What health reports while another process keeps changing the table.
    pub(super) fn contention(&self, now: Instant) -> Option<String> {
        self.contention_ends().filter(|end| now < *end)?;
        let lasted = now.saturating_duration_since(self.first?).as_secs();
        Some(format!(
            "restored {} times in {lasted}s after changes by {}; until one of the two programs is stopped, the rules are \
             wrong for up to {}s at a time",
            self.repairs,
            self.process(),
            self.refill_time(now).as_secs_f32().ceil()
        ))
    }

    /// Returns the next time at which there is something to report even if nothing happens: repairs to log, or the end of
    /// contention.
    pub(super) fn next_report(&self, now: Instant) -> Option<Instant> {
        let end = self.contention_ends().filter(|end| now < *end);
        self.next_log().into_iter().chain(end).min()
    }

    /// Returns when contention ends if nothing is changed any more; `None` without contention.
    fn contention_ends(&self) -> Option<Instant> {
        self.contended.filter(|_| self.repairs > 0)?;
        self.changed.as_ref().map(|(at, _)| *at + QUIET)
    }

    fn refill_time(&self, now: Instant) -> Duration {
        let contended = self.contended.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        (contended / REFILL_PART).clamp(SHORTEST_REFILL, LONGEST_REFILL)
    }

    fn refill(&mut self, now: Instant) {
        if self.changed.as_ref().is_none_or(|(at, _)| now >= *at + QUIET) {
            let (changed, unlogged, last_logged) = (self.changed.take(), self.unlogged, self.last_logged);
            *self = Repairs { changed, unlogged, last_logged, ..Repairs::new(now) };
            return;
        }
        let each = self.refill_time(now);
        let passed = now.saturating_duration_since(self.refilled).as_millis() / each.as_millis();
        let added = u32::try_from(passed).unwrap_or(u32::MAX).min(BURST);
        if self.allowance.saturating_add(added) >= BURST {
            (self.allowance, self.refilled) = (BURST, now);
        } else {
            self.allowance += added;
            self.refilled += each * added;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The repairs and the log lines of a number of seconds in which another process answers every repair immediately.
    fn contend(repairs: &mut Repairs, start: Instant, seconds: u64) -> (Vec<Duration>, Vec<Unlogged>) {
        let (mut now, mut times, mut logged) = (start, Vec::new(), Vec::new());
        while now < start + Duration::from_secs(seconds) {
            now = repairs.changed_by("rival (process 7)", now);
            repairs.started(now);
            logged.extend(repairs.repaired(2, now));
            times.push(now - start);
            now += Duration::from_micros(500);
        }
        (times, logged)
    }

    #[test]
    fn contention_slows_repairs_down_and_is_reported() {
        let start = Instant::now();
        let mut repairs = Repairs::new(start);
        assert_eq!(repairs.contention(start), None);
        let (times, logged) = contend(&mut repairs, start, 600);
        let until = |seconds| times.iter().filter(|time| time.as_secs() < seconds).count();
        assert!((30..=32).contains(&until(1)), "{} in the first second", until(1));
        assert!(until(10) <= 60, "{} in ten seconds", until(10));
        assert!((100..200).contains(&times.len()), "{} in ten minutes", times.len());
        let waits = times.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(waits.max().is_some_and(|wait| wait <= LONGEST_REFILL + Duration::from_millis(1)));
        assert!(logged.len() <= 3 + 600 / 10, "{} lines", logged.len());
        assert_eq!(logged[0], Unlogged { repairs: 1, objects: 2 });
        assert_eq!(logged[3].objects, logged[3].repairs * 2);
        assert!(logged[3].repairs > 20, "{:?}", logged[3]);

        let end = start + *times.last().expect("repairs");
        let message = repairs.contention(end).expect("contention");
        let expected = format!("restored {} times in ", times.len());
        assert!(
            message.starts_with(&expected) && message.contains("after changes by rival (process 7);"),
            "{message}"
        );
        assert!(repairs.contention(end + QUIET).is_none(), "it is over");
        let later = end + QUIET;
        assert_eq!(repairs.changed_by("nft (process 8)", later), later, "and forgotten");
        repairs.started(later);
        assert_eq!(repairs.repaired(1, later), Some(Unlogged { repairs: 1, objects: 1 }));
        assert_eq!(repairs.contention(later), None);
    }

    #[test]
    fn a_change_now_and_then_is_repaired_immediately() {
        let start = Instant::now();
        let mut repairs = Repairs::new(start);
        for second in 0..300 {
            let now = start + Duration::from_secs(second);
            assert_eq!(repairs.changed_by("nft (process 8)", now), now);
            repairs.started(now);
            repairs.repaired(1, now);
            assert_eq!(repairs.contention(now), None);
        }
    }

    #[test]
    fn the_last_repairs_are_logged_though_none_follows() {
        let start = Instant::now();
        let mut repairs = Repairs::new(start);
        for n in 0..5 {
            assert_eq!(repairs.repaired(2, start).is_some(), n < 3);
        }
        let due = repairs.next_log().expect("two are not logged");
        assert_eq!(due, start + LOG_PERIOD);
        assert_eq!(repairs.due_log(due - Duration::from_millis(1)), None);
        repairs.changed_by("nft (process 8)", start + QUIET);
        assert_eq!(repairs.due_log(start + QUIET), Some(Unlogged { repairs: 2, objects: 4 }));
        assert_eq!(repairs.next_log(), None);
    }

    #[test]
    fn a_process_that_changes_nothing_of_ours_is_no_contention() {
        let start = Instant::now();
        let mut repairs = Repairs::new(start);
        let mut now = start;
        for _ in 0..100 {
            now = repairs.changed_by("nft (process 8)", now);
            repairs.started(now);
        }
        assert!(now > start, "it is not compared without a pause");
        assert_eq!(repairs.contention(now), None);
    }
}
