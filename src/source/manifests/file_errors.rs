//! Errors of one file of manifests: the first of them, and their number.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use portcullis_cluster::manifest::ManifestError;

use crate::truncated_list;

/// How many errors of a file are kept.
const MAX_KEPT: usize = 10;

/// How many errors of a file a log line names.
const MAX_NAMED: usize = 3;

/// The documents of a file that cannot be read, or objects that are defined more than once. Displays in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileErrors {
    /// The first errors; at least one.
    first: Vec<ManifestError>,
    /// The number of errors.
    pub count: usize,
    /// A hash of all errors.
    hash: u64,
}

impl FileErrors {
    /// Adds an error to the errors of all files. The errors of one file are added one after the other.
    pub(super) fn add(all: &mut Vec<FileErrors>, error: ManifestError) {
        let mut hasher = DefaultHasher::new();
        (error.line, &error.message).hash(&mut hasher);
        match all.last_mut().filter(|last| last.file() == error.file) {
            Some(last) => {
                last.count += 1;
                last.hash = last.hash.rotate_left(1) ^ hasher.finish();
                if last.first.len() < MAX_KEPT {
                    last.first.push(error);
                }
            }
            None => all.push(FileErrors { first: vec![error], count: 1, hash: hasher.finish() }),
        }
    }

    /// Returns the name of the file.
    pub fn file(&self) -> &str {
        &self.first[0].file
    }

    /// Returns the line of the first error.
    pub fn line(&self) -> usize {
        self.first[0].line
    }

    /// Returns the first errors, one line each, and a line with the number of the others.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let more = self.count - self.first.len();
        let rest = (more > 0).then(|| format!("{}: {more} more documents cannot be read", self.file()));
        self.first.iter().map(ToString::to_string).chain(rest)
    }
}

impl fmt::Display for FileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = truncated_list::clauses(&self.first[..self.first.len().min(MAX_NAMED)], MAX_NAMED);
        match self.count.saturating_sub(MAX_NAMED) {
            0 => f.write_str(&named),
            more => write!(f, "{named}; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(file: &str, lines: std::ops::Range<usize>, all: &mut Vec<FileErrors>) {
        for line in lines {
            let error = ManifestError { file: file.to_owned(), line, message: "bad".to_owned() };
            FileErrors::add(all, error);
        }
    }

    #[test]
    fn errors_of_a_file_are_one_line_with_their_number() {
        let mut all = Vec::new();
        errors("a", 1..2, &mut all);
        errors("b", 1..4, &mut all);
        errors("c", 1..20_001, &mut all);
        let lines: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            ["a:1: bad", "b:1: bad; b:2: bad; b:3: bad", "c:1: bad; c:2: bad; c:3: bad; and 19997 more"]
        );
        assert_eq!(all[2].lines().count(), MAX_KEPT + 1);
        assert_eq!(all[2].lines().last().as_deref(), Some("c: 19990 more documents cannot be read"));
    }

    #[test]
    fn any_change_of_the_errors_is_a_change() {
        let of = |lines: &[(usize, usize)]| {
            let mut all = Vec::new();
            lines.iter().for_each(|(first, end)| errors("a", *first..*end, &mut all));
            all.remove(0)
        };
        assert_eq!(of(&[(1, 100)]), of(&[(1, 100)]));
        assert_ne!(of(&[(1, 100)]), of(&[(1, 50), (51, 101)]));
        assert_ne!(of(&[(1, 100)]), of(&[(1, 99)]));
    }
}
