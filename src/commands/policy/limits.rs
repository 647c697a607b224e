//! Limits of a matrix, which bound time and output. Notes report what is omitted.

use super::cells::MatrixTable;
use crate::commands::cluster_lookup::PortNumber;
use crate::config::Matrix;

/// Maximum number of pods without grouping.
pub(super) const MAX_UNGROUPED_PODS: usize = 400;

/// Limits of a matrix with grouped pods.
pub(super) struct Limits {
    /// Maximum number of groups of pods.
    groups: usize,
    /// Maximum number of ports, if the command names none.
    ports: usize,
    /// Maximum number of lines of all tables.
    lines: usize,
}

impl Limits {
    /// Returns the limits of a command. They are higher if it selects pods.
    pub(super) fn from_command(command: &Matrix) -> Self {
        match command.namespaces.is_empty() && command.selector.is_none() {
            true => Limits { groups: 100, ports: 16, lines: 800 },
            false => Limits { groups: 250, ports: 64, lines: 4000 },
        }
    }

    /// Returns the first classes of pods, and a note about the others.
    pub(super) fn truncate_classes(&self, mut classes: Vec<Vec<usize>>) -> (Vec<Vec<usize>>, Option<String>) {
        let all = classes.len();
        let rest = classes.split_off(all.min(self.groups));
        let pods: usize = rest.iter().map(Vec::len).sum();
        let note = (!rest.is_empty()).then(|| {
            format!(
                "{} of {all} groups of pods, with {pods} pods, are omitted; select pods with --namespace or --selector",
                rest.len()
            )
        });
        (classes, note)
    }

    /// Truncates ports. Returns a note if any are omitted.
    pub(super) fn truncate_ports(&self, ports: &mut Vec<PortNumber>) -> Option<String> {
        let all = ports.len();
        ports.truncate(self.ports);
        (all > ports.len()).then(|| {
            format!("{} of {all} ports are omitted; select ports with --port, or pods", all - ports.len())
        })
    }

    /// Truncates tables, keeping at least one. Returns a note if any are omitted.
    pub(super) fn truncate_tables(&self, tables: &mut Vec<MatrixTable>, rows: usize) -> Option<String> {
        let all = tables.len();
        // A heading, the numbers of columns and an empty line are about six more.
        tables.truncate((self.lines / (rows + 6)).max(1));
        (all > tables.len()).then(|| {
            format!("{} of {all} tables are omitted; select ports with --port, or pods", all - tables.len())
        })
    }
}
