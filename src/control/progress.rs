//! Progress of the main loop and of the jobs that it runs on threads.
//!
//! A sync, above all the first one, may take minutes in a large cluster. So its duration does not matter, but the time
//! since it finished a step, such as a restore of some thousand rules.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::moment::Moment;

/// A job that the main loop runs on a thread, one of each kind at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Job {
    /// Syncs Services, or reads their counters.
    Services,
    /// Syncs policies.
    Policies,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Job::Services => "the thread that syncs Services",
            Job::Policies => "the thread that syncs policies",
        })
    }
}

/// Times of the last progress.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Last iteration of the main loop; `None` before it starts.
    iteration: Option<Moment>,
    /// Start or last finished step of each running job.
    steps: BTreeMap<Job, Moment>,
}

/// Time limit for an iteration of the main loop.
pub(crate) const ITERATION_LIMIT: Duration = Duration::from_secs(60);

impl Progress {
    pub(crate) fn iterated(&mut self, at: Moment) {
        self.iteration = Some(at);
    }

    pub(crate) fn started(&mut self, job: Job, at: Moment) {
        self.steps.insert(job, at);
    }

    /// Records a step of a running job.
    pub(crate) fn stepped(&mut self, job: Job, at: Moment) {
        if let Some(step) = self.steps.get_mut(&job) {
            *step = at;
        }
    }

    pub(crate) fn ended(&mut self, job: Job) {
        self.steps.remove(&job);
    }

    /// Returns true if a job is running and started or finished a step within the limit.
    pub(crate) fn advances(&self, job: Job, limit: Duration, now: Moment) -> bool {
        self.steps.get(&job).is_some_and(|step| now.since(*step) < limit)
    }

    /// Describes the loop and the jobs that make no progress. `limit` is the time limit for a step of a job.
    pub(crate) fn stalls(&self, limit: impl Fn(Job) -> Duration, now: Moment) -> Vec<String> {
        let iteration = self.iteration.filter(|at| now.since(*at) >= ITERATION_LIMIT);
        let loop_stall = iteration.map(|at| stall(&"the loop", at));
        let stalled = self.steps.iter().filter(|(job, step)| now.since(**step) >= limit(**job));
        loop_stall.into_iter().chain(stalled.map(|(job, step)| stall(job, *step))).collect()
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
        Started(Job),
        Stepped(Job),
        Ended(Job),
    }

    #[test]
    fn rules() {
        use Job::{Policies, Services};
        // Name, events with their second, second of the check, and whether the loop, Services and policies stall.
        // The limit for a step is 100 s.
        type Row = (&'static str, Vec<(u64, TestEvent)>, u64, [bool; 3]);
        let rows: Vec<Row> = vec![
            ("nothing has started", vec![], 1_000, [false; 3]),
            ("the loop iterates", vec![(0, Iterated), (50, Iterated)], 109, [false; 3]),
            ("the loop hangs", vec![(0, Iterated), (50, Iterated)], 110, [true, false, false]),
            ("it iterates again", vec![(0, Iterated), (200, Iterated)], 210, [false; 3]),
            ("a job runs", vec![(0, Started(Services))], 99, [false; 3]),
            ("a job hangs", vec![(0, Started(Services))], 100, [false, true, false]),
            (
                "a job takes long in steps",
                vec![(0, Started(Services)), (90, Stepped(Services))],
                189,
                [false; 3],
            ),
            (
                "a job hangs after a step",
                vec![(0, Started(Services)), (90, Stepped(Services))],
                190,
                [false, true, false],
            ),
            ("a job has ended", vec![(0, Started(Policies)), (1, Ended(Policies))], 500, [false; 3]),
            (
                "a step after the end",
                vec![(0, Started(Policies)), (1, Ended(Policies)), (2, Stepped(Policies))],
                500,
                [false; 3],
            ),
            (
                "one of two hangs",
                vec![(0, Started(Services)), (0, Started(Policies)), (90, Stepped(Services))],
                100,
                [false, false, true],
            ),
        ];
        let start = Moment::now();
        for (case, events, at, expected) in rows {
            let mut progress = Progress::default();
            for (second, what) in events {
                let at = start + Duration::from_secs(second);
                match what {
                    Iterated => progress.iterated(at),
                    Started(job) => progress.started(job, at),
                    Stepped(job) => progress.stepped(job, at),
                    Ended(job) => progress.ended(job),
                }
            }
            let stalls = progress.stalls(|_| Duration::from_secs(100), start + Duration::from_secs(at));
            let found = ["the loop", "Services", "policies"]
                .map(|what| stalls.iter().any(|stall| stall.contains(what)));
            assert_eq!(found, expected, "{case}: {stalls:?}");
        }
    }
}
