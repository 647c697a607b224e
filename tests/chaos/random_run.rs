//! Runs random scenarios for a time.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use libtest_mimic::Failed;
use portcullis_machines::uml;

use super::generator::{self, Kernel};
use super::runner::{self, Counts, Failure};
use super::scenario::Scenario;
use super::shrink;

/// Default duration of random scenarios, and of the reduction of a failing one.
const SECONDS: u64 = 30;
const SHRINK_SECONDS: u64 = 300;

/// Number of log lines of the daemon that are printed for a failure.
const LOG_LINES: usize = 60;

pub(crate) fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}: expected a number, found {text:?}")))
}

/// Runs scenarios until `CHAOS_SECONDS` have passed, at least one, and fails at the first that fails.
pub(crate) fn run(kernel: Kernel) -> Result<(), Failed> {
    if kernel == Kernel::Ipvs && !uml::is_inside() {
        return inside_uml("random::with_ipvs");
    }
    let seconds = number("CHAOS_SECONDS").unwrap_or(SECONDS);
    let clock =
        || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_secs());
    let first = number("CHAOS_SEED").unwrap_or_else(clock);
    println!("{kernel:?}: first seed {first}, {seconds} s");
    let start = Instant::now();
    let mut total = Counts::default();
    let mut scenarios = 0;
    for seed in first.. {
        let scenario = generator::scenario(seed, kernel);
        let began = Instant::now();
        let counts = runner::run(&scenario, runner::LIMIT).map_err(|failure| report(&scenario, failure))?;
        println!("{kernel:?}: seed {seed} passed in {:.1} s: {counts:?}", began.elapsed().as_secs_f64());
        total.add(&counts);
        scenarios += 1;
        if start.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
    }
    println!("{kernel:?}: {scenarios} scenarios in {:.0} s: {total:?}", start.elapsed().as_secs_f64());
    Ok(())
}

/// Runs one test of this binary inside user-mode Linux.
pub(crate) fn inside_uml(name: &str) -> Result<(), Failed> {
    let seconds =
        number("CHAOS_SECONDS").unwrap_or(SECONDS) + number("CHAOS_SHRINK_SECONDS").unwrap_or(SHRINK_SECONDS);
    inside_uml_for(name, Duration::from_secs(seconds + 400))
}

/// The same with a time limit.
pub(crate) fn inside_uml_for(name: &str, limit: Duration) -> Result<(), Failed> {
    let program = std::env::current_exe().expect("this program has a path");
    let output = uml::run(&program, [name, "--exact", "--nocapture"], limit)?;
    println!("{output}");
    Ok(())
}

/// Reduces a failing scenario and writes its file; returns the report.
fn report(scenario: &Scenario, failure: Failure) -> Failed {
    eprintln!("seed {} failed at step {}: {}", scenario.seed, failure.step + 1, failure.violation);
    let until =
        Instant::now() + Duration::from_secs(number("CHAOS_SHRINK_SECONDS").unwrap_or(SHRINK_SECONDS));
    let steps = scenario.steps.len();
    let (mut reduced, failure) = shrink::shrink(scenario, failure, until);
    reduced.note = failure.violation.to_string().lines().next().unwrap_or_default().to_owned();
    let path = write(&reduced);
    let mut text = format!("seed {}: reduced from {steps} to {} steps:\n", reduced.seed, reduced.steps.len());
    for (number, step) in reduced.steps.iter().enumerate() {
        writeln!(text, "  {}. {step}", number + 1).expect("a string can be written to");
    }
    let lines: Vec<&str> = failure.log.lines().collect();
    let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    write!(
        text,
        "step {}: {}\n--- the daemon's log ---\n{tail}\n---\n{path}",
        failure.step + 1,
        failure.violation,
        path = path.display()
    )
    .expect("a string can be written to");
    Failed::from(text)
}

fn write(scenario: &Scenario) -> PathBuf {
    let folder = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    let path = folder.join("chaos").join(format!("{}-{}.yaml", scenario.mode.name(), scenario.seed));
    let written =
        fs::create_dir_all(folder.join("chaos")).and_then(|()| fs::write(&path, scenario.to_yaml()));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}
