//! Probing a matrix: all cells once, then retries of unexpected timeouts.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Matrix, MatrixCell, MatrixOptions, MatrixProbe, MatrixTable};
use crate::error::Result;
use crate::netns::NetNs;
use crate::plan::EchoPort;
use crate::probe::{ProbeOutcome, unique_source_port};
use crate::probe_batch::{ProbeBatch, ProbeRequest};
use crate::running::Lab;

/// Maximum number of concurrent probes of one source.
const MAX_IN_FLIGHT: usize = 512;

/// A cell to probe, with its addresses.
#[derive(Clone, Copy)]
struct Job {
    table: usize,
    row: usize,
    column: usize,
    /// The source address; the port is assigned later.
    from: SocketAddr,
    to: SocketAddr,
}

impl Lab {
    /// Probes a connectivity matrix. `expected` returns whether a probe expects a response, or `None` if the outcome is not
    /// checked.
    ///
    /// # Errors
    /// The namespace of a source does not exist.
    pub fn matrix(
        &self,
        options: &MatrixOptions,
        expected: impl Fn(&MatrixProbe<'_>) -> Option<bool>,
    ) -> Result<Matrix> {
        let started = Instant::now();
        let netns =
            options.from.iter().map(|peer| peer.vantage().map(|vantage| self.netns(vantage)).transpose());
        let netns: Vec<Option<NetNs>> = netns.collect::<Result<_>>()?;
        let (mut tables, mut jobs) = (Vec::new(), Vec::new());
        for &port in &options.ports {
            for &family in options.families.list() {
                let mut rows = Vec::new();
                for (row, from) in options.from.iter().enumerate() {
                    let cell = |(column, to)| {
                        let probe = MatrixProbe { from, to, port, family };
                        let addresses =
                            netns[row].as_ref().and(from.address_of(family)).zip(to.address_of(family));
                        if let Some((from, to)) = addresses.filter(|_| to.is_probed_at(port)) {
                            let (from, to) = (SocketAddr::new(from, 0), SocketAddr::new(to, port.port));
                            jobs.push(Job { table: tables.len(), row, column, from, to });
                        }
                        MatrixCell { expected: expected(&probe), outcome: None, attempts: 0 }
                    };
                    rows.push(options.to.iter().enumerate().map(cell).collect());
                }
                tables.push(MatrixTable { port, family, rows });
            }
        }
        for timeout in std::iter::once(&options.timeout).chain(&options.retry_timeouts) {
            for (job, outcome) in probe(&jobs, &tables, &netns, *timeout, self.source_ports_taken()) {
                let cell = &mut tables[job.table].rows[job.row][job.column];
                cell.outcome = Some(outcome);
                cell.attempts += 1;
            }
            jobs.retain(|job| {
                let cell = &tables[job.table].rows[job.row][job.column];
                !cell.is_as_expected() && cell.is_allowed() == Some(false)
            });
            if jobs.is_empty() {
                break;
            }
        }
        let (from, to) = (options.from.clone(), options.to.clone());
        Ok(Matrix { from, to, tables, duration: started.elapsed() })
    }
}

/// Runs all probes concurrently, with a thread per source. `source_ports_taken` counts the source ports used so far.
fn probe(
    jobs: &[Job],
    tables: &[MatrixTable],
    netns: &[Option<NetNs>],
    timeout: Duration,
    source_ports_taken: &AtomicUsize,
) -> Vec<(Job, ProbeOutcome)> {
    // Probes of different protocols or families can use the same source port.
    let numbers: BTreeSet<u16> = tables.iter().map(|table| table.port.port).collect();
    let numbers: Vec<u16> = numbers.into_iter().collect();
    let columns = tables.iter().flat_map(|table| table.rows.first()).map(Vec::len).max().unwrap_or(0);
    let first = source_ports_taken.fetch_add(numbers.len() * columns, Ordering::Relaxed);
    let request = |job: &Job| {
        let EchoPort { port, protocol } = tables[job.table].port;
        let number = numbers.binary_search(&port).unwrap_or_default();
        let port = unique_source_port(first + number * columns + job.column);
        ProbeRequest {
            protocol,
            from: Some(SocketAddr::new(job.from.ip(), port)),
            to: job.to,
            timeout,
            retransmit: true,
        }
    };
    thread::scope(|scope| {
        let sources = netns.iter().enumerate().filter_map(|(row, netns)| Some((row, netns.as_ref()?)));
        let threads: Vec<_> = sources
            .map(|(row, netns)| {
                let own: Vec<(Job, ProbeRequest)> =
                    jobs.iter().filter(|job| job.row == row).map(|job| (*job, request(job))).collect();
                scope.spawn(move || match netns.enter() {
                    Ok(()) => probe_from_one_source(&own),
                    Err(error) => {
                        own.iter().map(|(job, _)| (*job, ProbeOutcome::Failed(error.to_string()))).collect()
                    }
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .flat_map(|outcomes| outcomes.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

fn probe_from_one_source(jobs: &[(Job, ProbeRequest)]) -> Vec<(Job, ProbeOutcome)> {
    let mut batch = ProbeBatch::default();
    let mut outcomes = Vec::new();
    let mut waiting = jobs.iter().enumerate().peekable();
    while waiting.peek().is_some() || batch.in_flight() > 0 {
        while batch.in_flight() < MAX_IN_FLIGHT {
            let Some((index, (_, request))) = waiting.next() else { break };
            batch.start(index, request);
        }
        for completed in batch.wait(Instant::now() + Duration::from_secs(1)) {
            outcomes.push((jobs[completed.id].0, completed.outcome));
        }
    }
    // The last probes may have failed to start.
    let rest = batch.wait(Instant::now());
    outcomes.extend(rest.into_iter().map(|completed| (jobs[completed.id].0, completed.outcome)));
    outcomes
}
