//! Outcomes of the probes of a lab run, as a table.

use std::fmt::{self, Write};
use std::net::IpAddr;

use crate::colors::Colors;
use crate::expectation::IpvsLosses;
use crate::plan::{Frontend, FrontendKind};
use crate::probe::{ProbeOutcome, ProbeTally, Vantage};

/// Probes of one frontend from one vantage point.
#[derive(Debug, Clone)]
pub struct ProbeRow {
    /// The Service, `namespace/name`.
    pub service: String,
    /// The probed frontend.
    pub frontend: Frontend,
    /// The vantage point.
    pub vantage: Vantage,
    /// The addresses of the vantage point.
    pub client: Vec<IpAddr>,
    /// The outcomes; `None` for a protocol that the kernel does not support.
    pub tally: Option<ProbeTally>,
    /// Result of the comparison with the expectation.
    pub check: RowCheck,
    /// Owners of the source addresses that pods saw, other than the client.
    pub translated_to: Vec<String>,
}

/// Result of comparing the outcomes of a row with its expectation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowCheck {
    /// The outcomes are as expected.
    Met,
    /// The outcomes violate the expectation, as described.
    Violated(String),
    /// The row has no expectation, or was not probed.
    Unchecked,
}

/// All probes of a run.
#[derive(Debug, Clone, Default)]
pub struct ProbeReport {
    /// The rows, by Service.
    pub rows: Vec<ProbeRow>,
    /// Services without a frontend, and the reason.
    pub skipped: Vec<(String, &'static str)>,
    /// Total of the losses that single rows tolerate in IPVS mode.
    pub ipvs_losses: IpvsLosses,
}

impl ProbeReport {
    /// Returns true if no row violates its expectation and the total of losses in IPVS mode is tolerated.
    pub fn is_as_expected(&self) -> bool {
        self.rows.iter().all(|row| row.violation().is_none()) && self.ipvs_losses.is_tolerated()
    }

