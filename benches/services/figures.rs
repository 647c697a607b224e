//! What was measured, and its medians.

use std::time::Duration;

use serde::Serialize;

use super::daemon::Took;
use super::flavour::Flavour;
use super::process::Spent;

/// Everything of one number of Services and one flavour.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) services: usize,
    pub(crate) flavour: Flavour,
    /// Restores, and the lines of their text, of a first sync.
    pub(crate) restores: usize,
    pub(crate) lines: usize,
    pub(crate) rows: Vec<Row>,
    /// From the start of the process to rules in place, in seconds: with the API server's work.
    pub(crate) start_to_served: f64,
    /// Memory of the daemon at its highest and at the end, in MB.
    pub(crate) peak_memory: f64,
    pub(crate) memory_after: f64,
}

/// One thing measured beside the bare tool. Times are in seconds.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) bare_wall: f64,
    pub(crate) bare_processor: f64,
    /// `None` where only the bare tool is measured.
    pub(crate) ours: Option<Ours>,
}

/// What the daemon took for it.
#[derive(Debug, Serialize)]
pub(crate) struct Ours {
    /// The sync as it measures it.
    pub(crate) sync: f64,
    /// From the cause to rules in place; the cause of a first sync is that the last object is known, as what was
    /// before that is mostly the work of the API server here.
    pub(crate) all: f64,
    /// Processor time of the daemon alone, and of the tools that it ran.
    pub(crate) daemon_processor: f64,
    pub(crate) tools_processor: f64,
}

impl Row {
    pub(crate) fn new(what: &str, bare: &[Spent], ours: &[Took]) -> Row {
        let of = |value: fn(&Took) -> Duration| median(ours.iter().map(value));
        Row {
            what: what.to_owned(),
            bare_wall: median(bare.iter().map(|spent| spent.wall)),
            bare_processor: median(bare.iter().map(|spent| spent.processor)),
            ours: (!ours.is_empty()).then(|| Ours {
                sync: of(|took| took.sync),
                all: of(|took| took.listed.unwrap_or(took.all)),
                // The kernel counts in hundredths of a second: only the mean of many can be finer.
                daemon_processor: mean(ours.iter().map(|took| took.processor.own)),
                tools_processor: mean(ours.iter().map(|took| took.processor.children)),
            }),
        }
    }
}

/// The median in seconds.
pub(crate) fn median(times: impl Iterator<Item = Duration>) -> f64 {
    let mut times: Vec<f64> = times.map(|time| time.as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    match times.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => times[middle],
        _ => (times[middle - 1] + times[middle]) / 2.0,
    }
}

fn mean(times: impl ExactSizeIterator<Item = Duration>) -> f64 {
    let count = times.len() as f64;
    times.map(|time| time.as_secs_f64()).sum::<f64>() / count
}
