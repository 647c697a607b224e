//! Whether the loop and the jobs that it runs on threads make progress.
//!
//! A sync may take minutes in a large cluster, above all the first one, so not its duration counts but the time since it
//! last finished a step, such as a restore of some thousand rules.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::moment::Moment;

/// A job that the loop runs on a thread, one at a time of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Job {
    /// Programs Services, or reads their counters.
    Services,
    /// Programs policies.
    Policies,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Job::Services => "the thread that programs Services",
            Job::Policies => "the thread that programs policies",
        })
    }
}

/// The last signs of progress.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// When the loop last took a turn; `None` before it starts.
    turn: Option<Moment>,
    /// When each running job last finished a step, or started.
    steps: BTreeMap<Job, Moment>,
}

/// How long the loop may take for a turn.
pub const ITERATION_LIMIT: Duration = Duration::from_secs(60);

impl Progress {
    pub(super) fn iterated(&mut self, at: Moment) {
        self.turn = Some(at);
    }

    pub(super) fn started(&mut self, job: Job, at: Moment) {
        self.steps.insert(job, at);
    }

    /// Notes a step of a running job.
    pub(super) fn stepped(&mut self, job: Job, at: Moment) {
        if let Some(step) = self.steps.get_mut(&job) {
            *step = at;
        }
    }

    pub(super) fn ended(&mut self, job: Job) {
        self.steps.remove(&job);
    }

    /// Whether a job runs and has finished a step, or started, within the limit.
    pub(super) fn advances(&self, job: Job, limit: Duration, now: Moment) -> bool {
        self.steps.get(&job).is_some_and(|step| now.since(*step) < limit)
    }

    /// What makes no progress. `limit`: how long each job may take for a step.
    pub(super) fn stalls(&self, limit: impl Fn(Job) -> Duration, now: Moment) -> Vec<String> {
        let turn = self.turn.filter(|turn| now.since(*turn) >= ITERATION_LIMIT);
        let turn = turn.map(|turn| stall(&"the loop", turn));
        let stalled = self.steps.iter().filter(|(job, step)| now.since(**step) >= limit(**job));
        turn.into_iter().chain(stalled.map(|(job, step)| stall(job, *step))).collect()
    }
}

fn stall(what: &dyn fmt::Display, since: Moment) -> String {
    format!("{what} has made no progress since {}", since.wall())
}

#[cfg(test)]
mod tests {
    use super::*;
    use What::{Ended, Started, Stepped, Turned};

    enum What {
        Turned,
        Started(Job),
        Stepped(Job),
        Ended(Job),
    }

    #[test]
    fn rules() {
        use Job::{Policies, Services};
        // What happens at which second, the second of the question, and what stalls then: the loop, Services, policies.
        // The limit for a step is 100 s.
        type Row = (&'static str, Vec<(u64, What)>, u64, [bool; 3]);
        let rows: Vec<Row> = vec![
            ("nothing has started", vec![], 1_000, [false; 3]),
            ("the loop turns", vec![(0, Turned), (50, Turned)], 109, [false; 3]),
            ("the loop hangs", vec![(0, Turned), (50, Turned)], 110, [true, false, false]),
            ("it turns again", vec![(0, Turned), (200, Turned)], 210, [false; 3]),
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
                    Turned => progress.iterated(at),
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
