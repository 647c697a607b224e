//! What modes that use iptables leave: jumps from built-in chains, and chains.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use portcullis_cluster::Family;
use portcullis_netlink::{nf_tables, xtables};

use super::standing::Standing;
use super::{Cleanup, Doing, IptablesPlace, Removed};
use crate::iptables::saved_rule::{SavedRule, declared_chain};
use crate::iptables::{Flavour, IptablesKernel, Table, Tools, is_service_chain};
use crate::mode::SyncError;

/// Chains of kube-proxy's in table filter, of all its modes and versions.
pub(super) const FILTER: [&str; 10] = [
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-FORWARD",
    "KUBE-PROXY-FIREWALL",
    "KUBE-PROXY-CANARY",
    "KUBE-NODE-PORT",
    "KUBE-SOURCE-RANGES-FIREWALL",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
];

/// The same in table nat, beside those of Services.
const NAT: [&str; 8] = [
    "KUBE-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-POSTROUTING",
    "KUBE-PROXY-CANARY",
    "KUBE-NODE-PORT",
    "KUBE-LOAD-BALANCER",
    "KUBE-FIRE-WALL",
    "KUBE-MARK-MASQ",
];

/// The same in table mangle.
const MANGLE: [&str; 1] = ["KUBE-PROXY-CANARY"];

/// A chain that kubelet and proxy both make, alike. It goes only where no kubelet works.
const FIREWALL: &str = "KUBE-FIREWALL";

/// What a kubelet leaves in table mangle.
const KUBELET: [&str; 2] = ["KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT"];

/// On the nft flavour, a restore takes longer than in proportion to its chains.
const CHAINS_AT_ONCE: usize = 2000;

/// Others may write at the same time, and a chain that turns out to be in use is found by trying.
const ATTEMPTS: usize = 5;

/// Removes all rules of any mode, or all but those that are to stay; or only looks what that would be. `keeps_firewall`:
/// the chain that guards loopback addresses stays, as it does where a kubelet works.
pub(super) fn go_over(done: &mut Cleanup, standing: Option<&Standing>, doing: Doing, keeps_firewall: bool) {
    for flavour in [Flavour::Nft, Flavour::Legacy] {
        let stays = standing.filter(|standing| standing.flavour == flavour);
        let Some(tools) = tools_of(flavour, done) else { continue };
        for family in Family::BOTH {
            let kernel = tools.kernel(family);
            // A node's rules may be many, and it is a look at one small table that tells whether to read them all.
            if standing.is_some() && !has_leftovers(&*kernel, stays) {
                continue;
            }
            let mut kubelet = keeps_firewall;
            for table in [Table::Mangle, Table::Filter, Table::Nat] {
                let place = IptablesPlace { flavour, family, table };
                let remover = Remover { kernel: &*kernel, place, kubelet, stays, kept: BTreeMap::new() };
                let ran = match doing {
                    Doing::Remove => remover.run(done),
                    Doing::Look => remover.look(done),
                };
                match ran {
                    Ok(found_kubelet) => kubelet |= found_kubelet,
                    Err(error) => done.left(place, error),
                }
            }
        }
    }
}

/// The tools of a flavour, where the kernel has it. Tells of tables that cannot be looked at without.
pub(super) fn tools_of(flavour: Flavour, done: &mut Cleanup) -> Option<Tools> {
    if flavour == Flavour::Nft && matches!(nf_tables::open(), Ok(None)) {
        return None; // the tools would only complain
    }
    match Tools::of_flavour(flavour) {
        Ok(tools) => Some(tools),
        Err(error) => {
            tracing::debug!(?flavour, %error, "no tools of this flavour");
            if flavour == Flavour::Legacy && legacy_tables_exist() {
                done.left("legacy tables of iptables", error);
            }
            None
        }
    }
}

