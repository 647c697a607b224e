//! What probes must show.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use portcullis_lab::{Outcome, Tally};

use crate::mode::Mode;

/// Probes for each endpoint over which traffic is to be spread.
const PROBES_PER_ENDPOINT: usize = 150;

/// The same where endpoints take turns rather than chances.
const PROBES_IN_TURN: usize = 40;

/// The chance, on each side, that a fair spread is called unfair.
const RISK: f64 = 1e-10;

/// What must be seen.
#[derive(Debug, Clone)]
pub(crate) struct Expectation {
    pub(crate) answer: Answer,
    pub(crate) source: Source,
}

/// Who must answer.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// These pods, each as often as any other.
    Spread(Vec<String>),
    /// One and the same of these pods.
    OneOf(Vec<String>),
    /// No one: a reset, or "port unreachable".
    Refused,
    /// No one: a node's own datagram is turned away, as it is sent or by "port unreachable", whichever is seen first.
    TurnedAway,
    /// No one, and nothing says so.
    Lost,
}

/// Which address the answering pods must see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Any,
    /// The client's own.
    Kept,
    /// One of this node's, and not the client's own.
    Masqueraded(usize),
}

fn expectation(answer: Answer) -> Expectation {
    Expectation { answer, source: Source::Any }
}

fn names(pods: &[&str]) -> Vec<String> {
    pods.iter().map(|pod| format!("default/{pod}")).collect()
}

pub(crate) fn spread(pods: &[&str]) -> Expectation {
    expectation(Answer::Spread(names(pods)))
}

pub(crate) fn only(pod: &str) -> Expectation {
    expectation(Answer::OneOf(names(&[pod])))
}

pub(crate) fn one_of(pods: &[&str]) -> Expectation {
    expectation(Answer::OneOf(names(pods)))
}

pub(crate) fn refused() -> Expectation {
    expectation(Answer::Refused)
}

pub(crate) fn turned_away() -> Expectation {
    expectation(Answer::TurnedAway)
}

pub(crate) fn lost() -> Expectation {
    expectation(Answer::Lost)
}

impl Expectation {
    pub(crate) fn kept(self) -> Self {
        Self { source: Source::Kept, ..self }
    }

    pub(crate) fn masqueraded_by(self, node: usize) -> Self {
        Self { source: Source::Masqueraded(node), ..self }
    }

    /// How many probes it takes to tell.
    pub(crate) fn probes(&self, mode: Mode) -> usize {
        match &self.answer {
            Answer::Spread(pods) if mode == Mode::Ipvs => PROBES_IN_TURN * pods.len(),
            Answer::Spread(pods) => PROBES_PER_ENDPOINT * pods.len(),
            Answer::OneOf(_) => 10,
            Answer::Refused | Answer::TurnedAway => 5,
            Answer::Lost => 2,
        }
    }

    /// What is wrong with what was seen, if anything. `client` are the prober's addresses, `node` those of the node
    /// that is to masquerade.
    pub(crate) fn complaint(&self, seen: &Tally, client: &[IpAddr], node: &[IpAddr]) -> Option<String> {
        self.wrong_answer(seen).or_else(|| {
            let right = |source: &IpAddr| match self.source {
                Source::Any => true,
                Source::Kept => client.contains(source),
                Source::Masqueraded(_) => node.contains(source) && !client.contains(source),
            };
            let wrong = seen.sources.iter().find(|source| !right(source))?;
            Some(format!("the pod saw {wrong}, and the source must be {:?}", self.source))
        })
    }

    fn wrong_answer(&self, seen: &Tally) -> Option<String> {
        let others = |fits: fn(&Outcome) -> bool| {
            let fitting = seen.others.iter().filter(|(outcome, _)| fits(outcome));
            let count: usize = fitting.map(|(_, count)| count).sum();
            (count < seen.total()).then(|| format!("must be {:?}", self.answer))
        };
        match &self.answer {
            Answer::Refused => others(|outcome| *outcome == Outcome::Refused),
            Answer::TurnedAway => {
                others(|outcome| matches!(outcome, Outcome::Refused | Outcome::Unreachable))
            }
            Answer::Lost => others(|outcome| matches!(outcome, Outcome::TimedOut | Outcome::Unreachable)),
            Answer::Spread(pods) | Answer::OneOf(pods) => {
                let wanted: BTreeSet<&str> = pods.iter().map(String::as_str).collect();
                if seen.answered() < seen.total() {
                    return Some("every probe must be answered".into());
                }
                if let Some(stranger) = seen.answerers().difference(&wanted).next() {
                    return Some(format!("{stranger} must not answer"));
                }
                if matches!(self.answer, Answer::OneOf(_)) {
                    return (seen.by.len() > 1).then(|| "only one pod may answer".into());
                }
                let fair = fair_counts(seen.total(), pods.len());
                let count = |pod: &&String| seen.by.get(*pod).copied().unwrap_or(0);
                let unfair = pods.iter().find(|pod| !fair.contains(&count(pod)))?;
                Some(format!("{unfair} answered {} times, not {fair:?}", count(&unfair)))
            }
        }
    }
}

/// How often one of `endpoints` may answer `probes`: a fair one is outside of it with a chance of [`RISK`] on each side.
pub(crate) fn fair_counts(probes: usize, endpoints: usize) -> RangeInclusive<usize> {
    if endpoints == 1 {
        return probes..=probes;
    }
    let p = 1.0 / endpoints as f64;
    let n = probes as f64;
    // The binomial distribution from one count to the next, in logarithms: its ends are below the smallest number.
    let mut log = vec![n * (1.0 - p).ln()];
    for k in 0..probes {
        log.push(log[k] + ((n - k as f64) / (k as f64 + 1.0)).ln() + (p / (1.0 - p)).ln());
    }
    let chance: Vec<f64> = log.into_iter().map(f64::exp).collect();
    let within = |counts: &mut dyn Iterator<Item = usize>| {
        let mut sum = 0.0;
        counts
            .take_while(|k| {
                sum += chance[*k];
                sum < RISK
            })
            .count()
    };
    within(&mut (0..=probes))..=probes - within(&mut (0..=probes).rev())
}

#[test]
fn fair_counts_are_those_of_the_binomial_distribution() {
    // By a table of the normal distribution a chance of 1e-10 lies 6.36 standard deviations out.
    for (probes, endpoints) in [(400, 2), (600, 3), (800, 4)] {
        let (n, p) = (probes as f64, 1.0 / endpoints as f64);
        let (mean, deviation) = (n * p, (n * p * (1.0 - p)).sqrt());
        let fair = fair_counts(probes, endpoints);
        let out = [mean - *fair.start() as f64, *fair.end() as f64 - mean].map(|d| d / deviation);
        assert!(out.iter().all(|d| (5.8..6.9).contains(d)), "{fair:?} of {probes}: {out:?}");
    }
    // Twice the weight on one of three is seen.
    assert!(!fair_counts(3 * PROBES_PER_ENDPOINT, 3).contains(&(3 * PROBES_PER_ENDPOINT / 2)));
    assert_eq!(fair_counts(10, 1), 10..=10);
}
