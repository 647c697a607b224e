//! `portcullis policy matrix`: verdicts of policies about connections between all pods.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::IpAddr;

use portcullis_cluster::{Family, Index};
use portcullis_policy::compile::LocalPod;
use serde::Serialize;

use super::cells::{MatrixEndpoint, MatrixTable, PortAndFamily, merged, tables};
use super::groups::{Group, Represented};
use super::limits::{Limits, MAX_UNGROUPED_PODS};
use super::{equivalence_classes, groups, pod_selection, text};
use crate::cluster_view::{self, LoadError};
use crate::commands::cluster_lookup::{ClusterLookup, PortNumber};
use crate::commands::explain::argument::{MalformedArgument, parse_port_number};
use crate::commands::render::families;
use crate::config::{Config, Matrix, OutputFormat};
use crate::document::Document;

/// Error of `portcullis policy matrix`.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// The cluster's objects cannot be loaded.
    #[error(transparent)]
    State(#[from] LoadError),
    /// Invalid port.
    #[error("--port: {0}")]
    Port(MalformedArgument),
    /// Invalid label condition.
    #[error("--selector: {0:?} is not KEY=VALUE, KEY!=VALUE, KEY or !KEY")]
    Selector(String),
    /// A namespace has no known pods.
    #[error("--namespace: no pod is in namespace {name}; there are pods in {known}")]
    Namespace {
        /// The namespace.
        name: String,
        /// The namespaces with pods.
        known: String,
    },
    /// There is no pod.
    #[error("no pod has addresses of its own")]
    NoPods,
    /// No pod has the selected labels.
    #[error("--selector: no pod with addresses of its own has the labels {0:?}")]
    NotSelected(String),
    /// No port is given, and none is known.
    #[error(
        "--port: no port given, and no pod has named ports or is an endpoint of a Service; expected e.g. 80/tcp"
    )]
    NoPorts,
    /// Too many pods without grouping.
    #[error(
        "{pods} pods are too many without grouping (at most {MAX_UNGROUPED_PODS}); select pods with --namespace or --selector, or use grouped text output (without --no-group)"
    )]
    TooMany {
        /// The number of pods.
        pods: usize,
    },
    /// The output cannot be written.
    #[error("cannot write")]
    Io(#[from] io::Error),
}

/// Prints a table for each port. Ports with equal cells share one table.
///
/// # Errors
/// The cluster's objects cannot be loaded, or the selection matches nothing.
pub fn matrix(config: &Config, command: &Matrix, out: &mut dyn Write) -> Result<(), MatrixError> {
    let cluster = cluster_view::load_cluster(config)?;
    matrix_of_index(config, &cluster.index, command, out)?;
    Ok(cluster.unreadable.check()?)
}

/// As [`matrix`], for a cluster that is already loaded.
///
/// # Errors
/// The selection matches nothing.
pub fn matrix_of_index(
    config: &Config,
    index: &Index,
    command: &Matrix,
    out: &mut dyn Write,
) -> Result<(), MatrixError> {
    let matrix = PolicyMatrix::new(config, index, command)?;
    if let Some(format) = command.output.document_format() {
        return Ok(Document::new("PolicyMatrix", MatrixContent::new(&matrix)).print(format, out)?);
    }
    text::print(&matrix, out)?;
    for note in matrix.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

/// A matrix: tables of verdicts, with the endpoints and groups of endpoints that they are about.
pub(crate) struct PolicyMatrix {
    pub(super) rows: Vec<MatrixEndpoint>,
    pub(super) columns: Vec<MatrixEndpoint>,
    pub(super) tables: Vec<MatrixTable>,
    pub(super) row_groups: Vec<Group>,
    pub(super) column_groups: Vec<Group>,
    /// What is omitted, and whether the policies are enforced.
    pub(crate) notes: Vec<String>,
}

impl PolicyMatrix {
    /// Evaluates the connections that a command selects. The JSON output and `no_group` have a group for each pod.
    ///
    /// # Errors
    /// The selection matches nothing.
    pub(crate) fn new(config: &Config, index: &Index, command: &Matrix) -> Result<Self, MatrixError> {
        let mut ports: Vec<PortNumber> = command
            .ports
            .iter()
            .map(|text| parse_port_number(text))
            .collect::<Result<_, _>>()
            .map_err(MatrixError::Port)?;
        let world = ClusterLookup::new(config, index);
        let pods = pod_selection::pods(&world, &command.namespaces, command.selector.as_deref())?;
        let is_grouped = command.output == OutputFormat::Text && !command.no_group;
        let limits = Limits::from_command(command);
        let (classes, omitted) = match is_grouped {
            true => limits.truncate_classes(equivalence_classes::classes(world.compiled(), &pods)),
            false if pods.len() > MAX_UNGROUPED_PODS => {
                return Err(MatrixError::TooMany { pods: pods.len() });
            }
            false => ((0..pods.len()).map(|index| vec![index]).collect(), None),
        };
        let samples: Vec<(usize, usize)> = classes
            .iter()
            .enumerate()
            .flat_map(|(class, members)| {
                equivalence_classes::samples(&pods, members).into_iter().map(move |index| (index, class))
            })
            .collect();
        let shown: Vec<&LocalPod> = samples.iter().map(|(index, _)| pods[*index]).collect();
        let addresses: BTreeSet<IpAddr> =
            shown.iter().flat_map(|pod| pod.addresses.iter().copied()).collect();
        let mut notes: Vec<String> = omitted.into_iter().collect();
        if ports.is_empty() {
            ports.extend(world.ports_at(&addresses));
            notes.extend(limits.truncate_ports(&mut ports));
        }
        if ports.is_empty() {
            return Err(MatrixError::NoPorts);
        }
        let (rows, columns) = (rows(&world, &shown, command), columns(&shown, command));
        let mut tables =
            tables(world.compiled(), &rows, &columns, &ports_and_families(&ports, &addresses, command));
        if command.output == OutputFormat::Text {
            tables = merged(tables);
        }
        let (row_groups, column_groups) = match is_grouped {
            false => (groups::ungrouped(&rows), groups::ungrouped(&columns)),
            true => {
                let represented = Represented {
                    pods: pods
                        .iter()
                        .filter_map(|pod| MatrixEndpoint::from_pod(pod).pod().cloned())
                        .collect(),
                    classes,
                    class_of: samples.iter().map(|(_, class)| *class).collect(),
                };
                groups::grouped(&rows, &columns, &tables, &represented)
            }
        };
        if command.output == OutputFormat::Text {
            notes.extend(limits.truncate_tables(&mut tables, row_groups.len()));
        }
        if config.network_policy.is_none() && world.has_policies() {
            notes.push("this configuration does not enforce policies (no --network-policy)".to_owned());
        }
        Ok(PolicyMatrix { rows, columns, tables, row_groups, column_groups, notes })
    }

    /// Returns the labels of the rows, and those of the columns.
    pub(crate) fn labels(&self) -> (Vec<&str>, Vec<&str>) {
        (
            self.row_groups.iter().map(|group| group.label.as_str()).collect(),
            self.column_groups.iter().map(|group| group.label.as_str()).collect(),
        )
    }

    /// Returns each table: its ports and families as text, and its cells, rows by columns.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (String, Vec<Vec<char>>)> + '_ {
        self.tables.iter().map(|table| {
            let row = |from| self.column_groups.iter().map(|to| self.cell(table, from, to)).collect();
            (text::heading(&table.ports), self.row_groups.iter().map(row).collect())
        })
    }

    /// Returns the cell of a table for two groups.
    pub(super) fn cell(&self, table: &MatrixTable, from: &Group, to: &Group) -> char {
        groups::cell(table, &self.rows, &self.columns, from, to)
    }
}

