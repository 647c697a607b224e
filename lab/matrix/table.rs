//! A matrix as a text table.
//!
//! ```text
//! 80/TCP 81/TCP · IPv4 IPv6
//!        x/a  x/b  y/a
//!   x/a  .    X    .
//! ✗ x/b  .    .    .!
//! ```
//! `.` means allowed, `X` denied, `-` not probed; `!` marks an unexpected outcome, `·` one that is not checked.

use std::fmt::{self, Write};

use super::{Matrix, MatrixCell, MatrixTable};
use crate::colors::Colors;
use crate::plan::{EchoPort, Family};
use crate::probe::ProbeOutcome;

/// Maximum width of a table with named columns; wider tables have numbered columns.
const MAX_WIDTH: usize = 110;
/// Maximum number of unexpected outcomes that are listed.
const MAX_LISTED: usize = 20;

impl Matrix {
    /// Formats the tables, optionally with terminal colors. Equal tables of several ports and families are merged.
    pub fn render(&self, colors: bool) -> String {
        let colors = Colors { enabled: colors };
        let mut text = String::new();
        let layout = Layout::new(self);
        let mut groups: Vec<(Vec<Vec<&str>>, Vec<&MatrixTable>)> = Vec::new();
        for table in &self.tables {
            let marks: Vec<Vec<&str>> = table.rows.iter().map(|row| row.iter().map(mark).collect()).collect();
            match groups.iter_mut().find(|(other, _)| *other == marks) {
                Some((_, tables)) => tables.push(table),
                None => groups.push((marks, vec![table])),
            }
        }
        for (marks, tables) in &groups {
            let _ = writeln!(text, "{}", colors.bold(&heading(tables)));
            let _ = writeln!(text, "  {}", colors.dim(layout.line("", &layout.heads).trim_end()));
            for (name, marks) in layout.names.iter().zip(marks) {
                let is_unexpected = marks.iter().any(|mark| mark.ends_with('!'));
                let line = layout.line(name, marks).trim_end().to_owned();
                let line =
                    if is_unexpected { colors.red(&format!("✗ {line}")) } else { format!("  {line}") };
                let _ = writeln!(text, "{line}");
            }
            text.push('\n');
        }
        for line in &layout.legend {
            let _ = writeln!(text, "{}", colors.dim(line));
        }
        let unexpected = self.unexpected();
        for (probe, cell) in unexpected.iter().take(MAX_LISTED) {
            let expected = if cell.expected == Some(true) { "allowed" } else { "denied" };
            let outcome = cell.outcome.as_ref().map(ProbeOutcome::to_string).unwrap_or_default();
            let _ = writeln!(text, "{} {probe}: expected {expected}; {outcome}", colors.red("✗"));
        }
        if unexpected.len() > MAX_LISTED {
            let _ = writeln!(text, "{} and {} more", colors.red("✗"), unexpected.len() - MAX_LISTED);
        }
        let _ = writeln!(text, "{}", self.summary(unexpected.len(), &colors));
        text
    }

    fn summary(&self, unexpected: usize, colors: &Colors) -> String {
        let count = |allowed| self.cells().filter(|(_, cell)| cell.is_allowed() == Some(allowed)).count();
        let (allowed, denied) = (count(true), count(false));
        let not_checked =
            self.cells().filter(|(_, cell)| cell.outcome.is_some() && !cell.is_checked()).count();
        let checked = allowed + denied - not_checked;
        let verdict = if unexpected == 0 {
            colors.green("all expectations met")
        } else {
            colors.red(&format!("{unexpected} of {checked} checked connections unexpected"))
        };
        let mut text = format!("{} connections: {allowed} allowed, {denied} denied; ", allowed + denied);
        if not_checked > 0 {
            let _ = write!(text, "{checked} checked, {not_checked} not checked (·); ");
        }
        text + &verdict
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

fn mark(cell: &MatrixCell) -> &'static str {
    match (&cell.outcome, cell.is_allowed(), cell.is_as_expected()) {
        (Some(ProbeOutcome::Failed(_)), _, _) => "?!",
        (_, None, _) => "-",
        (_, Some(true), _) if !cell.is_checked() => ".·",
        (_, Some(false), _) if !cell.is_checked() => "X·",
        (_, Some(true), true) => ".",
        (_, Some(true), false) => ".!",
        (_, Some(false), true) => "X",
        (_, Some(false), false) => "X!",
    }
}

/// Returns `80/TCP 81/TCP · IPv4 IPv6`, or pairs of port and family if not all combinations are in the group.
fn heading(tables: &[&MatrixTable]) -> String {
    let mut ports: Vec<EchoPort> = tables.iter().map(|table| table.port).collect();
    ports.dedup();
    let families: Vec<Family> = Family::BOTH
        .into_iter()
        .filter(|family| tables.iter().any(|table| table.family == *family))
        .collect();
    let words = |words: Vec<String>| words.join(" ");
    if ports.len() * families.len() == tables.len() {
        let ports = ports.iter().map(EchoPort::to_string).collect();
        let families = families.iter().map(|family| family.name().to_owned()).collect();
        return format!("{} · {}", words(ports), words(families));
    }
    let each = tables.iter().map(|table| format!("{} {}", table.port, table.family.name()));
    each.collect::<Vec<_>>().join(", ")
}

/// Headings, row names and column widths.
struct Layout {
    names: Vec<String>,
    heads: Vec<String>,
    legend: Vec<String>,
    margin: usize,
    widths: Vec<usize>,
}

impl Layout {
    fn new(matrix: &Matrix) -> Self {
        let names: Vec<String> = matrix.from.iter().map(|end| end.name().to_owned()).collect();
        let mut heads: Vec<String> = matrix.to.iter().map(|end| end.name().to_owned()).collect();
        let mut legend = Vec::new();
        let margin = names.iter().map(|name| name.chars().count()).max().unwrap_or(0) + 2;
        let wide = |heads: &[String]| -> Vec<usize> {
            heads.iter().map(|head| head.chars().count().max(2) + 2).collect()
        };
        let mut widths = wide(&heads);
        if margin + widths.iter().sum::<usize>() > MAX_WIDTH {
            legend =
                heads.iter().enumerate().map(|(index, head)| format!("{:>3} {head}", index + 1)).collect();
            heads = (1..=heads.len()).map(|number| number.to_string()).collect();
            widths = wide(&heads);
        }
        Self { names, heads, legend, margin, widths }
    }

