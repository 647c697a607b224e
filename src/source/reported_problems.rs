//! The problems of an object that were logged.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use portcullis_cluster::{ObjectKey, Problem};

/// How many problems of one object are remembered. The limit is needed as the owner of an object chooses its content.
const MAX_PROBLEMS: usize = 64;

/// The problems of one object that were logged, so that each is logged once.
#[derive(Debug, Default)]
pub(super) struct ReportedProblems {
    /// Hashes of their texts.
    problems: HashSet<u64>,
    /// The limit was reached.
    is_full: bool,
}

impl ReportedProblems {
    /// Logs the problems of an object that were not logged before. Returns true if there was one.
    pub(super) fn warn(&mut self, key: &ObjectKey, problems: &[Problem]) -> bool {
        let mut is_any_new = false;
        for problem in problems.iter().filter(|problem| self.is_new(&problem.to_string())) {
            let Problem { field, value, expected, .. } = problem;
            let (expected, consequence) = (&**expected, problem.consequence());
            tracing::warn!(kind = %key.kind, object = %key.name, field, value, expected, consequence, "{key}: {problem}");
            is_any_new = true;
        }
        if self.problems.len() >= MAX_PROBLEMS && !std::mem::replace(&mut self.is_full, true) {
            tracing::warn!(kind = %key.kind, object = %key.name, "{key}: {MAX_PROBLEMS} problems were logged; further problems are not logged");
        }
        is_any_new
    }

    /// Records a problem. Returns true if it was not recorded before and the limit is not reached.
    pub(super) fn is_new(&mut self, problem: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        problem.hash(&mut hasher);
        self.problems.len() < MAX_PROBLEMS && self.problems.insert(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_new_once_and_have_a_limit() {
        let mut reported = ReportedProblems::default();
        assert!(reported.is_new("a") && !reported.is_new("a") && reported.is_new("b"));
        let new = (0..1000).filter(|i| reported.is_new(&i.to_string())).count();
        assert_eq!(new, MAX_PROBLEMS - 2);
        assert!(!reported.is_new("0"));
    }
}
