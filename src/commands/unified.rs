//! Prints differences as `diff -u` does, in sections.

use std::fmt::Display;
use std::hash::Hash;
use std::io::{self, Write};

use similar::{Algorithm, ChangeTag, DiffOp, capture_diff_slices, group_diff_ops};

/// Unchanged lines shown around changes, as `diff -u` does.
const CONTEXT: usize = 3;

/// Prints to somewhere, coloured if asked for.
pub(super) struct Printer<'a> {
    pub(super) out: &'a mut dyn Write,
    pub(super) colour: bool,
}

/// What a line is, which decides its colour.
#[derive(Clone, Copy)]
enum Part {
    File,
    Hunk,
    Kept,
    Deleted,
    Added,
}

impl Part {
    /// The terminal's code (SGR).
    fn code(self) -> Option<&'static str> {
        match self {
            Part::File => Some("1"),
            Part::Hunk => Some("36"),
            Part::Kept => None,
            Part::Deleted => Some("31"),
            Part::Added => Some("32"),
        }
    }
}

impl Printer<'_> {
    /// The head of what differs of a subject.
    pub(super) fn head(&mut self, subject: impl Display) -> io::Result<()> {
        self.line(Part::File, format_args!("--- kernel/{subject}"))?;
        self.line(Part::File, format_args!("+++ wanted/{subject}"))
    }

    /// What differs in one place.
    pub(super) fn section<T>(&mut self, old: &[T], new: &[T], section: &str) -> io::Result<()>
    where
        T: AsRef<str> + Clone + Eq + Ord + Hash,
    {
        if old.is_empty() && new.is_empty() {
            return self.line(Part::Hunk, format_args!("@@ -0,0 +0,0 @@ {section}"));
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
        self.line(Part::Hunk, format_args!("@@ -{from} +{to} @@ {section}"))?;
        for change in hunk.iter().flat_map(|operation| operation.iter_changes(old, new)) {
            let (part, sign) = match change.tag() {
                ChangeTag::Equal => (Part::Kept, ' '),
                ChangeTag::Delete => (Part::Deleted, '-'),
                ChangeTag::Insert => (Part::Added, '+'),
            };
            self.line(part, format_args!("{sign}{}", change.value_ref().as_ref()))?;
        }
        Ok(())
    }

    fn line(&mut self, part: Part, text: std::fmt::Arguments<'_>) -> io::Result<()> {
        match part.code().filter(|_| self.colour) {
            Some(code) => writeln!(self.out, "\x1b[{code}m{text}\x1b[0m"),
            None => writeln!(self.out, "{text}"),
        }
    }
}

/// As `diff -u` numbers lines: the first and how many, where an empty range is named by the line before it.
fn range(start: usize, end: usize) -> String {
    let length = end - start;
    match length {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        _ => format!("{},{length}", start + 1),
    }
}
