//! Prints differences as a unified diff, in sections, or collects them for a document.

use std::fmt::Display;
use std::hash::Hash;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use similar::{Algorithm, ChangeTag, DiffOp, capture_diff_slices, group_diff_ops};

/// The number of unchanged lines around changes, as in `diff -u`.
const CONTEXT: usize = 3;

/// Prints differences.
pub(crate) enum DiffPrinter<'a> {
    /// A unified diff, optionally with colours.
    Text { out: &'a mut dyn Write, colour: bool },
    /// The differences of each subject, for a document.
    Document(Vec<Difference>),
}

/// The differences between the kernel's objects and the wanted ones of a Service, or of objects of no Service.
#[derive(Debug, Serialize)]
pub(crate) struct Difference {
    /// As in the header of the unified diff.
    subject: String,
    objects: Vec<ObjectDifference>,
}

/// The lines of an object that differs.
#[derive(Debug, Serialize)]
struct ObjectDifference {
    object: String,
    /// The lines in the kernel.
    kernel: Vec<String>,
    /// The lines that should be there.
    wanted: Vec<String>,
}

/// The kind of a line, which determines its colour.
#[derive(Clone, Copy)]
enum LineKind {
    File,
    Hunk,
    Kept,
    Deleted,
    Added,
}

impl LineKind {
    /// Returns the style on a terminal.
    fn style(self) -> Option<Style> {
        match self {
            LineKind::File => Some(Style::new().bold()),
            LineKind::Hunk => Some(AnsiColor::Cyan.on_default()),
            LineKind::Kept => None,
            LineKind::Deleted => Some(AnsiColor::Red.on_default()),
            LineKind::Added => Some(AnsiColor::Green.on_default()),
        }
    }
}

impl DiffPrinter<'_> {
    /// Prints the header of a subject that differs.
    pub(crate) fn header(&mut self, subject: impl Display) -> io::Result<()> {
        if let DiffPrinter::Document(differences) = self {
            differences.push(Difference { subject: subject.to_string(), objects: Vec::new() });
            return Ok(());
        }
        self.line(LineKind::File, format_args!("--- kernel/{subject}"))?;
        self.line(LineKind::File, format_args!("+++ wanted/{subject}"))
    }

    /// Prints the differences in one place.
    pub(crate) fn section<T>(&mut self, old: &[T], new: &[T], section: &str) -> io::Result<()>
    where
        T: AsRef<str> + Clone + Eq + Ord + Hash,
    {
        if let DiffPrinter::Document(differences) = self {
            let lines = |lines: &[T]| lines.iter().map(|line| line.as_ref().to_owned()).collect();
            let object =
                ObjectDifference { object: section.to_owned(), kernel: lines(old), wanted: lines(new) };
            differences.last_mut().expect("a header comes first").objects.push(object);
            return Ok(());
        }
        if old.is_empty() && new.is_empty() {
            return self.line(LineKind::Hunk, format_args!("@@ -0,0 +0,0 @@ {section}"));
        }
        let operations = capture_diff_slices(Algorithm::Myers, old, new);
        for hunk in group_diff_ops(operations, CONTEXT) {
            self.hunk(&hunk, old, new, section)?;
        }
        Ok(())
    }

    fn hunk<T>(&mut self, hunk: &[DiffOp], old: &[T], new: &[T], section: &str) -> io::Result<()>
    where
        T: AsRef<str> + Clone + Eq + Ord + Hash,
    {
        let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else { return Ok(()) };
        let from = range(first.old_range().start, last.old_range().end);
        let to = range(first.new_range().start, last.new_range().end);
        self.line(LineKind::Hunk, format_args!("@@ -{from} +{to} @@ {section}"))?;
        for change in hunk.iter().flat_map(|operation| operation.iter_changes(old, new)) {
            let (kind, sign) = match change.tag() {
                ChangeTag::Equal => (LineKind::Kept, ' '),
                ChangeTag::Delete => (LineKind::Deleted, '-'),
                ChangeTag::Insert => (LineKind::Added, '+'),
            };
            self.line(kind, format_args!("{sign}{}", change.value_ref().as_ref()))?;
        }
        Ok(())
    }

    fn line(&mut self, kind: LineKind, text: std::fmt::Arguments<'_>) -> io::Result<()> {
        let DiffPrinter::Text { out, colour } = self else { return Ok(()) };
        match kind.style().filter(|_| *colour) {
            Some(style) => writeln!(out, "{style}{text}{style:#}"),
            None => writeln!(out, "{text}"),
        }
    }
}

/// Returns a range of lines in the notation of `diff -u`: the first line and the length; an empty range is named by the line
/// before it.
fn range(start: usize, end: usize) -> String {
    let length = end - start;
    match length {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        _ => format!("{},{length}", start + 1),
    }
}
