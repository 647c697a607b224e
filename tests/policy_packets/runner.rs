//! Runner of cases, one after another in one lab.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::case::Case;
use crate::enforcement::Enforcement;
use crate::test_cluster::TestCluster;
use crate::{flows, truth_tables};

/// Result of a step.
pub(crate) struct StepResult {
    /// `case, step 2`.
    pub(crate) step: String,
    /// Differences to the expected results.
    pub(crate) failures: Vec<String>,
    /// The observed tables.
    pub(crate) table: String,
}

/// Maximum number of failed steps whose tables are printed.
const MAX_PRINTED: usize = 5;

/// Counts and times of a run.
#[derive(Debug, Default)]
pub(crate) struct Times {
    pub(crate) steps: usize,
    pub(crate) probes: usize,
    pub(crate) settling: Duration,
    pub(crate) probing: Duration,
}

/// Resets the cluster and runs a case. Its objects are kept.
pub(crate) fn run(
    cluster: &mut TestCluster,
    case: &Case,
    enforcement: &mut dyn Enforcement,
    times: &mut Times,
) -> Vec<StepResult> {
    cluster.reset();
    let (mut results, mut open) = (Vec::new(), Vec::new());
    for (index, step) in case.steps.iter().enumerate() {
        let started = Instant::now();
        cluster.apply_step(step);
        enforcement.settle(&mut cluster.lab, step);
        times.settling += started.elapsed();
        let started = Instant::now();
        let mut failures = truth_tables::missing(&cluster.lab, &step.expect);
        let matrix = truth_tables::probe(&cluster.lab, &step.expect);
        failures.extend(matrix.unexpected().iter().map(|(question, cell)| {
            let must = if cell.expected == Some(true) { "allowed" } else { "denied" };
            format!("{question}: must be {must}; {}", cell.outcome.as_ref().unwrap())
        }));
        failures.extend(flows::probe(&cluster.lab, step, &mut open));
        open.extend(flows::open(&cluster.lab, case, index + 1));
        times.probing += started.elapsed();
        times.probes += matrix.cells().filter(|(_, cell)| cell.outcome.is_some()).count();
        times.steps += 1;
        let step = format!("{}, step {}", case.name, index + 1);
        results.push(StepResult { step, failures, table: matrix.to_string() });
    }
    results
}

/// Runs cases in several labs in parallel, as most of the time is spent waiting. Panics with all failures after all cases
/// have run.
pub(crate) fn run_all(
    corpus: &str,
    cases: &[Case],
    args: &[&str],
    labs: usize,
    enforcement: impl Fn() -> Box<dyn Enforcement> + Sync,
) {
    let started = Instant::now();
    let next = AtomicUsize::new(0);
    let worker = || {
        let (mut cluster, mut enforcement) = (TestCluster::up(corpus, cases, args), enforcement());
        let (mut times, mut wrong) = (Times::default(), Vec::new());
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let started = Instant::now();
            let results = run(&mut cluster, case, &mut *enforcement, &mut times);
            let is_ok = results.iter().all(|result| result.failures.is_empty());
            let outcome = if is_ok { "ok" } else { "FAILED" };
            println!("{}: {outcome} after {:.1?}", case.name, started.elapsed());
            wrong.extend(results.into_iter().filter(|result| !result.failures.is_empty()));
        }
        (times, wrong)
    };
    let done: Vec<(Times, Vec<StepResult>)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..labs.min(cases.len())).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let times: Vec<&Times> = done.iter().map(|(times, _)| times).collect();
    println!("{} cases in {:?}: {times:#?}", cases.len(), started.elapsed());
    let wrong: Vec<&StepResult> = done.iter().flat_map(|(_, wrong)| wrong).collect();
    for result in wrong.iter().take(MAX_PRINTED) {
        eprintln!("{}\n{}\n{}\n", result.step, result.table, result.failures.join("\n"));
    }
    let steps: Vec<&str> = wrong.iter().map(|result| result.step.as_str()).collect();
    assert!(wrong.is_empty(), "{} steps failed: {steps:#?}", steps.len());
}
