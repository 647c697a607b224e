//! Reduction of a failing scenario: parts of its steps are removed while it still fails.

use std::time::{Duration, Instant};

use portcullis_machines::uml;

use super::runner::{self, Failure};
use super::scenario::Scenario;
use super::violation::Invariant;

/// Returns a smaller scenario that fails, and its failure. Ends at a time, with the smallest one until then.
pub(crate) fn shrink(scenario: &Scenario, failure: Failure, until: Instant) -> (Scenario, Failure) {
    let invariant = failure.violation.invariant;
    reduce(scenario.clone(), failure, &mut |candidate| {
        if Instant::now() > until { Attempt::OutOfTime } else { attempt(candidate, invariant) }
    })
}

/// The result of a smaller scenario.
enum Attempt {
    Fails(Failure),
    Passes,
    OutOfTime,
}

/// Returns the time limit of quiet moments: shorter than that of other scenarios, because most attempts wait for it.
fn limit() -> Duration {
    Duration::from_secs(if uml::is_inside() { 150 } else { 45 })
}

fn attempt(candidate: &Scenario, invariant: Invariant) -> Attempt {
    match runner::run(candidate, limit()) {
        Err(failure) if failure.violation.invariant == invariant => Attempt::Fails(failure),
        // It fails in another way, which is another fault.
        _ => Attempt::Passes,
    }
}

/// Removes halves, quarters and so on, down to single steps, until no step can be removed.
fn reduce(
    mut scenario: Scenario,
    mut failure: Failure,
    attempt: &mut dyn FnMut(&Scenario) -> Attempt,
) -> (Scenario, Failure) {
    // Steps after the failure have no part in it; the last quiet moment follows by itself.
    let mut candidate = scenario.clone();
    candidate.steps.truncate(failure.step + 1);
    if candidate.steps.len() < scenario.steps.len()
        && let Attempt::Fails(found) = attempt(&candidate)
    {
        (scenario, failure) = (candidate, found);
    }
    let mut size = scenario.steps.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        let mut has_shrunk = false;
        while at < scenario.steps.len() {
            let mut candidate = scenario.clone();
            candidate.steps.drain(at..(at + size).min(candidate.steps.len()));
            match attempt(&candidate) {
                Attempt::Fails(found) => {
                    (scenario, failure) = (candidate, found);
                    has_shrunk = true;
                }
                Attempt::Passes => at += size,
                Attempt::OutOfTime => return (scenario, failure),
            }
        }
        if size == 1 && !has_shrunk {
            break;
        }
        size = if size == 1 { 1 } else { size / 2 };
    }
    (scenario, failure)
}

pub(crate) mod tests {
    use super::*;
    use crate::generator::{self, Kernel};
    use crate::step::Step;
    use crate::violation::Violation;

    pub(crate) fn only_the_steps_that_matter_remain() {
        let mut scenario = generator::scenario(1, Kernel::NfTables);
        scenario.steps = (0..40).map(Step::Wait).collect();
        let failure = |step| Failure {
            step,
            violation: Violation::new(Invariant::Rules, "no".into()),
            log: String::new(),
        };
        let has = |scenario: &Scenario, wait| scenario.steps.contains(&Step::Wait(wait));
        let mut attempts = 0;
        let (reduced, _) = reduce(scenario, failure(33), &mut |candidate| {
            attempts += 1;
            match has(candidate, 3) && has(candidate, 17) {
                true => Attempt::Fails(failure(candidate.steps.len())),
                false => Attempt::Passes,
            }
        });
        assert_eq!(reduced.steps, [Step::Wait(3), Step::Wait(17)]);
        assert!(attempts < 60, "{attempts} attempts");
    }
}
