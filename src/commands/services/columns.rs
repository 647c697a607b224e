//! Tables with aligned columns, as kubectl prints them.

use std::io::{self, Write};

/// Prints rows with their columns aligned. Each line starts with `indent`.
pub(super) fn print(
    indent: &str,
    head: &[&str],
    rows: &[Vec<String>],
    out: &mut dyn Write,
) -> io::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    print_line(indent, head.iter().copied(), &widths, out)?;
    rows.iter().try_for_each(|row| print_line(indent, row.iter().map(String::as_str), &widths, out))
}

fn print_line<'a>(
    indent: &str,
    cells: impl Iterator<Item = &'a str>,
    widths: &[usize],
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut line = indent.to_owned();
    for (cell, width) in cells.zip(widths) {
        line.push_str(&format!("{cell:width$}  "));
    }
    writeln!(out, "{}", line.trim_end())
}
