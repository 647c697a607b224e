//! The measured samples, and their medians.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::daemon::Took;
use super::process::Memory;

/// The figures for one number of Services and one variant.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) services: usize,
    /// The variant: the flavour of the tool, or IPVS.
    pub(crate) way: String,
    /// The content of a first sync.
    pub(crate) written: String,
    pub(crate) rows: Vec<Row>,
    /// From the start of the process to the written rules, in seconds; includes the API server's work.
    pub(crate) start_to_served: f64,
    /// Highest resident memory of the daemon, in MB.
    pub(crate) peak_resident: f64,
    /// Resident memory of the daemon at the end, in MB.
    pub(crate) resident: f64,
    /// Anonymous memory of the daemon at the end, in MB.
    pub(crate) anonymous: f64,
    /// CPU time of the daemon under load, in seconds per second; `None` if not measured.
    pub(crate) under_load: Option<f64>,
}

/// The time of the reference.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    pub(crate) wall: Duration,
    /// CPU time of the thread or the tools.
    pub(crate) processor: Duration,
}

impl std::ops::Add for Spent {
    type Output = Spent;

    fn add(self, other: Spent) -> Spent {
        Spent { wall: self.wall + other.wall, processor: self.processor + other.processor }
    }
}

/// All samples of one measurement.
#[derive(Default)]
pub(crate) struct Samples {
    pub(crate) bare: Vec<Spent>,
    pub(crate) ours: Vec<Took>,
}

/// All samples.
#[derive(Default)]
pub(crate) struct Run {
    pub(crate) first: Samples,
    pub(crate) endpoint: Samples,
    pub(crate) added: Samples,
    pub(crate) deleted: Samples,
    /// Memory of each daemon at the end.
    pub(crate) memory: Vec<Memory>,
    /// CPU time under load, in seconds per second.
    pub(crate) load: Vec<f64>,
}

impl Run {
    /// `more` rows follow the row of the first sync.
    pub(crate) fn measured(&self, services: usize, way: &str, written: String, more: Vec<Row>) -> Measured {
        let mut rows = vec![Row::new("first sync", &self.first.bare, &self.first.ours)];
        rows.extend(more);
        for (what, samples) in [
            ("one endpoint changed", &self.endpoint),
            ("Service added", &self.added),
            ("Service deleted", &self.deleted),
        ] {
            rows.push(Row::new(what, &samples.bare, &samples.ours));
        }
        let highest = |of: fn(&Memory) -> f64| self.memory.iter().map(of).fold(0.0, f64::max);
        Measured {
            services,
            way: way.to_owned(),
            written,
            rows,
            start_to_served: median(self.first.ours.iter().map(|took| took.all)),
            peak_resident: highest(|memory| memory.peak_resident),
            resident: highest(|memory| memory.resident),
            anonymous: highest(|memory| memory.anonymous),
            under_load: self.load.iter().copied().reduce(f64::max),
        }
    }
}

/// One measurement beside its reference. Times are in seconds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) bare_wall: f64,
    pub(crate) bare_processor: f64,
    /// `None` if only the reference is measured.
    pub(crate) ours: Option<Ours>,
}

/// The times of the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ours {
    /// The sync as the daemon measures it.
    pub(crate) sync: f64,
    /// From the cause to the written rules. The cause of a first sync is the receipt of the last object, as earlier
    /// time is mostly the API server's.
    pub(crate) all: f64,
    /// CPU time of the daemon alone, and of its tools.
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
                // The kernel counts in hundredths of a second: only the mean of many samples is more precise.
                daemon_processor: mean(ours.iter().map(|took| took.processor.own)),
                tools_processor: mean(ours.iter().map(|took| took.processor.children)),
            }),
        }
    }
}

/// Returns the median in seconds.
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

/// Formats a number with commas between thousands.
pub(crate) fn grouped(number: usize) -> String {
    match number / 1000 {
        0 => number.to_string(),
        thousands => format!("{},{:03}", grouped(thousands), number % 1000),
    }
}
