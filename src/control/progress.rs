//! Progress of the loop and of the work that it runs on threads.
//!
//! A sync, above all the first one, may take minutes in a large cluster. So its duration does not matter, but the time
//! since it finished a step, such as a restore of some thousand rules.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::controller_name::ControllerName;
use crate::moment::Moment;

/// Times of the last progress, which the loop and its threads record and health reads.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Times>);

#[derive(Debug, Default)]
struct Times {
    /// Last iteration of the loop; `None` before it starts.
    iteration: Option<Moment>,
    /// Start or last finished step of the running work of each controller.
    steps: BTreeMap<ControllerName, Moment>,
}

/// Time limit for an iteration of the loop.
pub const ITERATION_LIMIT: Duration = Duration::from_secs(60);

/// Interval between two iterations of the loop, which iterates every five seconds without events, from which on the process
/// did not run: it was stopped, its machine was paused, or there was no processor time for it. The threads could not make
/// progress either.
const STANDSTILL: Duration = Duration::from_secs(15);

impl Progress {
    /// Records an iteration of the loop. After the first one, it must iterate at least every [`ITERATION_LIMIT`].
    pub fn iterated(&self, at: Moment) {
        let times = &mut *self.times();
        let standstill = times.standstill(at);
        times.iteration = Some(at);
        times.steps.values_mut().for_each(|step| *step = *step + standstill);
    }

    /// Records the start of a controller's work.
    pub fn started(&self, controller: ControllerName, at: Moment) {
        self.times().steps.insert(controller, at);
    }

    /// Records a step of running work.
    pub fn stepped(&self, controller: ControllerName, at: Moment) {
        if let Some(step) = self.times().steps.get_mut(&controller) {
            *step = at;
        }
    }

    /// Records the end of a controller's work, successful or not.
    pub fn ended(&self, controller: ControllerName) {
        self.times().steps.remove(&controller);
    }

    /// Returns true if work of the controller is running and started or finished a step within the limit.
    pub(crate) fn advances(&self, controller: ControllerName, limit: Duration, now: Moment) -> bool {
        let times = self.times();
        times.steps.get(&controller).is_some_and(|step| now.since(*step) < limit + times.standstill(now))
    }

    /// Describes the loop and the work that make no progress. `limit` is the time limit for a step of a controller's work.
    pub(crate) fn stalls(&self, limit: impl Fn(ControllerName) -> Duration, now: Moment) -> Vec<String> {
        let times = self.times();
        let iteration = times.iteration.filter(|at| now.since(*at) >= ITERATION_LIMIT);
        let loop_stall = iteration.map(|at| stall(&"the loop", at));
        let standstill = times.standstill(now);
        let is_stalled = |name: &ControllerName, step: &Moment| now.since(*step) >= limit(*name) + standstill;
        let stalled = times.steps.iter().filter(|(name, step)| is_stalled(name, step));
        let thread = |name: &ControllerName| format!("the thread that syncs {}", name.objects);
        loop_stall.into_iter().chain(stalled.map(|(name, step)| stall(&thread(name), *step))).collect()
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        // A panic with the lock held leaves complete values behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Times {
    /// Returns the time for which the process did not run before `now`, apart from [`STANDSTILL`]; zero if it ran.
    fn standstill(&self, now: Moment) -> Duration {
        self.iteration.map_or(Duration::ZERO, |last| now.since(last).saturating_sub(STANDSTILL))
    }
}

fn stall(task: &dyn fmt::Display, since: Moment) -> String {
    format!("{task} has made no progress since {}", since.wall())
}

#[cfg(test)]
mod tests {
    use super::*;
    use TestEvent::{Ended, Iterated, Started, Stepped};

    enum TestEvent {
        Iterated,
        Started(ControllerName),
        Stepped(ControllerName),
        Ended(ControllerName),
    }

    #[test]
    fn rules() {
        let (services, policies) = (ControllerName::SERVICES, ControllerName::POLICIES);
        // Name, events with their second, second of the check, and whether the loop, Services and policies stall.
        // The limit for a step is 100 s.
        type Row = (&'static str, Vec<(u64, TestEvent)>, u64, [bool; 3]);
        let rows: Vec<Row> = vec![
            ("nothing has started", vec![], 1_000, [false; 3]),
            ("the loop iterates", vec![(0, Iterated), (50, Iterated)], 109, [false; 3]),
            ("the loop hangs", vec![(0, Iterated), (50, Iterated)], 110, [true, false, false]),
            ("it iterates again", vec![(0, Iterated), (200, Iterated)], 210, [false; 3]),
            ("a job runs", vec![(0, Started(services))], 99, [false; 3]),
            ("a job hangs", vec![(0, Started(services))], 100, [false, true, false]),
            (
                "a job takes long in steps",
                vec![(0, Started(services)), (90, Stepped(services))],
                189,
                [false; 3],
            ),
            (
                "a job hangs after a step",
                vec![(0, Started(services)), (90, Stepped(services))],
                190,
                [false, true, false],
            ),
            ("a job has ended", vec![(0, Started(policies)), (1, Ended(policies))], 500, [false; 3]),
            (
                "a step after the end",
                vec![(0, Started(policies)), (1, Ended(policies)), (2, Stepped(policies))],
                500,
                [false; 3],
            ),
            (
                "the process stood still, and the loop has not iterated yet",
                vec![(0, Started(services)), (0, Iterated), (15, Iterated), (30, Iterated), (45, Iterated)],
                104,
                [false; 3],
            ),
            (
                "the process stood still twice",
                vec![(0, Started(services)), (0, Iterated), (95, Iterated), (190, Iterated)],
                210,
                [false; 3],
            ),
            (
                "a job hangs after a standstill",
                vec![(0, Iterated), (0, Started(services)), (55, Iterated), (70, Iterated), (85, Iterated)]
                    .into_iter()
                    .chain((100..=140).step_by(10).map(|second| (second, Iterated)))
                    .collect(),
                140,
                [false, true, false],
            ),
            (
                "one of two hangs",
                vec![(0, Started(services)), (0, Started(policies)), (90, Stepped(services))],
                100,
                [false, false, true],
            ),
        ];
        let start = Moment::now();
        for (case, events, at, expected) in rows {
            let progress = Progress::default();
            for (second, what) in events {
                let at = start + Duration::from_secs(second);
                match what {
                    Iterated => progress.iterated(at),
                    Started(name) => progress.started(name, at),
                    Stepped(name) => progress.stepped(name, at),
                    Ended(name) => progress.ended(name),
                }
            }
            let stalls = progress.stalls(|_| Duration::from_secs(100), start + Duration::from_secs(at));
            let found = ["the loop", "Services", "policies"]
                .map(|what| stalls.iter().any(|stall| stall.contains(what)));
            assert_eq!(found, expected, "{case}: {stalls:?}");
        }
    }
}
