//! Tables with aligned columns, as kubectl prints them.

use std::io::{self, Write};

/// Prints rows with their columns aligned. Each line starts with `indent`.
pub(super) fn print(
    indent: &str,
    head: &[&str],
    rows: &[Vec<String>],
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut line = String::new();
    print_line(indent, head.iter().copied(), &widths, &mut line, out)?;
    rows.iter()
        .try_for_each(|row| print_line(indent, row.iter().map(String::as_str), &widths, &mut line, out))
}

fn print_line<'a>(
    indent: &str,
    cells: impl Iterator<Item = &'a str>,
    widths: &[usize],
    line: &mut String,
    out: &mut dyn Write,
) -> io::Result<()> {
    line.clear();
    line.push_str(indent);
    for (cell, width) in cells.zip(widths) {
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 2));
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    out.write_all(line.as_bytes())
}
