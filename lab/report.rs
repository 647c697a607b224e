//! The table of a lab run.

use std::fmt::{self, Write};
use std::net::IpAddr;

use crate::paint::Paint;
use crate::plan::{Front, FrontKind};
use crate::probe::{Outcome, Tally, Vantage};

/// Probes of one front from one vantage.
#[derive(Debug, Clone)]
pub struct Row {
    /// The Service, `namespace/name`.
    pub service: String,
    /// Where the probes went.
    pub front: Front,
    /// Where they came from.
    pub vantage: Vantage,
    /// The addresses of the prober.
    pub client: Vec<IpAddr>,
    /// What came of them; `None` for a protocol that the lab does not speak.
    pub tally: Option<Tally>,
    /// What is wrong with it.
    pub complaint: Option<String>,
    /// The places of the lab that have the addresses which the pods saw, other than the client.
    pub seen_as: Vec<String>,
}

/// All the probes of a run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The rows, by Service.
    pub rows: Vec<Row>,
    /// Services that have no address to probe, and why.
    pub unprobed: Vec<(String, &'static str)>,
}

impl Report {
    /// Whether nothing was seen that must not be.
    pub fn is_good(&self) -> bool {
        self.rows.iter().all(|row| row.complaint.is_none())
    }

    /// The table as text, with colours for a terminal if wanted.
    pub fn render(&self, colour: bool) -> String {
        let paint = Paint { colour };
        let mut cells: Vec<[String; 5]> = self.rows.iter().map(Row::cells).collect();
        let mut widths = ["ADDRESS", "", "FROM", "ANSWERED BY", "SOURCE ADDRESS"].map(str::len);
        for row in &cells {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for index in (1..cells.len()).rev() {
            let (row, above) = (&self.rows[index], &self.rows[index - 1]);
            if (&row.service, &row.front) == (&above.service, &above.front) {
                // Rows of one front read as a group.
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
                let _ = writeln!(text, "{space}{}", paint.bold(service));
                let _ = writeln!(text, "  {}", paint.dim(aligned(&titles, &widths).trim_end()));
            }
            let line = aligned(cells, &widths);
            let (mark, line) = match (&row.complaint, &row.tally) {
                (Some(complaint), _) => (paint.red("✗"), format!("{line}{}", paint.red(complaint))),
                (None, None) => (paint.dim("-"), paint.dim(line.trim_end())),
                (None, Some(_)) => (paint.green("✓"), line.trim_end().to_owned()),
            };
            let _ = writeln!(text, "{mark} {line}");
        }
        for (service, why) in &self.unprobed {
            let _ = writeln!(text, "\n{}\n  {}", paint.bold(service), paint.dim(why));
        }
        let _ = writeln!(text, "\n{}", self.summary(&paint));
        text
    }

    fn summary(&self, paint: &Paint) -> String {
        let tallies = || self.rows.iter().filter_map(|row| row.tally.as_ref());
        let total: usize = tallies().map(Tally::total).sum();
        let answered: usize = tallies().map(Tally::answered).sum();
        let count = |which: fn(&Outcome) -> bool| {
            tallies()
                .flat_map(|tally| &tally.others)
                .filter(|(o, _)| which(o))
                .map(|(_, count)| count)
                .sum::<usize>()
        };
        let refused = count(|outcome| *outcome == Outcome::Refused);
        let lost = count(|outcome| *outcome != Outcome::Refused);
        let complaints = self.rows.iter().filter(|row| row.complaint.is_some()).count();
        let verdict = if complaints == 0 {
            paint.green("all as it must be")
        } else {
            paint.red(&format!("{complaints} of {} rows are not as they must be", self.rows.len()))
        };
        format!("{total} probes: {answered} answered, {refused} refused, {lost} lost; {verdict}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl Row {
    fn cells(&self) -> [String; 5] {
        let kind = match &self.front.kind {
            FrontKind::NodePort(node) => format!("NodePort of {node}"),
            kind => kind.to_string(),
        };
        let address = format!("{} {}", self.front.address, self.front.protocol);
        let (answered, source) = match &self.tally {
            None => ("not probed: no sockets for it".to_owned(), String::new()),
            Some(tally) => (self.shares(tally), self.source(tally)),
        };
        [address, kind, place(&self.vantage), answered, source]
    }

    /// `web-1 35% web-2 65%`, then what was not answered.
    fn shares(&self, tally: &Tally) -> String {
        let namespace = self.service.split('/').next().unwrap_or_default();
        let percent = |count: usize| (count * 100 + tally.total() / 2) / tally.total().max(1);
        let mut parts = Vec::new();
        for (pod, count) in &tally.by {
            let own = pod.strip_prefix(namespace).and_then(|rest| rest.strip_prefix('/'));
            parts.push(format!("{} {}%", own.unwrap_or(pod), percent(*count)));
        }
        for (outcome, count) in &tally.others {
            parts.push(if *count == tally.total() {
                outcome.to_string()
            } else {
                format!("{outcome} {}%", percent(*count))
            });
        }
        parts.join("  ")
    }

    fn source(&self, tally: &Tally) -> String {
        if tally.answered() == 0 {
            return String::new();
        }
        let kept = tally.sources.iter().any(|source| self.client.contains(source));
        let mut words = Vec::new();
        if kept {
            words.push("kept".to_owned());
        }
        if !self.seen_as.is_empty() {
            words.push(format!("seen as {}", self.seen_as.join(", ")));
        }
        words.join("; ")
    }
}

/// A vantage in the words of the table; the lab's client pods are known by their node.
fn place(vantage: &Vantage) -> String {
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

    fn row(vantage: Vantage, outcomes: Vec<Outcome>, complaint: Option<&str>) -> Row {
        let front = Front {
            kind: FrontKind::ClusterIp,
            address: "10.96.0.10:80".parse().unwrap(),
            protocol: "TCP".into(),
            port_name: String::new(),
            port: 80,
        };
        Row {
            service: "default/web".into(),
            front,
            vantage,
            client: vec!["10.244.1.2".parse().unwrap()],
            tally: Some(outcomes.into_iter().collect()),
            complaint: complaint.map(str::to_owned),
            seen_as: Vec::new(),
        }
    }

    #[test]
    fn the_table_reads_well() {
        let answered =
            |by: &str| Outcome::Answered { by: by.into(), saw_source: "10.244.1.2:9".parse().unwrap() };
        let mut masked = row(Vantage::Outside, vec![answered("other/db-1")], Some("must be refused"));
        masked.client.clear();
        masked.seen_as = vec!["node-1 (10.244.1.1)".into()];
        let mut sctp = row(Vantage::Outside, Vec::new(), None);
        sctp.tally = None;
        let report = Report {
            rows: vec![
                row(
                    Vantage::client_on("node-1"),
                    vec![answered("default/web-1"), answered("default/web-2"), Outcome::TimedOut],
                    None,
                ),
                row(Vantage::node("node-2"), vec![Outcome::Refused], None),
                masked,
                sctp,
            ],
            unprobed: vec![("default/head".into(), "headless")],
        };
        assert!(!report.is_good());
        let expected = "\
default/web
  ADDRESS                       FROM             ANSWERED BY                         SOURCE ADDRESS
✓ 10.96.0.10:80 TCP  ClusterIP  a pod on node-1  web-1 33%  web-2 33%  timed out 33%  kept
✓                               node-2           refused
✗                               outside          other/db-1 100%                      seen as node-1 (10.244.1.1)  must be refused
-                               outside          not probed: no sockets for it

default/head
  headless

5 probes: 3 answered, 1 refused, 1 lost; 1 of 4 rows are not as they must be
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
