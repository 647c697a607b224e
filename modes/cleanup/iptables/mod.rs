//! Removal of iptables rules: jumps from built-in chains, and chains.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use portcullis_cluster::Family;

use super::active_rules::ActiveRules;
use super::chain_names::{FILTER, FIREWALL, KUBELET_CHAINS, MANGLE, NAT};
use super::result::{Action, CleanupResult, IptablesLocation, RemovedObject};
use super::tools::tools_for;
use crate::iptables::ToolError;
use crate::iptables::saved_rule::{SavedRule, declared_chain};
use crate::iptables::{Flavour, IptablesKernel, Table, is_service_chain};

/// The number of chains per restore with the nft flavour, where a restore's cost grows faster than its number of
/// chains.
const CHAINS_AT_ONCE: usize = 2000;

/// The number of attempts: another process may write at the same time, and a chain in use shows only when its deletion
/// is rejected.
const ATTEMPTS: usize = 5;

/// Removes, or only finds, the rules of all modes, except those of the active mode. With `keeps_firewall` the chain
/// that drops packets to loopback addresses stays, as it does if a kubelet uses it.
pub(super) fn clean(
    result: &mut CleanupResult,
    active: Option<&ActiveRules>,
    action: Action,
    keeps_firewall: bool,
) {
    for flavour in [Flavour::Nft, Flavour::Legacy] {
        let of_flavour = active.filter(|active| active.flavour == flavour);
        let Some(tools) = tools_for(flavour, result) else { continue };
        for family in Family::BOTH {
            let kernel = tools.kernel(family);
            // A node may have many rules; one small table shows if all must be read.
            if active.is_some() && !has_leftovers(&*kernel, of_flavour) {
                continue;
            }
            let mut has_kubelet = keeps_firewall;
            for table in [Table::Mangle, Table::Filter, Table::Nat] {
                let location = IptablesLocation { flavour, family, table };
                let remover = Remover {
                    kernel: &*kernel,
                    location,
                    has_kubelet,
                    active: of_flavour,
                    kept: BTreeMap::new(),
                    emptied: BTreeSet::new(),
                };
                let outcome = match action {
                    Action::Remove => remover.remove(result),
                    Action::Find => remover.find(result),
                };
                match outcome {
                    Ok(found) => has_kubelet |= found,
                    Err(error) => result.add_failure(location, error),
                }
            }
        }
    }
}

/// Returns true if there are chains of another mode than the active one.
fn has_leftovers(kernel: &dyn IptablesKernel, active: Option<&ActiveRules>) -> bool {
    let is_other = |name: &str| match active {
        Some(active) => active.indicates_other_mode(name),
        None => FILTER.contains(&name),
    };
    let mut found = false;
    let dumped = kernel.dump_without(Table::Filter, &|_| true, &mut |line| {
        found |= declared_chain(line).is_some_and(is_other);
    });
    // If the table cannot be read, the full pass reports the failure.
    found || dumped.is_err()
}

/// The parts of a table's content that a cleanup needs.
#[derive(Default)]
struct TableContents {
    /// Chains to remove.
    chains: BTreeSet<String>,
    /// Rules of built-in chains that jump to them.
    jumps: Vec<String>,
    /// Rules of other chains that jump to them, by target chain.
    other_references: BTreeMap<String, Vec<String>>,
    /// There are chains that only a kubelet creates.
    has_kubelet: bool,
    /// Rules of other programs that match against a set of IPVS mode, by the name of the set.
    sets_in_use: BTreeMap<String, String>,
}

/// The cleanup of one table.
struct Remover<'a> {
    kernel: &'a dyn IptablesKernel,
    location: IptablesLocation,
    /// A kubelet uses this flavour and family.
    has_kubelet: bool,
    /// The rules of the active mode, which stay.
    active: Option<&'a ActiveRules>,
    /// Chains in use by other programs, each with the reason that it stays.
    kept: BTreeMap<String, String>,
    /// Chains that were emptied.
    emptied: BTreeSet<String>,
}