    /// Formats the table, optionally with terminal colors.
    pub fn render(&self, colors: bool) -> String {
        let colors = Colors { enabled: colors };
        let mut cells: Vec<[String; 5]> = self.rows.iter().map(ProbeRow::cells).collect();
        let mut widths = ["ADDRESS", "", "FROM", "ANSWERED BY", "SOURCE ADDRESS"].map(str::len);
        for row in &cells {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for index in (1..cells.len()).rev() {
            let (row, above) = (&self.rows[index], &self.rows[index - 1]);
            if (&row.service, &row.frontend) == (&above.service, &above.frontend) {
                // The address is shown in the first row of a frontend only.
                cells[index][0].clear();
                cells[index][1].clear();
            }
        }
        let mut text = String::new();
        let mut service = "";
        for (row, cells) in self.rows.iter().zip(&cells) {
            if row.service != service {
                service = &row.service;
                let titles = ["ADDRESS", "", "FROM", "ANSWERED BY", "SOURCE ADDRESS"].map(str::to_owned);
                let space = if text.is_empty() { "" } else { "\n" };
                let _ = writeln!(text, "{space}{}", colors.bold(service));
                let _ = writeln!(text, "  {}", colors.dim(aligned(&titles, &widths).trim_end()));
            }
            let line = aligned(cells, &widths);
            let (mark, line) = match (&row.check, &row.tally) {
                (RowCheck::Violated(violation), _) => {
                    (colors.red("✗"), format!("{line}{}", colors.red(violation)))
                }
                (_, None) => (colors.dim("-"), colors.dim(line.trim_end())),
                (RowCheck::Met, Some(_)) => (colors.green("✓"), line.trim_end().to_owned()),
                (RowCheck::Unchecked, Some(_)) => (colors.dim("·"), line.trim_end().to_owned()),
            };
            let _ = writeln!(text, "{mark} {line}");
        }
        for (service, why) in &self.skipped {
            let _ = writeln!(text, "\n{}\n  {}", colors.bold(service), colors.dim(why));
        }
        let _ = writeln!(text, "\n{}", self.summary(&colors));
        text
    }

    fn summary(&self, colors: &Colors) -> String {
        let tallies = || self.rows.iter().filter_map(|row| row.tally.as_ref());
        let total: usize = tallies().map(ProbeTally::total).sum();
        let answered: usize = tallies().map(ProbeTally::answered).sum();
        let count = |which: fn(&ProbeOutcome) -> bool| {
            tallies()
                .flat_map(|tally| &tally.failures)
                .filter(|(o, _)| which(o))
                .map(|(_, count)| count)
                .sum::<usize>()
        };
        let refused = count(|outcome| *outcome == ProbeOutcome::Refused);
        let lost = count(|outcome| *outcome != ProbeOutcome::Refused);
        format!(
            "{total} probes: {answered} answered, {refused} refused, {lost} lost; {}; {}",
            self.checked_rows(),
            self.verdict(colors)
        )
    }

    /// Returns the numbers of rows that were checked and not checked.
    fn checked_rows(&self) -> String {
        let checked = self.rows.iter().filter(|row| row.check != RowCheck::Unchecked).count();
        let probed = self.rows.iter().filter(|row| row.tally.is_some()).count();
        let not_probed = self.rows.len() - probed;
        let mut text = format!("{checked} rows checked");
        if probed > checked {
            let _ = write!(text, ", {} not checked (·)", probed - checked);
        }
        if not_probed > 0 {
            let _ = write!(text, ", {not_probed} not probed (-)");
        }
        text
    }

    fn verdict(&self, colors: &Colors) -> String {
        let violations = self.rows.iter().filter(|row| row.violation().is_some()).count();
        let IpvsLosses { connections, lost } = self.ipvs_losses;
        if violations > 0 {
            let checked = self.rows.iter().filter(|row| row.check != RowCheck::Unchecked).count();
            colors.red(&format!("{violations} of {checked} checked rows unexpected"))
        } else if !self.ipvs_losses.is_tolerated() {
            let tolerated = self.ipvs_losses.tolerated();
            colors.red(&format!(
                "{lost} of {connections} masqueraded connections lost, expected at most {tolerated}"
            ))
        } else {
            colors.green("all expectations met")
        }
    }
}

impl fmt::Display for ProbeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl ProbeRow {
    /// Returns how the outcomes violate the expectation, if they do.
    pub fn violation(&self) -> Option<&str> {
        match &self.check {
            RowCheck::Violated(violation) => Some(violation),
            RowCheck::Met | RowCheck::Unchecked => None,
        }
    }

    pub(crate) fn cells(&self) -> [String; 5] {
        let kind = match &self.frontend.kind {
            FrontendKind::NodePort(node) => format!("NodePort of {node}"),
            kind => kind.to_string(),
        };
        let address = format!("{} {}", self.frontend.address, self.frontend.protocol);
        let (answered, source) = match &self.tally {
            None => ("not probed: no sockets for it".to_owned(), String::new()),
            Some(tally) => (self.shares(tally), self.source(tally)),
        };
        [address, kind, vantage_name(&self.vantage), answered, source]
    }

    /// Returns `web-1 35%  web-2 65%`, then the other outcomes.
    fn shares(&self, tally: &ProbeTally) -> String {
        let namespace = self.service.split('/').next().unwrap_or_default();
        let percent = |count: usize| (count * 100 + tally.total() / 2) / tally.total().max(1);
        let mut parts = Vec::new();
        for (pod, count) in &tally.by_responder {
            let own = pod.strip_prefix(namespace).and_then(|rest| rest.strip_prefix('/'));
            parts.push(format!("{} {}%", own.unwrap_or(pod), percent(*count)));
        }
        for (outcome, count) in &tally.failures {
            parts.push(if *count == tally.total() {
                outcome.to_string()
            } else {
                format!("{outcome} {}%", percent(*count))
            });
        }
        parts.join("  ")
    }

