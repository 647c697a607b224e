//! `portcullis policy matrix`: who can talk to whom.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::IpAddr;

use portcullis_cluster::{Family, Index};
use portcullis_policy::compile::LocalPod;
use serde::Serialize;

use super::cells::{End, Sort, Table, folded, tables};
use super::groups::Represented;
use super::limits::{Limits, UNGROUPED};
use super::{equivalence_classes, groups, pod_selection, text};
use crate::cluster_view::{self, LoadError};
use crate::commands::explain::asked::{Malformed, read_number};
use crate::commands::render::families;
use crate::commands::world::{PortNumber, World};
use crate::config::{Config, Matrix, OutputFormat};

/// Why no matrix can be printed.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// The state cannot be had.
    #[error(transparent)]
    State(#[from] LoadError),
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
    /// A row and a column for each pod would be too much.
    #[error(
        "{pods} pods are too many for a row and a column each (at most {UNGROUPED}); choose some by --namespace or --selector, or let them be grouped (without --no-group, as text)"
    )]
    TooMany {
        /// How many pods there are.
        pods: usize,
    },
    /// The output cannot be written.
    #[error("cannot write")]
    Io(#[from] io::Error),
}

/// Prints a table for each port, or for ports of which all cells are the same.
///
/// # Errors
/// The state cannot be had, or what was asked for is not there.
pub fn matrix(config: &Config, asked: &Matrix, out: &mut dyn Write) -> Result<(), MatrixError> {
    let cluster = cluster_view::load_cluster(config)?;
    of_index(config, &cluster.index, asked, out)?;
    Ok(cluster.unreadable.check()?)
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
    let pods = pod_selection::pods(&world, &asked.namespaces, asked.selector.as_deref())?;
    let is_grouped = asked.output == OutputFormat::Text && !asked.no_group;
    let limits = Limits::of(asked);
    let (classes, left_out) = match is_grouped {
        true => limits.first(equivalence_classes::classes(world.compiled(), &pods)),
        false if pods.len() > UNGROUPED => return Err(MatrixError::TooMany { pods: pods.len() }),
        false => ((0..pods.len()).map(|place| vec![place]).collect(), None),
    };
    let samples: Vec<(usize, usize)> = classes
        .iter()
        .enumerate()
        .flat_map(|(class, members)| {
            equivalence_classes::samples(&pods, members).into_iter().map(move |place| (place, class))
        })
        .collect();
    let shown: Vec<&LocalPod> = samples.iter().map(|(place, _)| pods[*place]).collect();
    let addresses: BTreeSet<IpAddr> = shown.iter().flat_map(|pod| pod.addresses.iter().copied()).collect();
    let mut notes: Vec<String> = left_out.into_iter().collect();
    if ports.is_empty() {
        ports.extend(world.ports_at(&addresses));
        notes.extend(limits.truncate_ports(&mut ports));
    }
    if ports.is_empty() {
        return Err(MatrixError::NoPorts);
    }
    let (rows, columns) = (rows(&world, &shown, asked), columns(&shown, asked));
    let tables = tables(world.compiled(), &rows, &columns, &sorts(&ports, &addresses, asked));
    if asked.output == OutputFormat::Json {
        let answer = serde_json::to_string_pretty(&Answer::of(&rows, &columns, &tables));
        writeln!(out, "{}", answer.map_err(io::Error::from)?)?;
        return Ok(());
    }
    let mut tables = folded(tables);
    let grouped = match is_grouped {
        false => (groups::alone(&rows), groups::alone(&columns)),
        true => {
            let represented = Represented {
                pods: pods.iter().filter_map(|pod| End::of_pod(pod).pod().cloned()).collect(),
                classes,
                class_of: samples.iter().map(|(_, class)| *class).collect(),
            };
            groups::grouped(&rows, &columns, &tables, &represented)
        }
    };
    notes.extend(limits.truncate_tables(&mut tables, grouped.0.len()));
    text::print(&rows, &columns, &tables, &grouped, out)?;
    for note in notes {
        writeln!(out, "note: {note}")?;
    }
    if config.network_policy.is_none() && world.has_policies() {
        writeln!(out, "note: this configuration does not enforce policies (no --network-policy)")?;
    }
    Ok(())
}

fn columns(pods: &[&LocalPod], asked: &Matrix) -> Vec<End> {
    let external = asked.external.iter().map(|ip| End::external(*ip));
    pods.iter().map(|pod| End::of_pod(pod)).chain(external).collect()
}

fn rows(world: &World<'_>, pods: &[&LocalPod], asked: &Matrix) -> Vec<End> {
    let nodes = world.node_names().into_iter().filter_map(|name| {
        let node = world.index.node(name)?;
        Some(End::of_node(name, &node.ips().collect::<Vec<_>>()))
    });
    let external = asked.external.iter().map(|ip| End::external(*ip));
    pods.iter().map(|pod| End::of_pod(pod)).chain(nodes).chain(external).collect()
}

/// The connections that tables are about: these ports in the families that pods have and that are asked for.
fn sorts(ports: &[PortNumber], addresses: &BTreeSet<IpAddr>, asked: &Matrix) -> Vec<Sort> {
    let used: BTreeSet<Family> = addresses.iter().copied().map(Family::from_address).collect();
    let families: Vec<Family> = families(asked.family).into_iter().filter(|f| used.contains(f)).collect();
    let sorts: BTreeSet<Sort> = ports
        .iter()
        .flat_map(|port| families.iter().map(|family| Sort { port: *port, family: *family }))
        .collect();
    sorts.into_iter().collect()
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
