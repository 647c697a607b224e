//! Figures, beside the goals.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use super::api_server::{Lists, Sent};
use super::changes::{Changes, POLICIES, SERVICES};
use super::cluster::Resource;
use super::process::Memory;

/// Measurements of one daemon.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) with_policies: bool,
    pub(crate) lists: Lists,
    /// From the start until everything is served and enforced.
    pub(crate) start: Duration,
    /// Processor time of the daemon until then, and up to half a second longer.
    pub(crate) start_processor: Duration,
    pub(crate) server_processor: Duration,
    pub(crate) listed: BTreeMap<Resource, Sent>,
    pub(crate) memory_after_start: Option<Memory>,
    /// The rest is of changes.
    pub(crate) changes: Changes,
    pub(crate) seconds: f64,
    /// Processor time per second.
    pub(crate) change_processor: f64,
    pub(crate) change_server: f64,
    pub(crate) changed: BTreeMap<Resource, Sent>,
    /// From a change to the notification of the kernel, by table.
    pub(crate) latencies: HashMap<&'static str, Vec<Duration>>,
    /// Changes without a notification.
    pub(crate) unseen: usize,
    /// Lost notifications.
    pub(crate) lost: usize,
    pub(crate) memory_at_end: Option<Memory>,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = if self.with_policies { "with" } else { "without" };
        writeln!(f, "\n{with} --network-policy, lists: {:?}", self.lists)?;
        let start = self.start.as_secs_f64();
        writeln!(
            f,
            "  start: {start:.2} s (goal: 5 s); processor time {:.2} s, of the API server {:.2} s",
            self.start_processor.as_secs_f64(),
            self.server_processor.as_secs_f64()
        )?;
        sent(f, &self.listed, 1.0)?;
        let goal = if self.with_policies { 150 } else { 60 };
        if let Some(memory) = self.memory_after_start {
            writeln!(f, "  memory after the start: {} (goal: {goal} MB)", Megabytes(memory))?;
        }
        let Some(memory) = self.memory_at_end else { return Ok(()) };
        let Changes { pods, slices } = self.changes;
        writeln!(
            f,
            "  changes: {pods} of pods and {slices} of EndpointSlices in {:.0} s; processor time {:.1} % (goal: 10 %), of the API \
             server {:.1} %",
            self.seconds,
            self.change_processor * 100.0,
            self.change_server * 100.0
        )?;
        sent(f, &self.changed, self.seconds)?;
        for (table, what) in [(POLICIES, "a pod's address in policies"), (SERVICES, "an endpoint")] {
            if let Some(latencies) = self.latencies.get(table) {
                latency(f, what, latencies.clone())?;
            }
        }
        writeln!(f, "  changes that were not seen: {}; lost notifications: {}", self.unseen, self.lost)?;
        writeln!(f, "  memory at rest after the changes: {}", Megabytes(memory))
    }
}

/// Prints what was sent, per `seconds`.
fn sent(f: &mut fmt::Formatter<'_>, sent: &BTreeMap<Resource, Sent>, seconds: f64) -> fmt::Result {
    let (mut bytes, mut transferred) = (0.0, 0.0);
    for (resource, of) in sent {
        let per = |number: usize| number as f64 / seconds;
        bytes += per(of.bytes);
        transferred += per(of.transferred);
        writeln!(
            f,
            "    {:<18}{:>9.1} objects {:>9} bytes each {:>11.3} MB {:>11.3} MB transferred {:>6} requests",
            resource.plural(),
            per(of.objects),
            of.bytes / of.objects.max(1),
            per(of.bytes) / 1e6,
            per(of.transferred) / 1e6,
            of.requests
        )?;
    }
    writeln!(f, "    {:<18}{:>47.3} MB {:>11.3} MB transferred", "sum", bytes / 1e6, transferred / 1e6)
}

fn latency(f: &mut fmt::Formatter<'_>, what: &str, mut latencies: Vec<Duration>) -> fmt::Result {
    latencies.sort_unstable();
    let at = |part: f64| {
        let last = latencies.len() - 1;
        latencies[((last as f64) * part).ceil() as usize].as_secs_f64() * 1e3
    };
    writeln!(
        f,
        "  from the change to the kernel, {what} ({}): median {:.2} ms, 90 % {:.2} ms, 99 % {:.2} ms (goal: 50 ms), worst {:.2} ms",
        latencies.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    )
}

struct Megabytes(Memory);

impl fmt::Display for Megabytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Memory { resident, peak_resident, anonymous, .. } = self.0;
        write!(f, "{resident:.1} MB, {anonymous:.1} MB of it anonymous; peak {peak_resident:.1} MB")
    }
}
