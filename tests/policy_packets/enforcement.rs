//! Ways to enforce a step's policies: the daemons, or rules from the expected tables.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;

use portcullis_lab::{EchoPort, Family, Lab, MatrixPeer, Vantage};

use crate::case::{Expect, Step, port};
use crate::flows::end;
use crate::settle::wait_until_settled;

/// A way to enforce policies.
pub(crate) trait Enforcement {
    /// Waits until the step's policies are enforced on every node.
    fn settle(&mut self, lab: &mut Lab, step: &Step);
}

/// The daemons themselves.
pub(crate) struct Daemons;

impl Enforcement for Daemons {
    fn settle(&mut self, lab: &mut Lab, _: &Step) {
        wait_until_settled(lab);
    }
}

/// Rules that drop the connections that the step's tables deny, with these mistakes.
pub(crate) struct RulesFromTables {
    /// Connections with the inverse verdict: source, destination, port, family.
    pub(crate) mistakes: Vec<(&'static str, &'static str, EchoPort, Family)>,
}

impl Enforcement for RulesFromTables {
    fn settle(&mut self, lab: &mut Lab, step: &Step) {
        wait_until_settled(lab);
        let denied = self.denied(lab, step);
        for node in lab.plan().nodes.clone() {
            let netns = lab.netns(&Vantage::node(&node.name)).unwrap();
            let mut nft = netns.command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
            nft.stdin.take().unwrap().write_all(rules(&denied).as_bytes()).unwrap();
            assert!(nft.wait().unwrap().success(), "nft failed:\n{}", rules(&denied));
        }
    }
}

impl RulesFromTables {
    fn denied(&self, lab: &Lab, step: &Step) -> Vec<(MatrixPeer, MatrixPeer, EchoPort, Family)> {
        let plan = lab.plan();
        let mut denied = Vec::new();
        let Expect { columns, .. } = &step.expect;
        for (from, to) in columns.iter().flat_map(|from| columns.iter().map(move |to| (from, to))) {
            for at in step.expect.ports() {
                for family in Family::BOTH {
                    let Some(allowed) = step.expect.allows(from, to, at, family) else { continue };
                    let mistaken = self.mistakes.contains(&(from, to, at, family));
                    if allowed == mistaken {
                        denied.push((end(plan, from), end(plan, to), at, family));
                    }
                }
            }
        }
        // Services route to pods, which the tables have.
        let flows =
            step.flows.iter().filter(|flow| flow.verdict == "deny" && !flow.to.starts_with("service/"));
        denied.extend(flows.filter_map(|flow| {
            Some((end(plan, &flow.from), end(plan, &flow.to), port(&flow.port)?, flow.family()))
        }));
        denied
    }
}

fn rules(denied: &[(MatrixPeer, MatrixPeer, EchoPort, Family)]) -> String {
    let table = "table inet by-the-tables";
    let (mut sets, mut checks) = (String::new(), String::new());
    for (family, word, kind) in [(Family::V4, "ip", "ipv4_addr"), (Family::V6, "ip6", "ipv6_addr")] {
        let elements = denied.iter().filter(|(.., of)| *of == family).map(|(from, to, port, _)| {
            let [from, to] = [from, to].map(|end| end.address_of(family).unwrap());
            format!("{from} . {to} . {} . {}", port.protocol.to_string().to_lowercase(), port.port)
        });
        let elements: std::collections::BTreeSet<String> = elements.collect();
        let _ = writeln!(sets, "set denied-{word} {{ type {kind} . {kind} . inet_proto . inet_service");
        if !elements.is_empty() {
            let _ =
                writeln!(sets, "elements = {{ {} }}", elements.into_iter().collect::<Vec<_>>().join(", "));
        }
        sets.push_str("}\n");
        let _ = writeln!(checks, "{word} saddr . {word} daddr . meta l4proto . th dport @denied-{word} drop");
    }
    format!(
        "{table}\ndelete {table}\n{table} {{\n{sets}
         chain check {{\nct state established,related accept\n{checks}}}
         chain through {{ type filter hook postrouting priority 99; jump check; }}
         chain input {{ type filter hook input priority 0; jump check; }}
         }}\n"
    )
}
