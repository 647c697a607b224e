//! Cells of the policy matrix: verdicts about connections from each row's endpoint to each column's.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_cluster::{Family, Name};
use portcullis_policy::CompiledPolicies;
use portcullis_policy::compile::{LocalPod, Profile};
use portcullis_policy::evaluation::{Connection, Decision, PolicyVerdict};

use crate::commands::cluster_lookup::PortNumber;

/// An endpoint of connections: a row or a column of the matrix.
#[derive(Clone)]
pub(super) struct MatrixEndpoint {
    pub(super) name: String,
    pub(super) kind: EndpointKind,
    addresses: Box<[IpAddr]>,
}

/// Kind of an endpoint.
#[derive(Clone, PartialEq)]
pub(super) enum EndpointKind {
    Pod(PodEndpoint),
    Node(Name),
    External,
}

/// A pod, with the properties that pods of one group share.
#[derive(Clone, PartialEq)]
pub(super) struct PodEndpoint {
    pub(super) namespace: Name,
    pub(super) name: Arc<str>,
    pub(super) node: Option<Name>,
    pub(super) profiles: [Option<Arc<Profile>>; 2],
}

impl MatrixEndpoint {
    pub(super) fn from_pod(pod: &LocalPod) -> MatrixEndpoint {
        let kind = EndpointKind::Pod(PodEndpoint {
            namespace: pod.key.namespace.clone(),
            name: pod.key.name.clone(),
            node: pod.node.clone(),
            profiles: [pod.ingress.clone(), pod.egress.clone()],
        });
        MatrixEndpoint { name: pod.key.to_string(), kind, addresses: pod.addresses.clone() }
    }

    pub(super) fn from_node(name: Name, addresses: &[IpAddr]) -> MatrixEndpoint {
        MatrixEndpoint {
            name: format!("node/{name}"),
            kind: EndpointKind::Node(name),
            addresses: addresses.into(),
        }
    }

    pub(super) fn external(address: IpAddr) -> MatrixEndpoint {
        MatrixEndpoint {
            name: address.to_string(),
            kind: EndpointKind::External,
            addresses: Box::new([address]),
        }
    }

    pub(super) fn pod(&self) -> Option<&PodEndpoint> {
        match &self.kind {
            EndpointKind::Pod(pod) => Some(pod),
            _ => None,
        }
    }

    fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|ip| Family::from_address(*ip) == family)
    }
}

/// Port and family of the connections in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PortAndFamily {
    pub(super) port: PortNumber,
    pub(super) family: Family,
}

/// Verdicts about connections to these ports: a character for each cell, rows by columns.
pub(super) struct MatrixTable {
    pub(super) ports: Vec<PortAndFamily>,
    pub(super) cells: Vec<Vec<char>>,
}

/// Returns the tables of all ports and families. Those with equal cells share one table.
pub(super) fn tables(
    compiled: &CompiledPolicies,
    rows: &[MatrixEndpoint],
    columns: &[MatrixEndpoint],
    ports: &[PortAndFamily],
) -> Vec<MatrixTable> {
    let mut found: BTreeMap<Vec<Vec<char>>, Vec<PortAndFamily>> = BTreeMap::new();
    for port in ports {
        let row = |from: &MatrixEndpoint| columns.iter().map(|to| cell(compiled, from, to, *port)).collect();
        found.entry(rows.iter().map(row).collect()).or_default().push(*port);
    }
    sorted(found.into_iter().map(|(cells, ports)| MatrixTable { ports, cells }).collect())
}

fn sorted(mut tables: Vec<MatrixTable>) -> Vec<MatrixTable> {
    tables.iter_mut().for_each(|table| table.ports.sort());
    tables.sort_by_key(|table| (table.ports[0].port.1, table.ports[0].port.0, table.ports[0].family));
    tables
}

/// Merges tables for text output: a table that differs from another only by cells without a verdict is merged into that
/// one. So a few single-stack pods do not double the number of tables.
pub(super) fn merged(mut tables: Vec<MatrixTable>) -> Vec<MatrixTable> {
    let without_verdict =
        |table: &MatrixTable| table.cells.iter().flatten().filter(|cell| **cell == '-').count();
    tables.sort_by_key(|table| (without_verdict(table), table.ports.first().copied()));
    let mut kept: Vec<MatrixTable> = Vec::new();
    for table in tables {
        let covers = |other: &&mut MatrixTable| {
            let mut pairs = other.cells.iter().flatten().zip(table.cells.iter().flatten());
            pairs.all(|(kept, merged)| kept == merged || *merged == '-')
        };
        match kept.iter_mut().find(covers) {
            Some(other) => other.ports.extend(&table.ports),
            None => kept.push(table),
        }
    }
    sorted(kept)
}

/// Returns `.` for allowed; `I`, `E`, `B` for denied by ingress, egress, both; `-` for no verdict.
fn cell(compiled: &CompiledPolicies, from: &MatrixEndpoint, to: &MatrixEndpoint, at: PortAndFamily) -> char {
    if from.pod().is_none() && to.pod().is_none() {
        return '-';
    }
    let (Some(source), Some(destination)) = (from.address(at.family), to.address(at.family)) else {
        return '-';
    };
    // Packets inside of a pod are never evaluated.
    if source == destination {
        return '.';
    }
    let (port, protocol) = at.port;
    let evaluation = compiled.evaluate(Connection { from: source, to: destination, port, protocol });
    let denied = |decision: Option<Decision>| decision.is_some_and(|d| d.verdict == PolicyVerdict::Deny);
    match (denied(evaluation.egress), denied(evaluation.ingress)) {
        (true, true) => 'B',
        (true, false) => 'E',
        (false, true) => 'I',
        (false, false) => '.',
    }
}
