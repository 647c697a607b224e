//! A matrix as text.
//!
//! ```text
//! 80/TCP 81/TCP · IPv4 IPv6
//!        x/a  x/b  y/a
//!   x/a  .    X    .
//! ✗ x/b  .    .    .!
//! ```
//! `.` is allowed, `X` is denied, `-` cannot be asked; `!` is not as it must be.

use std::fmt::{self, Write};

use super::{Cell, Matrix, Table};
use crate::paint::Paint;
use crate::plan::{EchoPort, Family};
use crate::probe::Outcome;

/// How wide a table may be before its columns are numbered instead of named.
const WIDEST: usize = 110;
/// How many differences are told one by one.
const TOLD: usize = 20;

impl Matrix {
    /// The tables as text, with colours for a terminal if wanted; ports and families whose tables are the same share
    /// one.
    pub fn render(&self, colour: bool) -> String {
        let paint = Paint { colour };
        let mut text = String::new();
        let layout = Layout::of(self);
        let mut groups: Vec<(Vec<Vec<&str>>, Vec<&Table>)> = Vec::new();
        for table in &self.tables {
            let marks: Vec<Vec<&str>> = table.rows.iter().map(|row| row.iter().map(mark).collect()).collect();
            match groups.iter_mut().find(|(known, _)| *known == marks) {
                Some((_, tables)) => tables.push(table),
                None => groups.push((marks, vec![table])),
            }
        }
        for (marks, tables) in &groups {
            let _ = writeln!(text, "{}", paint.bold(&heading(tables)));
            let _ = writeln!(text, "  {}", paint.dim(layout.line("", &layout.heads).trim_end()));
            for (name, marks) in layout.names.iter().zip(marks) {
                let is_wrong = marks.iter().any(|mark| mark.ends_with('!'));
                let line = layout.line(name, marks).trim_end().to_owned();
                let line = if is_wrong { paint.red(&format!("✗ {line}")) } else { format!("  {line}") };
                let _ = writeln!(text, "{line}");
            }
            text.push('\n');
        }
        for line in &layout.legend {
            let _ = writeln!(text, "{}", paint.dim(line));
        }
        let differences = self.differences();
        for (question, cell) in differences.iter().take(TOLD) {
            let must = if cell.expected == Some(true) { "must be allowed" } else { "must be denied" };
            let seen = cell.seen.as_ref().map(Outcome::to_string).unwrap_or_default();
            let _ = writeln!(text, "{} {question}: {must}; {seen}", paint.red("✗"));
        }
        if differences.len() > TOLD {
            let _ = writeln!(text, "{} and {} more", paint.red("✗"), differences.len() - TOLD);
        }
        let _ = writeln!(text, "{}", self.summary(differences.len(), &paint));
        text
    }

    fn summary(&self, differences: usize, paint: &Paint) -> String {
        let count = |allowed| self.cells().filter(|(_, cell)| cell.is_allowed() == Some(allowed)).count();
        let (allowed, denied) = (count(true), count(false));
        let verdict = if differences == 0 {
            paint.green("all as it must be")
        } else {
            paint.red(&format!("{differences} are not as they must be"))
        };
        format!("{} ways: {allowed} allowed, {denied} denied; {verdict}", allowed + denied)
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

fn mark(cell: &Cell) -> &'static str {
    match (&cell.seen, cell.is_allowed(), cell.is_right()) {
        (Some(Outcome::Failed(_)), _, _) => "?!",
        (_, None, _) => "-",
        (_, Some(true), true) => ".",
        (_, Some(true), false) => ".!",
        (_, Some(false), true) => "X",
        (_, Some(false), false) => "X!",
    }
}

/// `80/TCP 81/TCP · IPv4 IPv6`, or each port with its family where not all go together.
fn heading(tables: &[&Table]) -> String {
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

/// What stands at the margins.
struct Layout {
    names: Vec<String>,
    heads: Vec<String>,
    legend: Vec<String>,
    margin: usize,
    widths: Vec<usize>,
}

impl Layout {
    fn of(matrix: &Matrix) -> Self {
        let names: Vec<String> = matrix.from.iter().map(|end| end.name().to_owned()).collect();
        let mut heads: Vec<String> = matrix.to.iter().map(|end| end.name().to_owned()).collect();
        let mut legend = Vec::new();
        let margin = names.iter().map(|name| name.chars().count()).max().unwrap_or(0) + 2;
        let wide = |heads: &[String]| -> Vec<usize> {
            heads.iter().map(|head| head.chars().count().max(2) + 2).collect()
        };
        let mut widths = wide(&heads);
        if margin + widths.iter().sum::<usize>() > WIDEST {
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
    use crate::matrix::End;
    use std::time::Duration;

    /// A row a word, a cell a letter: seen `.` or `X`; `a` and `d` were allowed and denied but must not be.
    fn table(port: EchoPort, family: Family, rows: &str) -> Table {
        let answered = || Outcome::Answered { by: "x/b".into(), saw_source: "10.0.0.1:99".parse().unwrap() };
        let cell = |letter| match letter {
            '-' => Cell { expected: None, seen: None, asked: 0 },
            '.' => Cell { expected: Some(true), seen: Some(answered()), asked: 1 },
            'X' => Cell { expected: Some(false), seen: Some(Outcome::TimedOut), asked: 1 },
            'a' => Cell { expected: Some(false), seen: Some(answered()), asked: 1 },
            _ => Cell { expected: Some(true), seen: Some(Outcome::TimedOut), asked: 3 },
        };
        Table { port, family, rows: rows.split(' ').map(|row| row.chars().map(cell).collect()).collect() }
    }

    fn matrix(names: &[&str], tables: Vec<Table>) -> Matrix {
        let ends: Vec<End> = names.iter().map(|name| End::address(*name, [])).collect();
        Matrix { from: ends.clone(), to: ends, tables, took: Duration::ZERO }
    }

    #[test]
    fn the_tables_read_well() {
        let (tcp, udp) = (EchoPort::tcp(80), EchoPort::udp(80));
        let tables = vec![
            table(tcp, Family::V4, ".X .."),
            table(tcp, Family::V6, ".X .."),
            table(udp, Family::V4, ".a d."),
            table(udp, Family::V6, ".- --"),
        ];
        let matrix = matrix(&["x/a", "x/b"], tables);
        assert!(!matrix.is_good());
        let expected = "\
80/TCP · IPv4 IPv6
       x/a  x/b
  x/a  .    X
  x/b  .    .

80/UDP · IPv4
       x/a  x/b
✗ x/a  .    .!
✗ x/b  X!   .

80/UDP · IPv6
       x/a  x/b
  x/a  .    -
  x/b  -    -

✗ x/a → x/b 80/UDP IPv4: must be denied; x/b (saw 10.0.0.1:99)
✗ x/b → x/a 80/UDP IPv4: must be allowed; timed out
13 ways: 10 allowed, 3 denied; 2 are not as they must be
";
        assert_eq!(matrix.to_string(), expected);
        assert!(matrix.render(true).contains("\x1b[31m✗ x/a"));
    }

    #[test]
    fn long_names_become_numbers_and_uneven_groups_are_spelt_out() {
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