impl Remover<'_> {
    /// Removes the rules. Returns true if a kubelet uses the table.
    fn remove(mut self, result: &mut CleanupResult) -> Result<bool, ToolError> {
        let before = self.read()?;
        let (mut after, mut outcome) = (None, Ok(()));
        for attempt in 0..ATTEMPTS {
            let contents = after.as_ref().unwrap_or(&before);
            self.keep_chains_in_use(contents);
            if self.is_finished(contents) {
                break;
            }
            outcome = self.write(contents, attempt > 0);
            after = Some(self.read()?);
        }
        let after = after.as_ref().unwrap_or(&before);
        self.report(&before, after, outcome, result);
        Ok(before.has_kubelet)
    }

    /// Finds the rules that [`Remover::remove`] would remove. Returns true if a kubelet uses the table.
    fn find(mut self, result: &mut CleanupResult) -> Result<bool, ToolError> {
        let contents = self.read()?;
        self.keep_chains_in_use(&contents);
        let chains = contents.chains.iter().filter(|name| !self.kept.contains_key(*name)).count();
        self.report_removed(contents.jumps.len(), chains, result);
        for (chain, reason) in &self.kept {
            result.add_failure(
                format_args!("{}: chain {chain}", self.location),
                format_args!("it would be emptied, but is {reason}; delete that rule first"),
            );
        }
        result.sets_in_use.extend(contents.sets_in_use);
        Ok(contents.has_kubelet)
    }

    fn read(&self) -> Result<TableContents, ToolError> {
        let mut contents = TableContents::default();
        let table = self.location.table;
        // The rules of chains to remove are removed with them, whatever they are.
        self.kernel.dump_without(table, &|name| self.is_removed(name), &mut |line| {
            if let Some(name) = declared_chain(line) {
                contents.has_kubelet |= table == Table::Mangle && KUBELET_CHAINS.contains(&name);
                if self.is_removed(name) {
                    contents.chains.insert(name.to_owned());
                }
            } else if let Some(rule) = SavedRule::parse(line).filter(|rule| !self.is_removed(rule.chain)) {
                let target = rule.target().filter(|target| self.is_proxy_chain(target));
                if let Some(target) = target {
                    if table.built_in().contains(&rule.chain) {
                        if !self.active.is_some_and(|active| active.has_jump(table, line)) {
                            contents.jumps.push(line.to_owned());
                        }
                    } else if self.is_removed(target) {
                        contents.other_references.entry(target.to_owned()).or_default().push(line.to_owned());
                    }
                } else if let Some(set) = matched_set(line) {
                    contents.sets_in_use.entry(set.to_owned()).or_insert_with(|| line.trim_end().to_owned());
                }
            }
        })?;
        Ok(contents)
    }

    /// Returns true if a chain is to be removed.
    fn is_removed(&self, name: &str) -> bool {
        let table = self.location.table;
        self.is_proxy_chain(name) && !self.active.is_some_and(|active| active.has_chain(table, name))
    }

    fn is_proxy_chain(&self, name: &str) -> bool {
        match self.location.table {
            Table::Filter => FILTER.contains(&name) || (name == FIREWALL && !self.has_kubelet),
            Table::Mangle => MANGLE.contains(&name),
            // Before 1.27, chains for traffic policy Local had the prefix KUBE-XLB-.
            Table::Nat => NAT.contains(&name) || is_service_chain(name) || name.starts_with("KUBE-XLB-"),
        }
    }

    fn keep_chains_in_use(&mut self, contents: &TableContents) {
        for (chain, rules) in &contents.other_references {
            self.kept.insert(chain.clone(), format!("used by {}", rules.join(", and by ")));
        }
    }

    /// Returns true if there is nothing to remove: no jumps, and only chains that are in use and were emptied.
    fn is_finished(&self, contents: &TableContents) -> bool {
        let is_done = |name: &String| self.emptied.contains(name) && self.kept.contains_key(name);
        contents.jumps.is_empty() && contents.chains.iter().all(is_done)
    }

    /// Writes the removal in one restore, or in several with the nft flavour. There, the deletion of a rule by its text
    /// makes the tool read the rules of all chains, in quadratic time for the rules of one chain, so jumps are deleted
    /// before without the tool, or in a restore of their own. `careful` empties all chains before the first deletion, so
    /// that references among them do not matter.
    fn write(&mut self, contents: &TableContents, careful: bool) -> Result<(), ToolError> {
        let mut chains: Vec<&str> = contents.chains.iter().map(String::as_str).collect();
        chains.sort_by_key(|name| (rank(name), *name));
        let at_once = match self.location.flavour {
            Flavour::Nft => CHAINS_AT_ONCE,
            Flavour::Legacy => chains.len().max(1),
        };
        let mut jumps = contents.jumps.as_slice();
        if self.location.flavour == Flavour::Nft && !jumps.is_empty() {
            let jumps = std::mem::take(&mut jumps);
            if !self.kernel.delete_jumps(self.location.table, jumps) {
                self.restore(jumps, &[], &BTreeSet::new())?;
            }
        }
        if careful && chains.len() > at_once {
            for piece in chains.chunks(at_once) {
                self.restore(std::mem::take(&mut jumps), piece, &BTreeSet::new())?;
            }
        }
        if chains.is_empty() && !jumps.is_empty() {
            return self.restore(jumps, &[], &BTreeSet::new());
        }
        for piece in chains.chunks(at_once) {
            let deleted = piece.iter().copied().filter(|name| !self.kept.contains_key(*name)).collect();
            self.restore(std::mem::take(&mut jumps), piece, &deleted)?;
        }
        Ok(())
    }

    /// Deletes jumps, empties chains, and deletes some of them. A chain that the tool names in its error is kept from
    /// then on.
    fn restore(
        &mut self,
        jumps: &[String],
        emptied: &[&str],
        deleted: &BTreeSet<&str>,
    ) -> Result<(), ToolError> {
        let mut emptied = emptied.to_vec();
        emptied.sort_unstable();
        let table = self.location.table;
        let result = self.kernel.restore(&mut |out| write_restore(out, table, jumps, &emptied, deleted));
        if result.is_ok() {
            self.emptied.extend(emptied.iter().map(|name| (*name).to_owned()));
        }
        if let Err(ToolError::Failed { line: Some(line), message, .. }) = &result {
            // The lines before the deletions: the table, the declarations, the jumps.
            let before = 1 + emptied.len() + jumps.len();
            let rejected = line.checked_sub(before + 1).and_then(|at| deleted.iter().nth(at));
            if let Some(chain) = rejected {
                self.kept.insert((*chain).to_owned(), format!("cannot be deleted: {message}"));
            }
        }
        result
    }

    fn report_removed(&self, jumps: usize, chains: usize, result: &mut CleanupResult) {
        if chains + jumps > 0 {
            result.removed.push(RemovedObject::Iptables { location: self.location, jumps, chains });
        }
    }

    /// Records the objects that are gone since the first reading, and those that remain.
    fn report(
        &self,
        before: &TableContents,
        after: &TableContents,
        outcome: Result<(), ToolError>,
        result: &mut CleanupResult,
    ) {
        let chains = before.chains.difference(&after.chains).count();
        let jumps = before.jumps.len().saturating_sub(after.jumps.len());
        self.report_removed(jumps, chains, result);
        for name in &after.chains {
            let what = format!("{}: chain {name}", self.location);
            match (self.kept.get(name), &outcome) {
                (Some(why), _) => result.add_failure(
                    what,
                    format_args!("it is empty now, but {why}; delete that rule and run cleanup again"),
                ),
                (None, Err(error)) => result.add_failure(what, error),
                (None, Ok(())) => {
                    result.add_failure(what, "another process creates it again; is a proxy still running?")
                }
            }
        }
        for jump in &after.jumps {
            let reason = match &outcome {
                Err(error) => error.to_string(),
                Ok(()) => "another process creates it again; is a proxy still running?".to_owned(),
            };
            result.add_failure(format_args!("{}: {jump}", self.location), reason);
        }
    }
}