/// Whether somebody served by rules other than those that are to stay.
fn has_leftovers(kernel: &dyn IptablesKernel, stays: Option<&Standing>) -> bool {
    let is_mark = |name: &str| match stays {
        Some(standing) => standing.is_mark_of_others(name),
        None => FILTER.contains(&name),
    };
    let mut found = false;
    let dumped = kernel.dump(Table::Filter, &mut |line| {
        found |= declared_chain(line).is_some_and(is_mark);
    });
    // What cannot be looked at is looked at in full, and the failure is told.
    found || dumped.is_err()
}

fn legacy_tables_exist() -> bool {
    let families = portcullis_netlink::Family::ALL;
    families.into_iter().any(|family| xtables::tables(family).is_ok_and(|tables| !tables.is_empty()))
}

/// What is in a table, as far as it matters.
#[derive(Default)]
struct Survey {
    /// Chains of a proxy's, each with the number of its rules.
    chains: BTreeMap<String, usize>,
    /// Rules of built-in chains that lead to them.
    jumps: Vec<String>,
    /// Rules of other chains that do, by the chain that they lead to.
    foreign: BTreeMap<String, Vec<String>>,
    /// There are chains that only a kubelet makes.
    kubelet: bool,
}

/// Clears one table.
struct Remover<'a> {
    kernel: &'a dyn IptablesKernel,
    place: IptablesPlace,
    /// A kubelet works with this flavour and family.
    kubelet: bool,
    /// The rules that are not to be touched.
    stays: Option<&'a Standing>,
    /// Chains that others use, and who.
    kept: BTreeMap<String, String>,
}