    fn source(&self, tally: &ProbeTally) -> String {
        if tally.answered() == 0 {
            return String::new();
        }
        let kept = tally.sources.iter().any(|source| self.client.contains(source));
        let mut words = Vec::new();
        if kept {
            words.push("kept".to_owned());
        }
        if !self.translated_to.is_empty() {
            words.push(format!("seen as {}", self.translated_to.join(", ")));
        }
        words.join("; ")
    }
}

/// Returns the name of a vantage point in the table; the lab's client pods are named by their node.
fn vantage_name(vantage: &Vantage) -> String {
    let client = format!("{}/client-", crate::plan::CLIENT_NAMESPACE);
    match vantage {
        Vantage::Pod(name) => match name.strip_prefix(&client) {
            Some(node) => format!("a pod on {node}"),
            None => format!("pod {name}"),
        },
        Vantage::Node(name) => name.clone(),
        Vantage::Outside => "outside".to_owned(),
    }
}

fn aligned(cells: &[String; 5], widths: &[usize; 5]) -> String {
    cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(vantage: Vantage, outcomes: Vec<ProbeOutcome>, check: RowCheck) -> ProbeRow {
        let frontend = Frontend {
            kind: FrontendKind::ClusterIp,
            address: "10.96.0.10:80".parse().unwrap(),
            protocol: "TCP".into(),
            port_name: String::new(),
            port: 80,
        };
        ProbeRow {
            service: "default/web".into(),
            frontend,
            vantage,
            client: vec!["10.244.1.2".parse().unwrap()],
            tally: Some(outcomes.into_iter().collect()),
            check,
            translated_to: Vec::new(),
        }
    }

    #[test]
    fn rows_are_grouped_by_service_and_frontend() {
        let answered = |by: &str| ProbeOutcome::Answered {
            responder: by.into(),
            source: "10.244.1.2:9".parse().unwrap(),
        };
        let violated = RowCheck::Violated("expected refused".into());
        let mut masked = row(Vantage::Outside, vec![answered("other/db-1")], violated);
        masked.client.clear();
        masked.translated_to = vec!["node-1 (10.244.1.1)".into()];
        let mut sctp = row(Vantage::Outside, Vec::new(), RowCheck::Unchecked);
        sctp.tally = None;
        let report = ProbeReport {
            rows: vec![
                row(
                    Vantage::client_on("node-1"),
                    vec![answered("default/web-1"), answered("default/web-2"), ProbeOutcome::TimedOut],
                    RowCheck::Met,
                ),
                row(Vantage::node("node-2"), vec![ProbeOutcome::Refused], RowCheck::Unchecked),
                masked,
                sctp,
            ],
            skipped: vec![("default/head".into(), "headless")],
            ..ProbeReport::default()
        };
        assert!(!report.is_as_expected());
        let expected = "\
default/web
  ADDRESS                       FROM             ANSWERED BY                         SOURCE ADDRESS
✓ 10.96.0.10:80 TCP  ClusterIP  a pod on node-1  web-1 33%  web-2 33%  timed out 33%  kept
·                               node-2           refused
✗                               outside          other/db-1 100%                      seen as node-1 (10.244.1.1)  expected refused
-                               outside          not probed: no sockets for it

default/head
  headless

5 probes: 3 answered, 1 refused, 1 lost; 2 rows checked, 1 not checked (·), 1 not probed (-); 1 of 2 checked rows unexpected
";
        let expected = expected.replace(
            "ANSWERED BY                         SOURCE",
            "ANSWERED BY                          SOURCE",
        );
        assert_eq!(report.to_string(), expected);
        let coloured = report.render(true);
        assert!(coloured.contains("\x1b[31m✗\x1b[0m") && coloured.contains("\x1b[32m✓\x1b[0m"));
    }
}
