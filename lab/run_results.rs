//! The results of a run for programs: one check for each row of the tables.

use std::fmt::Write;

use serde::Serialize;

use crate::matrix::Matrix;
use crate::probe::ProbeOutcome;
use crate::probe_report::{ProbeReport, RowCheck};

/// The results of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunResults {
    /// No check failed, and there was something to check.
    pub as_expected: bool,
    /// The checks of each Service, and of the policies.
    pub groups: Vec<CheckGroup>,
}

/// Checks that belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckGroup {
    /// The Service, or `NetworkPolicy`.
    pub name: String,
    /// The checks.
    pub checks: Vec<Check>,
}

/// A check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// The connections that were made.
    pub name: String,
    /// The result.
    pub outcome: CheckOutcome,
    /// What is not as expected, or why nothing was checked.
    pub message: Option<String>,
    /// The observed outcomes.
    pub observed: String,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum CheckOutcome {
    /// As expected.
    Passed,
    /// Not as expected.
    Failed,
    /// There is no expectation, or the connection could not be made.
    NotChecked,
}

impl RunResults {
    /// Returns the results of the tables of a run.
    pub fn new(report: &ProbeReport, matrix: Option<&Matrix>) -> Self {
        let mut groups: Vec<CheckGroup> = Vec::new();
        let mut add = |group: &str, check: Check| match groups.iter_mut().find(|known| known.name == group) {
            Some(known) => known.checks.push(check),
            None => groups.push(CheckGroup { name: group.to_owned(), checks: vec![check] }),
        };
        for row in &report.rows {
            let [address, kind, vantage, answered, source] = row.cells();
            let (outcome, message) = match (&row.check, &row.tally) {
                (RowCheck::Violated(violation), _) => (CheckOutcome::Failed, Some(violation.clone())),
                (_, None) => (CheckOutcome::NotChecked, Some(answered.clone())),
                (RowCheck::Met, Some(_)) => (CheckOutcome::Passed, None),
                (RowCheck::Unchecked, Some(_)) => {
                    (CheckOutcome::NotChecked, Some("there is no expectation".to_owned()))
                }
            };
            let mut observed = answered;
            if !source.is_empty() {
                let _ = write!(observed, "; source address {source}");
            }
            let name = format!("{address} ({kind}) from {vantage}");
            add(&row.service, Check { name, outcome, message, observed });
        }
        for (service, reason) in &report.skipped {
            add(service, Check::not_checked("no frontend", reason));
        }
        if !report.ipvs_losses.is_tolerated() {
            let losses = &report.ipvs_losses;
            let message = format!(
                "{} of {} masqueraded connections lost, expected at most {}",
                losses.lost,
                losses.connections,
                losses.tolerated()
            );
            let name = "losses of masqueraded connections".to_owned();
            let failed = CheckOutcome::Failed;
            add("IPVS", Check { name, outcome: failed, message: Some(message.clone()), observed: message });
        }
        for (probe, cell) in matrix.into_iter().flat_map(Matrix::cells) {
            let observed = cell.outcome.as_ref().map(ProbeOutcome::to_string).unwrap_or_default();
            let expected = if cell.expected == Some(true) { "allowed" } else { "denied" };
            let (outcome, message) = match &cell.outcome {
                // Neither end has an address of the family, or both are the same node.
                None => continue,
                Some(_) if !cell.is_as_expected() => {
                    (CheckOutcome::Failed, Some(format!("expected {expected}")))
                }
                Some(_) if !cell.is_checked() => {
                    (CheckOutcome::NotChecked, Some("there is no expectation".to_owned()))
                }
                Some(_) => (CheckOutcome::Passed, None),
            };
            add("NetworkPolicy", Check { name: probe.to_string(), outcome, message, observed });
        }
        // A run that had nothing to connect to is no success.
        let is_empty = matrix.is_none() && report.rows.is_empty() && report.skipped.is_empty();
        let met = report.is_as_expected() && matrix.is_none_or(Matrix::is_as_expected);
        RunResults { as_expected: met && !is_empty, groups }
    }
}

impl Check {
    fn not_checked(name: &str, reason: &str) -> Check {
        Check {
            name: name.to_owned(),
            outcome: CheckOutcome::NotChecked,
            message: Some(reason.to_owned()),
            observed: String::new(),
        }
    }
}
