//! `portcullis policy matrix`: who can talk to whom.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::IpAddr;

use portcullis_cluster::{Family, Index};
use serde::Serialize;

use super::grid::{End, Sort, Table, folded, tables};
use super::{choice, groups, text};
use crate::commands::explain::asked::{Malformed, read_number};
use crate::commands::render::families;
use crate::commands::world::{PortNumber, World};
use crate::config::{Config, Matrix, OutputFormat};
use crate::state::{self, StateError};

/// Why no matrix can be printed.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// The state cannot be had.
    #[error(transparent)]
    State(#[from] StateError),
    /// A port cannot be understood.
    #[error("--port: {0}")]
    Port(Malformed),
    /// A condition on labels cannot be understood.
    #[error("--selector: {0:?} is not KEY=VALUE, KEY!=VALUE, KEY or !KEY")]
    Selector(String),
    /// No pod of such a namespace is known.
    #[error("--namespace: no pod is in namespace {name}; there are pods in {known}")]
    Namespace {
        /// The namespace.
        name: String,
        /// Those with pods.
        known: String,
    },
    /// No pod has what was asked for.
    #[error("no pod to tell of: none has such labels, or none is known that has addresses of its own")]
    NoPods,
    /// No port was asked for, and none is known.
    #[error("--port: no pod names a port and no Service leads to one of them; say which, as in 80/tcp")]
    NoPorts,
    /// The output cannot be written.
    #[error("cannot write")]
    Io(#[from] io::Error),
}

/// Prints a table for each port, or for ports of which all cells are the same.
///
/// # Errors
/// The state cannot be had, or what was asked for is not there.
pub fn matrix(config: &Config, asked: &Matrix, out: &mut dyn Write) -> Result<(), MatrixError> {
    of_index(config, &state::load_cluster(config)?, asked, out)
}

/// The same for a cluster that was read before.
///
/// # Errors
/// What was asked for is not there.
pub fn of_index(
    config: &Config,
    index: &Index,
    asked: &Matrix,
    out: &mut dyn Write,
) -> Result<(), MatrixError> {
    let mut ports: Vec<PortNumber> = asked
        .ports
        .iter()
        .map(|text| read_number(text))
        .collect::<Result<_, _>>()
        .map_err(MatrixError::Port)?;
    let world = World::of(config, index);
    let pods = choice::pods(&world, &asked.namespaces, asked.selector.as_deref())?;
    let addresses: BTreeSet<IpAddr> = pods.iter().flat_map(|pod| pod.addresses.iter().copied()).collect();
    if ports.is_empty() {
        ports.extend(world.ports_at(&addresses));
    }
    if ports.is_empty() {
        return Err(MatrixError::NoPorts);
    }
    let used: BTreeSet<Family> = addresses.iter().copied().map(Family::of).collect();
    let families: Vec<Family> = families(asked.family).into_iter().filter(|f| used.contains(f)).collect();
    let sorts: BTreeSet<Sort> = ports
        .iter()
        .flat_map(|port| families.iter().map(|family| Sort { port: *port, family: *family }))
        .collect();
    let sorts: Vec<Sort> = sorts.into_iter().collect();

    let columns: Vec<End> = pods
        .iter()
        .map(|pod| End::of_pod(pod))
        .chain(asked.external.iter().map(|ip| End::external(*ip)))
        .collect();
    let nodes = world.node_names().into_iter().filter_map(|name| {
        let node = world.index.node(name)?;
        Some(End::of_node(name, &node.ips().collect::<Vec<_>>()))
    });
    let rows: Vec<End> = pods
        .iter()
        .map(|pod| End::of_pod(pod))
        .chain(nodes)
        .chain(asked.external.iter().map(|ip| End::external(*ip)))
        .collect();
    let tables = tables(world.compiled(), &rows, &columns, &sorts);
    match asked.output {
        OutputFormat::Json => {
            let answer = serde_json::to_string_pretty(&Answer::of(&rows, &columns, &tables));
            writeln!(out, "{}", answer.map_err(io::Error::from)?)?;
        }
        OutputFormat::Text => {
            let tables = folded(tables);
            let grouped = match asked.no_group {
                true => (groups::alone(&rows), groups::alone(&columns)),
                false => groups::grouped(&rows, &columns, &tables),
            };
            text::print(&rows, &columns, &tables, &grouped, out)?;
            if config.network_policy.is_none() && world.has_policies() {
                writeln!(out, "note: this configuration does not enforce policies (no --network-policy)")?;
            }
        }
    }
    Ok(())
}

/// The tables, as `-o json` gives them.
#[derive(Serialize)]
struct Answer<'a> {
    /// The destination of each character.
    columns: Vec<&'a str>,
    tables: Vec<TableAnswer<'a>>,
}

#[derive(Serialize)]
struct TableAnswer<'a> {
    /// All connections of which this table tells.
    connections: Vec<SortAnswer>,
    rows: Vec<RowAnswer<'a>>,
}

#[derive(Serialize)]
struct SortAnswer {
    port: u16,
    protocol: &'static str,
    family: &'static str,
}

#[derive(Serialize)]
struct RowAnswer<'a> {
    from: &'a str,
    /// A character a column.
    to: String,
}

impl<'a> Answer<'a> {
    fn of(rows: &'a [End], columns: &'a [End], tables: &[Table]) -> Self {
        let table = |table: &Table| TableAnswer {
            connections: table
                .sorts
                .iter()
                .map(|sort| SortAnswer {
                    port: sort.port.0,
                    protocol: sort.port.1.as_str(),
                    family: sort.family.as_str(),
                })
                .collect(),
            rows: rows
                .iter()
                .zip(&table.cells)
                .map(|(from, cells)| RowAnswer { from: &from.name, to: cells.iter().collect() })
                .collect(),
        };
        Answer {
            columns: columns.iter().map(|column| column.name.as_str()).collect(),
            tables: tables.iter().map(table).collect(),
        }
    }
}
