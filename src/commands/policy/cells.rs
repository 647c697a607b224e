//! Who can talk to whom, cell by cell.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_cluster::{Family, Name};
use portcullis_policy::CompiledPolicies;
use portcullis_policy::compile::{LocalPod, Profile};
use portcullis_policy::evaluation::{Connection, Decision, PolicyVerdict};

use crate::commands::world::PortNumber;

/// One end of connections.
#[derive(Clone)]
pub(super) struct End {
    pub(super) name: String,
    pub(super) kind: EndKind,
    addresses: Box<[IpAddr]>,
}

/// What an end is.
#[derive(Clone, PartialEq)]
pub(super) enum EndKind {
    Pod(PodEnd),
    Node(Name),
    External,
}

/// What pods must have in common to stand for one another.
#[derive(Clone, PartialEq)]
pub(super) struct PodEnd {
    pub(super) namespace: Name,
    pub(super) name: Arc<str>,
    pub(super) node: Option<Name>,
    pub(super) profiles: [Option<Arc<Profile>>; 2],
}

impl End {
    pub(super) fn of_pod(pod: &LocalPod) -> End {
        let kind = EndKind::Pod(PodEnd {
            namespace: pod.key.namespace,
            name: pod.key.name.clone(),
            node: pod.node,
            profiles: [pod.ingress.clone(), pod.egress.clone()],
        });
        End { name: pod.key.to_string(), kind, addresses: pod.addresses.clone() }
    }

    pub(super) fn of_node(name: Name, addresses: &[IpAddr]) -> End {
        End { name: format!("node/{name}"), kind: EndKind::Node(name), addresses: addresses.into() }
    }

    pub(super) fn external(address: IpAddr) -> End {
        End { name: address.to_string(), kind: EndKind::External, addresses: Box::new([address]) }
    }

    pub(super) fn pod(&self) -> Option<&PodEnd> {
        match &self.kind {
            EndKind::Pod(pod) => Some(pod),
            _ => None,
        }
    }

    fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|ip| Family::from_address(*ip) == family)
    }
}

/// Which connections a table is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sort {
    pub(super) port: PortNumber,
    pub(super) family: Family,
}

/// What becomes of connections of these sorts: a character a cell, rows by columns.
pub(super) struct Table {
    pub(super) sorts: Vec<Sort>,
    pub(super) cells: Vec<Vec<char>>,
}

/// The tables of all sorts; sorts of which every cell is the same share one.
pub(super) fn tables(
    compiled: &CompiledPolicies,
    rows: &[End],
    columns: &[End],
    sorts: &[Sort],
) -> Vec<Table> {
    let mut found: BTreeMap<Vec<Vec<char>>, Vec<Sort>> = BTreeMap::new();
    for sort in sorts {
        let row = |from: &End| columns.iter().map(|to| cell(compiled, from, to, *sort)).collect();
        found.entry(rows.iter().map(row).collect()).or_default().push(*sort);
    }
    in_order(found.into_iter().map(|(cells, sorts)| Table { sorts, cells }).collect())
}

fn in_order(mut tables: Vec<Table>) -> Vec<Table> {
    tables.iter_mut().for_each(|table| table.sorts.sort());
    tables.sort_by_key(|table| (table.sorts[0].port.1, table.sorts[0].port.0, table.sorts[0].family));
    tables
}

/// Fewer tables, for people: one that only has nothing to judge where another tells more goes into that. So a
/// few pods of a single family do not double everything.
pub(super) fn folded(mut tables: Vec<Table>) -> Vec<Table> {
    let silent = |table: &Table| table.cells.iter().flatten().filter(|cell| **cell == '-').count();
    tables.sort_by_key(|table| (silent(table), table.sorts.first().copied()));
    let mut kept: Vec<Table> = Vec::new();
    for table in tables {
        let covers = |other: &&mut Table| {
            let mut pairs = other.cells.iter().flatten().zip(table.cells.iter().flatten());
            pairs.all(|(more, less)| more == less || *less == '-')
        };
        match kept.iter_mut().find(covers) {
            Some(other) => other.sorts.extend(&table.sorts),
            None => kept.push(table),
        }
    }
    in_order(kept)
}

/// `.` allowed, `I`, `E`, `B` denied by ingress, egress, both; `-` nothing to judge.
fn cell(compiled: &CompiledPolicies, from: &End, to: &End, sort: Sort) -> char {
    if from.pod().is_none() && to.pod().is_none() {
        return '-';
    }
    let (Some(source), Some(destination)) = (from.address(sort.family), to.address(sort.family)) else {
        return '-';
    };
    // What stays inside a pod is nobody's to judge.
    if source == destination {
        return '.';
    }
    let (port, protocol) = sort.port;
    let evaluation = compiled.evaluate(Connection { from: source, to: destination, port, protocol });
    let denied = |decision: Option<Decision>| decision.is_some_and(|d| d.verdict == PolicyVerdict::Deny);
    match (denied(evaluation.egress), denied(evaluation.ingress)) {
        (true, true) => 'B',
        (true, false) => 'E',
        (false, true) => 'I',
        (false, false) => '.',
    }
}