/// Returns the set of a proxy that a rule matches against.
fn matched_set(rule: &str) -> Option<&str> {
    let (_, set) = rule.split_once("--match-set ")?;
    set.split(' ').next().filter(|name| name.starts_with("KUBE-"))
}

/// Returns the position of a chain in the order of deletion: chains that jump to other chains first.
fn rank(chain: &str) -> usize {
    let order = ["KUBE-FW-", "KUBE-XLB-", "KUBE-EXT-", "KUBE-SV", "KUBE-SEP-"];
    match order.iter().position(|prefix| chain.starts_with(prefix)) {
        Some(at) => 1 + at,
        None if chain == "KUBE-MARK-MASQ" => 1 + order.len(),
        // One of them is KUBE-SERVICES, which jumps to all Service chains.
        None => 0,
    }
}

fn write_restore(
    out: &mut dyn Write,
    table: Table,
    jumps: &[String],
    emptied: &[&str],
    deleted: &BTreeSet<&str>,
) -> io::Result<()> {
    writeln!(out, "*{table}")?;
    for chain in emptied {
        writeln!(out, ":{chain} - [0:0]")?;
    }
    for jump in jumps {
        let rule = jump.strip_prefix("-A ").unwrap_or(jump);
        writeln!(out, "-D {rule}")?;
    }
    for chain in deleted {
        writeln!(out, "-X {chain}")?;
    }
    writeln!(out, "COMMIT")
}

#[cfg(test)]
mod tests;