    fn line(&self, name: &str, cells: &[impl AsRef<str>]) -> String {
        let cells = cells.iter().zip(&self.widths);
        let cells: String = cells.map(|(cell, width)| format!("{:<width$}", cell.as_ref())).collect();
        format!("{name:<margin$}{cells}", margin = self.margin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::MatrixPeer;
    use std::time::Duration;

    /// Builds a table from a word per row and a letter per cell: `.` allowed, `X` denied, `a` unexpectedly allowed, `d`
    /// unexpectedly denied, `n` denied and not checked.
    fn table(port: EchoPort, family: Family, rows: &str) -> MatrixTable {
        let answered =
            || ProbeOutcome::Answered { responder: "x/b".into(), source: "10.0.0.1:99".parse().unwrap() };
        let cell = |letter| match letter {
            '-' => MatrixCell { expected: None, outcome: None, attempts: 0 },
            'n' => MatrixCell { expected: None, outcome: Some(ProbeOutcome::TimedOut), attempts: 1 },
            '.' => MatrixCell { expected: Some(true), outcome: Some(answered()), attempts: 1 },
            'X' => MatrixCell { expected: Some(false), outcome: Some(ProbeOutcome::TimedOut), attempts: 1 },
            'a' => MatrixCell { expected: Some(false), outcome: Some(answered()), attempts: 1 },
            _ => MatrixCell { expected: Some(true), outcome: Some(ProbeOutcome::TimedOut), attempts: 3 },
        };
        MatrixTable {
            port,
            family,
            rows: rows.split(' ').map(|row| row.chars().map(cell).collect()).collect(),
        }
    }

    fn matrix(names: &[&str], tables: Vec<MatrixTable>) -> Matrix {
        let peers: Vec<MatrixPeer> = names.iter().map(|name| MatrixPeer::address(*name, [])).collect();
        Matrix { from: peers.clone(), to: peers, tables, duration: Duration::ZERO }
    }

    #[test]
    fn tables_are_grouped_and_unexpected_outcomes_listed() {
        let (tcp, udp) = (EchoPort::tcp(80), EchoPort::udp(80));
        let tables = vec![
            table(tcp, Family::V4, ".X .."),
            table(tcp, Family::V6, ".X .."),
            table(udp, Family::V4, "na d."),
            table(udp, Family::V6, ".- --"),
        ];
        let matrix = matrix(&["x/a", "x/b"], tables);
        assert!(!matrix.is_as_expected());
        let expected = "\
80/TCP · IPv4 IPv6
       x/a  x/b
  x/a  .    X
  x/b  .    .

80/UDP · IPv4
       x/a  x/b
✗ x/a  X·   .!
✗ x/b  X!   .

80/UDP · IPv6
       x/a  x/b
  x/a  .    -
  x/b  -    -

✗ x/a → x/b 80/UDP IPv4: expected denied; x/b (saw 10.0.0.1:99)
✗ x/b → x/a 80/UDP IPv4: expected allowed; timed out
13 connections: 9 allowed, 4 denied; 12 checked, 1 not checked (·); 2 of 12 checked connections unexpected
";
        assert_eq!(matrix.to_string(), expected);
        assert!(matrix.render(true).contains("\x1b[31m✗ x/a"));
    }

    #[test]
    fn wide_tables_have_numbered_columns_and_incomplete_groups_list_pairs() {
        let name = "a-namespace-with-a-long-name/a-pod-with-a-long-name-too";
        let (tcp, udp) = (EchoPort::tcp(80), EchoPort::udp(80));
        let tables = vec![
            table(tcp, Family::V4, ".X"),
            table(tcp, Family::V6, ".."),
            table(udp, Family::V4, ".."),
            table(udp, Family::V6, ".."),
        ];
        let text = matrix(&[name, name], tables).to_string();
        assert!(text.contains("80/TCP IPv6, 80/UDP IPv4, 80/UDP IPv6\n"), "{text}");
        assert!(text.contains("  1   2\n") && text.contains(&format!("  2 {name}\n")), "{text}");
    }
}