fn columns(pods: &[&LocalPod], command: &Matrix) -> Vec<MatrixEndpoint> {
    let external = command.external.iter().map(|ip| MatrixEndpoint::external(*ip));
    pods.iter().map(|pod| MatrixEndpoint::from_pod(pod)).chain(external).collect()
}

fn rows(world: &ClusterLookup<'_>, pods: &[&LocalPod], command: &Matrix) -> Vec<MatrixEndpoint> {
    let nodes = world.node_names().into_iter().filter_map(|name| {
        let node = world.index.node(&name)?;
        Some(MatrixEndpoint::from_node(name, &node.ips().collect::<Vec<_>>()))
    });
    let external = command.external.iter().map(|ip| MatrixEndpoint::external(*ip));
    pods.iter().map(|pod| MatrixEndpoint::from_pod(pod)).chain(nodes).chain(external).collect()
}

/// Returns these ports in the requested families that pods have.
fn ports_and_families(
    ports: &[PortNumber],
    addresses: &BTreeSet<IpAddr>,
    command: &Matrix,
) -> Vec<PortAndFamily> {
    let used: BTreeSet<Family> = addresses.iter().copied().map(Family::from_address).collect();
    let families: Vec<Family> = families(command.family).into_iter().filter(|f| used.contains(f)).collect();
    let all: BTreeSet<PortAndFamily> = ports
        .iter()
        .flat_map(|port| families.iter().map(|family| PortAndFamily { port: *port, family: *family }))
        .collect();
    all.into_iter().collect()
}

/// The content of the document.
#[derive(Serialize)]
struct MatrixContent<'a> {
    /// The destination of each character.
    columns: Vec<&'a str>,
    tables: Vec<TableContent<'a>>,
}

#[derive(Serialize)]
struct TableContent<'a> {
    /// All ports and families to which this table applies.
    connections: Vec<ConnectionContent>,
    rows: Vec<RowContent<'a>>,
}

#[derive(Serialize)]
struct ConnectionContent {
    port: u16,
    protocol: &'static str,
    family: &'static str,
}

#[derive(Serialize)]
struct RowContent<'a> {
    from: &'a str,
    /// A character for each column.
    to: String,
}

impl<'a> MatrixContent<'a> {
    fn new(PolicyMatrix { rows, columns, tables, .. }: &'a PolicyMatrix) -> Self {
        let table = |table: &MatrixTable| TableContent {
            connections: table
                .ports
                .iter()
                .map(|at| ConnectionContent {
                    port: at.port.0,
                    protocol: at.port.1.as_str(),
                    family: at.family.as_str(),
                })
                .collect(),
            rows: rows
                .iter()
                .zip(&table.cells)
                .map(|(from, cells)| RowContent { from: &from.name, to: cells.iter().collect() })
                .collect(),
        };
        MatrixContent {
            columns: columns.iter().map(|column| column.name.as_str()).collect(),
            tables: tables.iter().map(table).collect(),
        }
    }
}
