//! Probing a matrix: everything once, then again what must be answered and was not.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Cell, Matrix, MatrixOptions, Question, Table};
use crate::error::Result;
use crate::netns::NetNs;
use crate::plan::EchoPort;
use crate::probe::{Outcome, port_apart};
use crate::running::Lab;
use crate::volley::{Shot, Volley};

/// How many probes of one source are under way at a time, at most.
const UNDER_WAY: usize = 512;

/// A cell that can be probed: which it is, and how.
#[derive(Clone, Copy)]
struct Job {
    table: usize,
    row: usize,
    column: usize,
    /// Without its port.
    from: SocketAddr,
    to: SocketAddr,
}

impl Lab {
    /// Probes who can talk to whom. `expected` says whether a probe must be answered, or `None` where both are right.
    ///
    /// # Errors
    /// When a source's namespace is not there.
    pub fn matrix(
        &self,
        options: &MatrixOptions,
        expected: impl Fn(&Question<'_>) -> Option<bool>,
    ) -> Result<Matrix> {
        let started = Instant::now();
        let netns =
            options.from.iter().map(|end| end.vantage().map(|vantage| self.netns(vantage)).transpose());
        let netns: Vec<Option<NetNs>> = netns.collect::<Result<_>>()?;
        let (mut tables, mut jobs) = (Vec::new(), Vec::new());
        for &port in &options.ports {
            for &family in options.families.list() {
                let mut rows = Vec::new();
                for (row, from) in options.from.iter().enumerate() {
                    let ask = |(column, to)| {
                        let question = Question { from, to, port, family };
                        let ends =
                            netns[row].as_ref().and(from.address_of(family)).zip(to.address_of(family));
                        if let Some((from, to)) = ends.filter(|_| to.is_asked_at(port)) {
                            let (from, to) = (SocketAddr::new(from, 0), SocketAddr::new(to, port.port));
                            jobs.push(Job { table: tables.len(), row, column, from, to });
                        }
                        Cell { expected: expected(&question), seen: None, asked: 0 }
                    };
                    rows.push(options.to.iter().enumerate().map(ask).collect());
                }
                tables.push(Table { port, family, rows });
            }
        }
        for patience in std::iter::once(&options.patience).chain(&options.again) {
            for (job, outcome) in probe(&jobs, &tables, &netns, *patience, self.places_of_ports()) {
                let cell = &mut tables[job.table].rows[job.row][job.column];
                cell.seen = Some(outcome);
                cell.asked += 1;
            }
            jobs.retain(|job| {
                let cell = &tables[job.table].rows[job.row][job.column];
                !cell.is_right() && cell.is_allowed() == Some(false)
            });
            if jobs.is_empty() {
                break;
            }
        }
        let (from, to) = (options.from.clone(), options.to.clone());
        Ok(Matrix { from, to, tables, took: started.elapsed() })
    }
}

/// Probes all at once, a thread a source. `places` counts the source ports that were taken.
fn probe(
    jobs: &[Job],
    tables: &[Table],
    netns: &[Option<NetNs>],
    patience: Duration,
    places: &AtomicUsize,
) -> Vec<(Job, Outcome)> {
    // Protocols and families have no ports in common, whatever the numbers.
    let numbers: BTreeSet<u16> = tables.iter().map(|table| table.port.port).collect();
    let numbers: Vec<u16> = numbers.into_iter().collect();
    let columns = tables.iter().flat_map(|table| table.rows.first()).map(Vec::len).max().unwrap_or(0);
    let first = places.fetch_add(numbers.len() * columns, Ordering::Relaxed);
    let shot = |job: &Job| {
        let EchoPort { port, protocol } = tables[job.table].port;
        let number = numbers.binary_search(&port).unwrap_or_default();
        let port = port_apart(first + number * columns + job.column);
        Shot {
            protocol,
            from: Some(SocketAddr::new(job.from.ip(), port)),
            to: job.to,
            patience,
            insist: true,
        }
    };
    thread::scope(|scope| {
        let sources = netns.iter().enumerate().filter_map(|(row, netns)| Some((row, netns.as_ref()?)));
        let threads: Vec<_> = sources
            .map(|(row, netns)| {
                let mine: Vec<(Job, Shot)> =
                    jobs.iter().filter(|job| job.row == row).map(|job| (*job, shot(job))).collect();
                scope.spawn(move || match netns.enter() {
                    Ok(()) => from_one_source(&mine),
                    Err(error) => {
                        mine.iter().map(|(job, _)| (*job, Outcome::Failed(error.to_string()))).collect()
                    }
                })
            })
            .collect();
        let done = threads.into_iter().map(|thread| thread.join());
        done.flat_map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

fn from_one_source(jobs: &[(Job, Shot)]) -> Vec<(Job, Outcome)> {
    let mut volley = Volley::default();
    let mut done = Vec::new();
    let mut waiting = jobs.iter().enumerate().peekable();
    while waiting.peek().is_some() || volley.under_way() > 0 {
        while volley.under_way() < UNDER_WAY {
            let Some((index, (_, shot))) = waiting.next() else { break };
            volley.fire(index, shot);
        }
        for landed in volley.wait(Instant::now() + Duration::from_secs(1)) {
            done.push((jobs[landed.id].0, landed.outcome));
        }
    }
    // Those that failed at once may have come last.
    let rest = volley.wait(Instant::now());
    done.extend(rest.into_iter().map(|landed| (jobs[landed.id].0, landed.outcome)));
    done
}
