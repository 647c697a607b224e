//! Running cases one after another in one lab.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::case::Case;
use crate::enforcer::Enforcer;
use crate::town::Town;
use crate::{flows, tables};

/// What a step came to.
pub(crate) struct Verdict {
    /// `case, step 2`.
    pub(crate) step: String,
    /// What is not as it must be; nothing if all is.
    pub(crate) complaints: Vec<String>,
    /// The tables as seen.
    pub(crate) table: String,
}

/// Of how many wrong steps the tables are shown.
const TOLD: usize = 5;

/// How the time of a run went.
#[derive(Debug, Default)]
pub(crate) struct Times {
    pub(crate) steps: usize,
    pub(crate) probes: usize,
    pub(crate) settling: Duration,
    pub(crate) probing: Duration,
}

/// Runs a case from the start, and leaves its objects behind.
pub(crate) fn run(
    town: &mut Town,
    case: &Case,
    enforcer: &mut dyn Enforcer,
    times: &mut Times,
) -> Vec<Verdict> {
    town.start_again();
    let (mut verdicts, mut open) = (Vec::new(), Vec::new());
    for (index, step) in case.steps.iter().enumerate() {
        let started = Instant::now();
        town.take(step);
        enforcer.settle(&mut town.lab, step);
        times.settling += started.elapsed();
        let started = Instant::now();
        let mut complaints = tables::missing(&town.lab, &step.expect);
        let matrix = tables::probe(&town.lab, &step.expect);
        complaints.extend(matrix.unexpected().iter().map(|(question, cell)| {
            let must = if cell.expected == Some(true) { "allowed" } else { "denied" };
            format!("{question}: must be {must}; {}", cell.outcome.as_ref().unwrap())
        }));
        complaints.extend(flows::probe(&town.lab, step, &mut open));
        open.extend(flows::open(&town.lab, case, index + 1));
        times.probing += started.elapsed();
        times.probes += matrix.cells().filter(|(_, cell)| cell.outcome.is_some()).count();
        times.steps += 1;
        let step = format!("{}, step {}", case.name, index + 1);
        verdicts.push(Verdict { step, complaints, table: matrix.to_string() });
    }
    verdicts
}

/// Runs cases, each lab its share one after another, so many labs side by side: most of the time goes in waiting.
/// Panics with what was wrong, after all have run.
pub(crate) fn run_all(
    corpus: &str,
    cases: &[Case],
    args: &[&str],
    labs: usize,
    enforcer: impl Fn() -> Box<dyn Enforcer> + Sync,
) {
    let started = Instant::now();
    let next = AtomicUsize::new(0);
    let worker = || {
        let (mut town, mut enforcer) = (Town::up(corpus, cases, args), enforcer());
        let (mut times, mut wrong) = (Times::default(), Vec::new());
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let verdicts = run(&mut town, case, &mut *enforcer, &mut times);
            wrong.extend(verdicts.into_iter().filter(|verdict| !verdict.complaints.is_empty()));
        }
        (times, wrong)
    };
    let done: Vec<(Times, Vec<Verdict>)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..labs.min(cases.len())).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let times: Vec<&Times> = done.iter().map(|(times, _)| times).collect();
    println!("{} cases in {:?}: {times:#?}", cases.len(), started.elapsed());
    let wrong: Vec<&Verdict> = done.iter().flat_map(|(_, wrong)| wrong).collect();
    for verdict in wrong.iter().take(TOLD) {
        eprintln!("{}\n{}\n{}\n", verdict.step, verdict.table, verdict.complaints.join("\n"));
    }
    let steps: Vec<&str> = wrong.iter().map(|verdict| verdict.step.as_str()).collect();
    assert!(wrong.is_empty(), "{} steps are wrong: {steps:#?}", steps.len());
}
