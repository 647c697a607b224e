//! The results of a run as JUnit XML, which CI systems show.

use portcullis_lab::{CheckOutcome, RunResults};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

/// Returns the document.
///
/// # Errors
/// It cannot be encoded.
pub(super) fn document(results: &RunResults) -> Result<String, quick_junit::SerializeError> {
    let mut report = Report::new("portcullis-lab");
    for group in &results.groups {
        let mut suite = TestSuite::new(group.name.clone());
        for check in &group.checks {
            let mut status = match check.outcome {
                CheckOutcome::Passed => TestCaseStatus::success(),
                CheckOutcome::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
                CheckOutcome::NotChecked => TestCaseStatus::skipped(),
            };
            if let Some(message) = &check.message {
                status.set_message(message.clone());
            }
            let mut case = TestCase::new(check.name.clone(), status);
            case.set_classname(group.name.clone());
            if !check.observed.is_empty() {
                case.set_system_out(check.observed.clone());
            }
            suite.add_test_case(case);
        }
        report.add_test_suite(suite);
    }
    report.to_string()
}

#[cfg(test)]
mod tests {
    use portcullis_lab::{Check, CheckGroup};

    use super::*;

    #[test]
    fn failures_and_checks_without_expectation_are_told_apart() {
        let check = |name: &str, outcome, message: Option<&str>| Check {
            name: name.to_owned(),
            outcome,
            message: message.map(str::to_owned),
            observed: "web-1 100% <&\u{1b}".to_owned(),
        };
        let checks = vec![
            check("10.96.0.1:80 TCP", CheckOutcome::Passed, None),
            check("10.96.0.2:80 TCP", CheckOutcome::Failed, Some("expected \"refused\" & not <web-1>")),
            check("10.96.0.3:80 SCTP", CheckOutcome::NotChecked, Some("no sockets for it")),
        ];
        let results =
            RunResults { as_expected: false, groups: vec![CheckGroup { name: "shop/web".into(), checks }] };
        let text = document(&results).expect("a document");
        assert!(text.starts_with("<?xml "), "{text}");
        assert!(text.contains("tests=\"3\"") && text.contains("failures=\"1\""), "{text}");
        assert!(text.contains("message=\"expected &quot;refused&quot; &amp; not &lt;web-1&gt;\""), "{text}");
        assert!(text.contains("<skipped message=\"no sockets for it\""), "{text}");
        // A control character is not allowed in XML.
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