impl Remover<'_> {
    /// Clears the table, and says whether a kubelet was seen in it.
    fn run(mut self, done: &mut Cleanup) -> Result<bool, SyncError> {
        let before = self.survey()?;
        let (mut after, mut outcome) = (None, Ok(()));
        for attempt in 0..ATTEMPTS {
            let survey = after.as_ref().unwrap_or(&before);
            self.keep_what_others_use(survey);
            if self.is_clear(survey) {
                break;
            }
            outcome = self.write(survey, attempt > 0);
            after = Some(self.survey()?);
        }
        let after = after.as_ref().unwrap_or(&before);
        self.report(&before, after, outcome, done);
        Ok(before.kubelet)
    }

    /// Tells what [`Remover::run`] would remove, and whether a kubelet was seen in the table.
    fn look(self, done: &mut Cleanup) -> Result<bool, SyncError> {
        let survey = self.survey()?;
        self.report(&survey, &Survey::default(), Ok(()), done);
        Ok(survey.kubelet)
    }

    fn survey(&self) -> Result<Survey, SyncError> {
        let mut survey = Survey::default();
        let table = self.place.table;
        self.kernel.dump(table, &mut |line| {
            if let Some(name) = declared_chain(line) {
                survey.kubelet |= table == Table::Mangle && KUBELET.contains(&name);
                if self.is_ours(name) {
                    survey.chains.insert(name.to_owned(), 0);
                }
            } else if let Some(rule) = SavedRule::parse(line) {
                if let Some(rules) = survey.chains.get_mut(rule.chain) {
                    *rules += 1;
                } else if let Some(target) = rule.target().filter(|target| self.is_a_proxys(target)) {
                    if table.built_in().contains(&rule.chain) {
                        if !self.stays.is_some_and(|standing| standing.has_jump(table, line)) {
                            survey.jumps.push(line.to_owned());
                        }
                    } else if self.is_ours(target) {
                        survey.foreign.entry(target.to_owned()).or_default().push(line.to_owned());
                    }
                }
            }
        })?;
        Ok(survey)
    }

    /// Whether a chain is to go.
    fn is_ours(&self, name: &str) -> bool {
        let table = self.place.table;
        self.is_a_proxys(name) && !self.stays.is_some_and(|standing| standing.has_chain(table, name))
    }

    fn is_a_proxys(&self, name: &str) -> bool {
        match self.place.table {
            Table::Filter => FILTER.contains(&name) || (name == FIREWALL && !self.kubelet),
            Table::Mangle => MANGLE.contains(&name),
            // Before 1.27, policy Local had chains called XLB.
            Table::Nat => NAT.contains(&name) || is_service_chain(name) || name.starts_with("KUBE-XLB-"),
        }
    }

    fn keep_what_others_use(&mut self, survey: &Survey) {
        for (chain, rules) in &survey.foreign {
            self.kept.insert(chain.clone(), format!("used by {}", rules.join(", and by ")));
        }
    }

    /// Whether there is nothing left to do: no jumps, and no chains but empty ones that are kept.
    fn is_clear(&self, survey: &Survey) -> bool {
        survey.jumps.is_empty()
            && survey.chains.iter().all(|(name, rules)| *rules == 0 && self.kept.contains_key(name))
    }

    /// Writes one restore, or several on the nft flavour: there a deletion by its rule makes the tool read the rules of all
    /// chains that the restore names, in quadratic time for those of one chain, so jumps go alone. `careful` empties all chains before it deletes the
    /// first: then it does not matter who leads to whom.
    fn write(&mut self, survey: &Survey, careful: bool) -> Result<(), SyncError> {
        let mut chains: Vec<&str> = survey.chains.keys().map(String::as_str).collect();
        chains.sort_by_key(|name| (rank(name), *name));
        let at_once = match self.place.flavour {
            Flavour::Nft => CHAINS_AT_ONCE,
            Flavour::Legacy => chains.len().max(1),
        };
        let mut jumps = survey.jumps.as_slice();
        if self.place.flavour == Flavour::Nft && !jumps.is_empty() {
            self.restore(std::mem::take(&mut jumps), &[], &BTreeSet::new())?;
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

    /// Deletes jumps, empties chains, and deletes those that are to be. A chain that the tool blames is kept
    /// from then on.
    fn restore(
        &mut self,
        jumps: &[String],
        emptied: &[&str],
        deleted: &BTreeSet<&str>,
    ) -> Result<(), SyncError> {
        let mut emptied = emptied.to_vec();
        emptied.sort_unstable();
        let table = self.place.table;
        let result = self.kernel.restore(&mut |out| write_restore(out, table, jumps, &emptied, deleted));
        if let Err(SyncError::Rejected { line: Some(line), message, .. }) = &result {
            // Before the deletions: the table, the declarations, the jumps.
            let before = 1 + emptied.len() + jumps.len();
            let blamed = line.checked_sub(before + 1).and_then(|at| deleted.iter().nth(at));
            if let Some(chain) = blamed {
                self.kept.insert((*chain).to_owned(), format!("cannot be deleted: {message}"));
            }
        }
        result
    }

    /// Tells what went between two surveys, and what stayed.
    fn report(&self, before: &Survey, after: &Survey, outcome: Result<(), SyncError>, done: &mut Cleanup) {
        let chains = before.chains.keys().filter(|name| !after.chains.contains_key(*name)).count();
        let jumps = before.jumps.len().saturating_sub(after.jumps.len());
        if chains + jumps > 0 {
            done.removed.push(Removed::Iptables { place: self.place, jumps, chains });
        }
        for name in after.chains.keys() {
            let what = format!("{}: chain {name}", self.place);
            match (self.kept.get(name), &outcome) {
                (Some(why), _) => done
                    .left(what, format_args!("it is empty now, but {why}; delete that, and clean up again")),
                (None, Err(error)) => done.left(what, error),
                (None, Ok(())) => done.left(what, "somebody makes it again; is a proxy still running?"),
            }
        }
        for jump in &after.jumps {
            let reason = match &outcome {
                Err(error) => error.to_string(),
                Ok(()) => "somebody makes it again; is a proxy still running?".to_owned(),
            };
            done.left(format_args!("{}: {jump}", self.place), reason);
        }
    }
}

/// Those that lead to others come first.
fn rank(chain: &str) -> usize {
    let order = ["KUBE-FW-", "KUBE-XLB-", "KUBE-EXT-", "KUBE-SV", "KUBE-SEP-"];
    match order.iter().position(|prefix| chain.starts_with(prefix)) {
        Some(at) => 1 + at,
        None if chain == "KUBE-MARK-MASQ" => 1 + order.len(),
        // Among them KUBE-SERVICES, which leads to all.
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
