//! `portcullis diff`: a unified diff between the kernel's rules and those for a cluster state, by Service; then policies and the pod network.

use std::io::{self, Write};

use portcullis_cluster::Family;
use portcullis_modes::SyncError;
use portcullis_modes::iptables::{ChainDiff, RuleDiff, RuleSet, ToolError, Tools, compare_rules};
use portcullis_modes::ipvs::ObjectDifference;
use portcullis_netlink::nf_tables::TableFamily;
use portcullis_policy::table::{
    self as policy_table, EnforceError, PolicyTable, TABLE, differences as differences_of_policies,
};
use serde::Serialize;

use super::render::families;
pub(crate) use super::unified_diff::DiffPrinter;
use super::unified_diff::Difference;
use crate::cluster_view::{self, LoadError};
use crate::config::{Config, Diff};
use crate::document::Document;
use crate::node_network::comparison::{CompareError, Difference as PodNetworkDifference};
use crate::proxy_modes;

/// The content of the document.
#[derive(Serialize)]
struct RulesDiff {
    mode: &'static str,
    /// All objects of the cluster could be read.
    complete: bool,
    differs: bool,
    differences: Vec<Difference>,
}

/// An error that prevents comparing.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// The cluster state cannot be read.
    #[error(transparent)]
    State(#[from] LoadError),
    /// The kernel's rules cannot be read.
    #[error("cannot read the rules: {0}")]
    Kernel(#[from] SyncError),
    /// The iptables tools are missing or failed.
    #[error("cannot read the rules: {0}")]
    Tool(#[from] ToolError),
    /// The kernel has no nf_tables.
    #[error("this kernel has no nf_tables, so there are no rules to compare")]
    NoTables,
    /// The kernel has no IPVS.
    #[error(
        "the kernel module ip_vs is not loaded, so there are no virtual servers to compare; load it with modprobe ip_vs"
    )]
    NoIpvs,
    /// The policy tables cannot be read.
    #[error("cannot read the policy tables: {0}")]
    Policies(#[from] EnforceError),
    /// The pod network cannot be read.
    #[error(transparent)]
    PodNetwork(#[from] CompareError),
    /// The output cannot be written.
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
}

/// Prints the differences, optionally with colours. Lines with `-` are in the kernel and should not be, lines with `+` are
/// missing. Returns true if there are differences.
///
/// # Errors
/// The cluster state or the kernel's rules cannot be read.
pub fn run(config: &Config, diff: &Diff, colour: bool, out: &mut dyn Write) -> Result<bool, DiffError> {
    let state = cluster_view::load_node(config, diff.host.as_deref())?;
    let format = diff.output.document_format();
    let mut printer = match format {
        None => DiffPrinter::Text { out: &mut *out, colour },
        Some(_) => DiffPrinter::Document(Vec::new()),
    };
    let families = families(diff.family);
    let differs = proxy_modes::driver(config.mode).diff(config, &state, &families, &mut printer)?;
    let differs = match state.policies.filter(|_| diff.family.is_none()) {
        Some(policies) => diff_policies(&policies, &mut printer)? || differs,
        None => differs,
    };
    let differs = match state.pod_network.filter(|_| diff.family.is_none()) {
        Some(mut pod_network) => printer.pod_network(&pod_network.compare()?)? || differs,
        None => differs,
    };
    if let (DiffPrinter::Document(differences), Some(format)) = (printer, format) {
        let complete = state.unreadable.check().is_ok();
        let content = RulesDiff { mode: config.mode.name(), complete, differs, differences };
        Document::new("RulesDiff", content).print(format, out)?;
    }
    // Unreadable objects may be the cause of the differences.
    state.unreadable.check()?;
    Ok(differs)
}

fn diff_policies(policies: &PolicyTable, printer: &mut DiffPrinter<'_>) -> Result<bool, DiffError> {
    let mut differs = false;
    for wanted in [policies.table().desired(), policies.bridge().desired()] {
        let found = policy_table::read(wanted.family)?;
        if found.is_none() && wanted.family == TableFamily::Bridge && !policy_table::has_bridge_family() {
            continue;
        }
        let (found, foreign) = found.as_ref().map(|(table, foreign)| (table, foreign.as_slice())).unzip();
        let differences = differences_of_policies(wanted, found, foreign.unwrap_or_default());
        differs |= printer.policies(wanted.family, &differences)?;
    }
    Ok(differs)
}

/// Returns true if a family can be served here; logs a warning otherwise.
///
/// # Errors
/// The tool does not tell, for example because it hangs.
pub(crate) fn is_served(family: Family, tools: &Tools) -> Result<bool, ToolError> {
    match tools.supports(family) {
        Ok(()) => Ok(true),
        Err(error) if !error.shows_missing_support() => Err(error),
        Err(reason) => {
            tracing::warn!(%family, %reason, "this node cannot serve this IP family; not comparing it");
            Ok(false)
        }
    }
}

impl DiffPrinter<'_> {
    /// Prints the differences between the rules of a family. Returns true if there are any.
    pub(crate) fn rules(&mut self, family: Family, wanted: &RuleSet, found: &RuleSet) -> io::Result<bool> {
        let differences = compare_rules(wanted, found);
        differences.iter().try_for_each(|difference| self.difference(family, difference))?;
        Ok(!differences.is_empty())
    }

    fn difference(&mut self, family: Family, difference: &RuleDiff) -> io::Result<()> {
        self.header(format_args!("{family}/{}", difference.owner))?;
        difference.chains.iter().try_for_each(|chain| self.chain(chain))
    }

    fn chain(&mut self, chain: &ChainDiff) -> io::Result<()> {
        let remark = match (&chain.actual, &chain.desired) {
            (None, _) => " (the chain is missing)",
            (_, None) => " (the chain is not wanted)",
            _ => "",
        };
        let section = format!("{} {}{remark}", chain.table, chain.chain);
        let lines = |lines: &Option<Vec<_>>| lines.clone().unwrap_or_default();
        self.section(&lines(&chain.actual), &lines(&chain.desired), &section)
    }

    /// Prints the differences in the policy table of a family. Returns true if there are any.
    fn policies(
        &mut self,
        family: TableFamily,
        differences: &[policy_table::TableDifference],
    ) -> io::Result<bool> {
        if !differences.is_empty() {
            self.header(format_args!("{} {TABLE}", family.as_str()))?;
        }
        for policy_table::TableDifference { object, comment, actual, desired } in differences {
            let remark = match (actual, desired) {
                (None, _) => " (is missing)",
                (_, None) => " (is not wanted)",
                _ => "",
            };
            let comment = comment.as_ref().map(|comment| format!(": {comment}")).unwrap_or_default();
            let lines = |lines: &Option<Vec<String>>| lines.clone().unwrap_or_default();
            self.section(&lines(actual), &lines(desired), &format!("{object}{comment}{remark}"))?;
        }
        Ok(!differences.is_empty())
    }

    /// Prints the differences of the pod network. Returns true if there are any.
    fn pod_network(&mut self, differences: &[PodNetworkDifference]) -> io::Result<bool> {
        let mut last = None;
        for PodNetworkDifference { subject, object, found, wanted } in differences {
            if last != Some(subject) {
                self.header(subject)?;
            }
            last = Some(subject);
            self.section(found, wanted, object)?;
        }
        Ok(!differences.is_empty())
    }

    /// Prints the header of a Service whose objects differ.
    pub(crate) fn owner(&mut self, difference: &ObjectDifference) -> io::Result<()> {
        match &difference.service {
            Some(service) => self.header(service),
            None => self.header("objects of no Service"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_modes::iptables::Table;

    fn set(text: &str) -> RuleSet {
        let mut set = RuleSet::default();
        let chains = set.tables.entry(Table::Nat).or_default();
        for line in text.lines() {
            match line.strip_prefix(':') {
                Some(chain) => drop(chains.entry(chain.to_owned()).or_default()),
                None => {
                    let chain = line.split(' ').nth(1).expect("-A CHAIN");
                    chains.entry(chain.to_owned()).or_default().push(line.to_owned());
                }
            }
        }
        set
    }

    fn printed(wanted: &str, found: &str, colour: bool) -> String {
        let mut out = Vec::new();
        let mut printer = DiffPrinter::Text { out: &mut out, colour };
        printer.rules(Family::V4, &set(wanted), &set(found)).expect("writing to memory");
        String::from_utf8(out).expect("it is text")
    }

    const WANTED: &str = "\
:KUBE-PROXY-CANARY
-A KUBE-SERVICES -d 10.96.0.1/32 -m comment --comment \"default/web:http cluster IP\" -j KUBE-SVC-A
-A KUBE-SERVICES -d 10.96.0.2/32 -m comment --comment \"default/dns cluster IP\" -j KUBE-SVC-B
-A KUBE-SVC-A -m comment --comment \"default/web:http -> 10.0.0.1:80\" -j KUBE-SEP-A1
-A KUBE-SVC-A -m comment --comment \"default/web:http -> 10.0.0.2:80\" -j KUBE-SEP-A2
-A KUBE-SVC-B -m comment --comment \"default/dns -> 10.0.0.3:53\" -j KUBE-SEP-B1
-A KUBE-SEP-A1 -j DNAT --to-destination 10.0.0.1:80
-A KUBE-SEP-A2 -j DNAT --to-destination 10.0.0.2:80";

    #[test]
    fn differences_are_printed_as_a_unified_diff() {
        let found = WANTED
            .replace(":KUBE-PROXY-CANARY\n", "")
            .replace("10.0.0.1:80\" -j KUBE-SEP-A1", "10.0.0.9:80\" -j KUBE-SEP-A9")
            .replace("-A KUBE-SEP-A1 -j DNAT --to-destination 10.0.0.1:80\n", "");
        assert_eq!(
            printed(WANTED, &found, false),
            "\
--- kernel/IPv4/base rules
+++ wanted/IPv4/base rules
@@ -0,0 +0,0 @@ nat KUBE-PROXY-CANARY (the chain is missing)
--- kernel/IPv4/default/web
+++ wanted/IPv4/default/web
@@ -0,0 +1 @@ nat KUBE-SEP-A1 (the chain is missing)
+-A KUBE-SEP-A1 -j DNAT --to-destination 10.0.0.1:80
@@ -1,2 +1,2 @@ nat KUBE-SVC-A
--A KUBE-SVC-A -m comment --comment \"default/web:http -> 10.0.0.9:80\" -j KUBE-SEP-A9
+-A KUBE-SVC-A -m comment --comment \"default/web:http -> 10.0.0.1:80\" -j KUBE-SEP-A1
 -A KUBE-SVC-A -m comment --comment \"default/web:http -> 10.0.0.2:80\" -j KUBE-SEP-A2
"
        );
        assert_eq!(printed(WANTED, WANTED, false), "");
    }

    #[test]
    fn colours_do_not_change_the_text() {
        let found = WANTED.replace("10.0.0.2", "10.0.0.8");
        let coloured = printed(WANTED, &found, true);
        assert!(coloured.contains("\x1b[31m-") && coloured.contains("\x1b[32m+"), "{coloured}");
        let mut plain = coloured;
        for code in ["\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[36m"] {
            plain = plain.replace(code, "");
        }
        assert_eq!(plain, printed(WANTED, &found, false));
    }
}
