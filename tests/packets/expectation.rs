//! Expected outcomes of probes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use portcullis_lab::{ProbeOutcome, ProbeTally};

use crate::mode::Mode;

/// Number of probes per endpoint for checking a random distribution.
const PROBES_PER_ENDPOINT: usize = 150;

/// Number of probes per endpoint for checking a round-robin distribution.
const PROBES_PER_ENDPOINT_ROUND_ROBIN: usize = 40;

/// Probability, on each side, that a fair distribution fails the check.
const RISK: f64 = 1e-10;

/// Expected responders and source address.
#[derive(Debug, Clone)]
pub(crate) struct Expectation {
    pub(crate) answer: Answer,
    pub(crate) source: Source,
}

/// Expected responders.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// These pods, with equal shares.
    Spread(Vec<String>),
    /// A single one of these pods.
    OneOf(Vec<String>),
    /// None: a reset, or ICMP "port unreachable".
    Refused,
    /// None: a node's own datagram is rejected, either by `send` or by ICMP "port unreachable".
    Rejected,
    /// None: a timeout.
    Lost,
}

/// Expected source address, as the pods see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Any,
    /// The client's own address.
    Kept,
    /// An address of this node other than the client's own.
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

pub(crate) fn rejected() -> Expectation {
    expectation(Answer::Rejected)
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

    /// Returns the number of probes needed to check the expectation.
    pub(crate) fn probes(&self, mode: Mode) -> usize {
        match &self.answer {
            Answer::Spread(pods) if mode == Mode::Ipvs => PROBES_PER_ENDPOINT_ROUND_ROBIN * pods.len(),
            Answer::Spread(pods) => PROBES_PER_ENDPOINT * pods.len(),
            Answer::OneOf(_) => 10,
            Answer::Refused | Answer::Rejected => 5,
            Answer::Lost => 2,
        }
    }

    /// Returns how the outcomes violate the expectation, if they do. `client` are the prober's addresses, `node` those
    /// of the masquerading node.
    pub(crate) fn violation(&self, seen: &ProbeTally, client: &[IpAddr], node: &[IpAddr]) -> Option<String> {
        self.wrong_answer(seen).or_else(|| {
            let right = |source: &IpAddr| match self.source {
                Source::Any => true,
                Source::Kept => client.contains(source),
                Source::Masqueraded(_) => node.contains(source) && !client.contains(source),
            };
            let wrong = seen.sources.iter().find(|source| !right(source))?;
            Some(format!("the pod saw {wrong}, expected {:?}", self.source))
        })
    }

    fn wrong_answer(&self, seen: &ProbeTally) -> Option<String> {
        let others = |fits: fn(&ProbeOutcome) -> bool| {
            let fitting = seen.failures.iter().filter(|(outcome, _)| fits(outcome));
            let count: usize = fitting.map(|(_, count)| count).sum();
            (count < seen.total()).then(|| format!("expected {:?}", self.answer))
        };
        match &self.answer {
            Answer::Refused => others(|outcome| *outcome == ProbeOutcome::Refused),
            Answer::Rejected => {
                others(|outcome| matches!(outcome, ProbeOutcome::Refused | ProbeOutcome::Unreachable))
            }
            Answer::Lost => {
                others(|outcome| matches!(outcome, ProbeOutcome::TimedOut | ProbeOutcome::Unreachable))
            }
            Answer::Spread(pods) | Answer::OneOf(pods) => {
                let wanted: BTreeSet<&str> = pods.iter().map(String::as_str).collect();
                if seen.answered() < seen.total() {
                    return Some("expected a response to every probe".into());
                }
                if let Some(unexpected) = seen.responders().difference(&wanted).next() {
                    return Some(format!("unexpected response from {unexpected}"));
                }
                if matches!(self.answer, Answer::OneOf(_)) {
                    return (seen.by_responder.len() > 1)
                        .then(|| "expected responses of only one pod".into());
                }
                let fair = fair_counts(seen.total(), pods.len());
                let count = |pod: &&String| seen.by_responder.get(*pod).copied().unwrap_or(0);
                let unfair = pods.iter().find(|pod| !fair.contains(&count(pod)))?;
                Some(format!("{unfair} responded {} times, expected {fair:?}", count(&unfair)))
            }
        }
    }
}

/// Returns the range of responses of one of `endpoints` to `probes`: a fair endpoint is outside of it with a
/// probability of [`RISK`] on each side.
pub(crate) fn fair_counts(probes: usize, endpoints: usize) -> RangeInclusive<usize> {
    if endpoints == 1 {
        return probes..=probes;
    }
    let p = 1.0 / endpoints as f64;
    let n = probes as f64;
    // Logarithms of the binomial distribution: its tails are smaller than the smallest float.
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
    // A probability of 1e-10 corresponds to 6.36 standard deviations of the normal distribution.
    for (probes, endpoints) in [(400, 2), (600, 3), (800, 4)] {
        let (n, p) = (probes as f64, 1.0 / endpoints as f64);
        let (mean, deviation) = (n * p, (n * p * (1.0 - p)).sqrt());
        let fair = fair_counts(probes, endpoints);
        let out = [mean - *fair.start() as f64, *fair.end() as f64 - mean].map(|d| d / deviation);
        assert!(out.iter().all(|d| (5.8..6.9).contains(d)), "{fair:?} of {probes}: {out:?}");
    }
    // Twice the weight of one of three endpoints fails the check.
    assert!(!fair_counts(3 * PROBES_PER_ENDPOINT, 3).contains(&(3 * PROBES_PER_ENDPOINT / 2)));
    assert_eq!(fair_counts(10, 1), 10..=10);
}
