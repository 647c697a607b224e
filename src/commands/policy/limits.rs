//! How much of a cluster one matrix shows: time and output are bounded, and what is left out is said.

use super::cells::Table;
use crate::commands::world::PortNumber;
use crate::config::Matrix;

/// The most pods that get a row and a column each.
pub(super) const UNGROUPED: usize = 400;

/// How much is shown of pods in groups.
pub(super) struct Limits {
    /// Groups of pods.
    groups: usize,
    /// Ports, if the command names none.
    ports: usize,
    /// Lines of all tables.
    lines: usize,
}

impl Limits {
    /// A command that selects pods prints more of them.
    pub(super) fn of(asked: &Matrix) -> Self {
        match asked.namespaces.is_empty() && asked.selector.is_none() {
            true => Limits { groups: 100, ports: 16, lines: 800 },
            false => Limits { groups: 250, ports: 64, lines: 4000 },
        }
    }

    /// The first groups of pods, and a note about the others.
    pub(super) fn first(&self, mut classes: Vec<Vec<usize>>) -> (Vec<Vec<usize>>, Option<String>) {
        let all = classes.len();
        let rest = classes.split_off(all.min(self.groups));
        let pods: usize = rest.iter().map(Vec::len).sum();
        let note = (!rest.is_empty()).then(|| {
            format!(
                "{} of {all} groups of pods, with {pods} pods, are left out; choose pods by --namespace or --selector",
                rest.len()
            )
        });
        (classes, note)
    }

    /// Leaves out ports, and says which.
    pub(super) fn truncate_ports(&self, ports: &mut Vec<PortNumber>) -> Option<String> {
        let all = ports.len();
        ports.truncate(self.ports);
        (all > ports.len()).then(|| {
            format!("{} of {all} ports are left out; choose ports by --port, or pods", all - ports.len())
        })
    }

    /// Leaves out tables; at least one stays.
    pub(super) fn truncate_tables(&self, tables: &mut Vec<Table>, rows: usize) -> Option<String> {
        let all = tables.len();
        // A heading, the numbers of columns and an empty line are about six more.
        tables.truncate((self.lines / (rows + 6)).max(1));
        (all > tables.len()).then(|| {
            format!("{} of {all} tables are left out; choose ports by --port, or pods", all - tables.len())
        })
    }
}
