//! Connectivity matrix: probes from every source to every destination, by every port and family.
//!
//! ```text
//! sources × destinations × ports × families ─ a thread per source, all its probes concurrently ─ Matrix
//!        └ expected(probe) ─ unexpected timeouts are retried with longer timeouts ─┘
//! ```
//! All probes wait concurrently, so a thousand probes take little more than one timeout. A response is always final. A
//! timeout where a response was expected is retried, because of busy machines and neighbour discovery; an expected
//! timeout is final.
//!
//! Each probe of a source uses a source port that no earlier round used: an established flow stays allowed for a while,
//! and two connections from one port, one through a Service and one direct, collide at the pod.

mod peer;
mod rounds;
mod table;

use std::fmt;
use std::time::Duration;

use crate::plan::{EchoPort, Families, Family};
use crate::probe::ProbeOutcome;

pub use peer::MatrixPeer;

/// Sources, destinations, ports and timeouts of a matrix.
#[derive(Debug, Clone)]
pub struct MatrixOptions {
    /// The sources: the rows.
    pub from: Vec<MatrixPeer>,
    /// The destinations: the columns.
    pub to: Vec<MatrixPeer>,
    /// The ports and protocols.
    pub ports: Vec<EchoPort>,
    /// The families.
    pub families: Families,
    /// Timeout of the first attempt; 500 ms by default.
    pub timeout: Duration,
    /// Timeouts of the retries of probes that got no response but expected one; 1.2 s, then 3.5 s by default, which allow
    /// for one and two retransmissions of a SYN.
    pub retry_timeouts: Vec<Duration>,
}

impl MatrixOptions {
    /// Returns options for both families with default timeouts.
    pub fn new(
        from: Vec<MatrixPeer>,
        to: Vec<MatrixPeer>,
        ports: impl IntoIterator<Item = EchoPort>,
    ) -> Self {
        Self {
            from,
            to,
            ports: ports.into_iter().collect(),
            families: Families::Dual,
            timeout: Duration::from_millis(500),
            retry_timeouts: vec![Duration::from_millis(1200), Duration::from_millis(3500)],
        }
    }

    /// Sets the families.
    pub fn families(mut self, families: Families) -> Self {
        self.families = families;
        self
    }
}

/// Source, destination, port and family of one probe.
#[derive(Debug, Clone, Copy)]
pub struct MatrixProbe<'a> {
    /// The source.
    pub from: &'a MatrixPeer,
    /// The destination.
    pub to: &'a MatrixPeer,
    /// The port and protocol.
    pub port: EchoPort,
    /// The family.
    pub family: Family,
}

impl fmt::Display for MatrixProbe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {} {} {}", self.from, self.to, self.port, self.family.name())
    }
}

/// Expected and actual outcome of one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixCell {
    /// Whether a response is expected; `None` if the outcome is not checked.
    pub expected: Option<bool>,
    /// The outcome; `None` if the source or destination has no address of the family, or is not probed at the port.
    pub outcome: Option<ProbeOutcome>,
    /// Number of attempts.
    pub attempts: usize,
}

impl MatrixCell {
    /// Returns whether the probe got a response; `None` if there was no probe.
    pub fn is_allowed(&self) -> Option<bool> {
        self.outcome.as_ref().map(|outcome| outcome.responder().is_some())
    }

    /// Returns true if the outcome is compared with an expectation. A probe that failed to run always counts as checked.
    pub fn is_checked(&self) -> bool {
        self.expected.is_some() || matches!(self.outcome, Some(ProbeOutcome::Failed(_)))
    }

    /// Returns true if the outcome is as expected, or not checked. A probe that failed to run never is.
    pub fn is_as_expected(&self) -> bool {
        match (&self.outcome, self.expected) {
            (None, _) => true,
            (Some(ProbeOutcome::Failed(_)), _) => false,
            (Some(_), None) => true,
            (Some(outcome), Some(expected)) => outcome.responder().is_some() == expected,
        }
    }
}

/// Cells of one port and family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixTable {
    /// The port and protocol.
    pub port: EchoPort,
    /// The family.
    pub family: Family,
    /// A row per source, with a cell per destination.
    pub rows: Vec<Vec<MatrixCell>>,
}

/// Outcomes of all probes.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// The sources.
    pub from: Vec<MatrixPeer>,
    /// The destinations.
    pub to: Vec<MatrixPeer>,
    /// A table per port and family.
    pub tables: Vec<MatrixTable>,
    /// Duration of all probes.
    pub duration: Duration,
}

impl Matrix {
    /// Returns all probes with their cells.
    pub fn cells(&self) -> impl Iterator<Item = (MatrixProbe<'_>, &MatrixCell)> {
        self.tables.iter().flat_map(move |table| {
            let rows = table.rows.iter().zip(&self.from);
            rows.flat_map(move |(row, from)| {
                let (port, family) = (table.port, table.family);
                row.iter().zip(&self.to).map(move |(cell, to)| (MatrixProbe { from, to, port, family }, cell))
            })
        })
    }

    /// Returns the probes with an unexpected outcome.
    pub fn unexpected(&self) -> Vec<(MatrixProbe<'_>, &MatrixCell)> {
        self.cells().filter(|(_, cell)| !cell.is_as_expected()).collect()
    }

    /// Returns true if all outcomes are as expected.
    pub fn is_as_expected(&self) -> bool {
        self.cells().all(|(_, cell)| cell.is_as_expected())
    }

    /// Returns the cell of a source and a destination, by their names.
    pub fn cell(&self, from: &str, to: &str, port: EchoPort, family: Family) -> Option<&MatrixCell> {
        let row = self.from.iter().position(|peer| peer.name() == from)?;
        let column = self.to.iter().position(|peer| peer.name() == to)?;
        let table = self.tables.iter().find(|table| (table.port, table.family) == (port, family))?;
        table.rows.get(row)?.get(column)
    }
}
