//! Who can talk to whom: probes from every source to every destination, by every port and family.
//!
//! ```text
//! sources × destinations × ports × families ─ a thread a source, all its probes at a time ─ Matrix
//!        └ expected(question) ─ what disagrees is asked again, with more patience ─┘
//! ```
//! Most of the time goes in waiting for what never comes, and all wait at once: a thousand probes take little more than one
//! time-out. An answer is always believed. Silence where an answer was expected is asked about again, for machines are
//! busy and first packets wait for neighbours to be found; silence that was expected is believed too.
//!
//! Each probe of a source has a source port of its own, which it had in no earlier round: a flow that was allowed once
//! stays so for a while, and connections of one port through a Service and past it clash at the pod.

mod end;
mod rounds;
mod table;

use std::fmt;
use std::time::Duration;

use crate::plan::{EchoPort, Families, Family};
use crate::probe::Outcome;

pub use end::End;

/// What is probed, and with how much patience.
#[derive(Debug, Clone)]
pub struct MatrixOptions {
    /// The rows.
    pub from: Vec<End>,
    /// The columns.
    pub to: Vec<End>,
    /// The ports and protocols.
    pub ports: Vec<EchoPort>,
    /// The families.
    pub families: Families,
    /// How long probes wait at first; 500 ms by default.
    pub patience: Duration,
    /// How long those wait that must be answered and were not, each time that they are asked again; 1.2 s, then 3.5 s
    /// by default, in which a lost SYN is sent again once and twice.
    pub again: Vec<Duration>,
}

impl MatrixOptions {
    /// Between these ends, by these ports, in both families.
    pub fn new(from: Vec<End>, to: Vec<End>, ports: impl IntoIterator<Item = EchoPort>) -> Self {
        Self {
            from,
            to,
            ports: ports.into_iter().collect(),
            families: Families::Dual,
            patience: Duration::from_millis(500),
            again: vec![Duration::from_millis(1200), Duration::from_millis(3500)],
        }
    }

    /// The families.
    pub fn families(mut self, families: Families) -> Self {
        self.families = families;
        self
    }
}

/// One cell, before it is probed.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The source.
    pub from: &'a End,
    /// The destination.
    pub to: &'a End,
    /// The port and protocol.
    pub port: EchoPort,
    /// The family.
    pub family: Family,
}

impl fmt::Display for Question<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {} {} {}", self.from, self.to, self.port, self.family.name())
    }
}

/// What was expected and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Whether an answer was expected, if anything was.
    pub expected: Option<bool>,
    /// What came; `None` where one of the ends has no address of the family, or none is asked at the port.
    pub seen: Option<Outcome>,
    /// How often it was asked.
    pub asked: usize,
}

impl Cell {
    /// Whether an answer came; `None` where nothing was asked.
    pub fn is_allowed(&self) -> Option<bool> {
        self.seen.as_ref().map(|outcome| outcome.by().is_some())
    }

    /// Whether it is as expected. A probe that could not be made is not, whatever was expected.
    pub fn is_right(&self) -> bool {
        match (&self.seen, self.expected) {
            (None, _) => true,
            (Some(Outcome::Failed(_)), _) => false,
            (Some(_), None) => true,
            (Some(outcome), Some(expected)) => outcome.by().is_some() == expected,
        }
    }
}

/// The cells of one port and family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The port and protocol.
    pub port: EchoPort,
    /// The family.
    pub family: Family,
    /// A row a source, in it a cell a destination.
    pub rows: Vec<Vec<Cell>>,
}

/// What came of all the probes.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// The sources.
    pub from: Vec<End>,
    /// The destinations.
    pub to: Vec<End>,
    /// A table a port and family.
    pub tables: Vec<Table>,
    /// How long it took.
    pub took: Duration,
}

impl Matrix {
    /// All that was asked, with what came.
    pub fn cells(&self) -> impl Iterator<Item = (Question<'_>, &Cell)> {
        self.tables.iter().flat_map(move |table| {
            let rows = table.rows.iter().zip(&self.from);
            rows.flat_map(move |(row, from)| {
                let (port, family) = (table.port, table.family);
                row.iter().zip(&self.to).map(move |(cell, to)| (Question { from, to, port, family }, cell))
            })
        })
    }

    /// What is not as expected.
    pub fn differences(&self) -> Vec<(Question<'_>, &Cell)> {
        self.cells().filter(|(_, cell)| !cell.is_right()).collect()
    }

    /// Whether all is as expected.
    pub fn is_good(&self) -> bool {
        self.cells().all(|(_, cell)| cell.is_right())
    }

    /// The cell from one end to another, by their names.
    pub fn cell(&self, from: &str, to: &str, port: EchoPort, family: Family) -> Option<&Cell> {
        let row = self.from.iter().position(|end| end.name() == from)?;
        let column = self.to.iter().position(|end| end.name() == to)?;
        let table = self.tables.iter().find(|table| (table.port, table.family) == (port, family))?;
        table.rows.get(row)?.get(column)
    }
}
