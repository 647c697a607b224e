//! Text output of a policy matrix.

use std::io::{self, Write};

use portcullis_cluster::Family;

use super::cells::PortAndFamily;
use super::groups::Group;
use super::matrix::PolicyMatrix;
use crate::commands::cluster_lookup::PortNumber;

/// Prints the tables. Columns are numbered like the rows of the same pods.
pub(super) fn print(matrix: &PolicyMatrix, out: &mut dyn Write) -> io::Result<()> {
    let PolicyMatrix { row_groups, column_groups, .. } = matrix;
    let number = |group: &Group| {
        let column = column_groups.iter().position(|column| column.label == group.label);
        column.map_or_else(String::new, |index| (index + 1).to_string())
    };
    let digits = column_groups.len().to_string().len();
    let width = row_groups.iter().map(|group| group.label.chars().count()).max().unwrap_or_default();
    for table in &matrix.tables {
        writeln!(out, "{}", heading(&table.ports))?;
        // Numbers of columns are vertical, one line for each digit.
        for digit in 0..digits {
            let upright = |index: usize| format!("{:>digits$}", index + 1).chars().nth(digit).unwrap_or(' ');
            let numbers: String = (0..column_groups.len()).map(upright).collect();
            writeln!(out, "{}", format!("{:1$}{numbers}", "", digits + width + 4).trim_end())?;
        }
        for from in row_groups {
            let cells: String = column_groups.iter().map(|to| matrix.cell(table, from, to)).collect();
            let pad = width - from.label.chars().count();
            writeln!(out, "{:>digits$}  {}{:pad$}  {cells}", number(from), from.label, "")?;
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        ". allowed   I denied by the destination's policies (ingress)   E by the source's (egress)   B by both"
    )?;
    writeln!(
        out,
        "- not applicable: neither end is a pod, or one has no address of the family (of any, with several)"
    )
}

/// Returns `80/tcp, 81/tcp by IPv4 and IPv6`.
pub(super) fn heading(all: &[PortAndFamily]) -> String {
    let families: Vec<Family> =
        Family::BOTH.into_iter().filter(|f| all.iter().any(|at| at.family == *f)).collect();
    let mut ports: Vec<PortNumber> = all.iter().map(|at| at.port).collect();
    ports.dedup();
    let name = |(port, protocol): &PortNumber| format!("{port}/{protocol}");
    if all.len() == ports.len() * families.len() {
        let ports: Vec<String> = ports.iter().map(name).collect();
        let families: Vec<&str> = families.iter().map(|family| family.as_str()).collect();
        return format!("{} by {}", ports.join(", "), families.join(" and "));
    }
    let each: Vec<String> = all.iter().map(|at| format!("{} by {}", name(&at.port), at.family)).collect();
    each.join(", ")
}
