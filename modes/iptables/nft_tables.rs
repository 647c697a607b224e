//! Rules of the nft tool by single chains: dumps without large chains, and deletion of jumps.
//!
//! The kernel takes quadratic time to list the rules of one chain: 10 s of processor time for 78,000 rules, which is several times what
//! the tool needs to write them. The tool lists all chains of a table for each dump, and for each deletion of a rule by its text.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_cluster::Family;
use portcullis_netlink::nf_tables::{self, ChainUse, Expression, ListedRule, TableFamily, Verdict};
use portcullis_netlink::socket::{NetlinkProtocol, Socket};

use super::chain::Table;
use super::error::ToolError;
use super::saved_rule::SavedRule;
use super::tool::Tools;

/// The time that the tool takes to list one chain, in microseconds of processor time: mostly its start.
const CHAIN_COST: u64 = 5_000;

/// The time that the tool takes for each listed rule.
const RULE_COST: u64 = 30;

/// The number of rules of one chain from which the kernel takes longer to list them than the tool to write them, which takes about 70 µs
/// each.
const COSTLY_RULES: u32 = 25_000;

/// The time for which a listing may take longer on a busy machine.
const PATIENCE: u32 = 10;

/// The number of pairs of rules of one chain for which the kernel takes a microsecond.
const PAIRS_IN_A_MICROSECOND: u64 = 600;

/// The table of a family, as nf_tables sees it.
pub(super) struct NftTable<'a> {
    pub(super) tools: &'a Tools,
    pub(super) family: Family,
    pub(super) table: Table,
}

impl NftTable<'_> {
    /// Returns the lines of a dump with the rules of the chains that are not skipped; `None` if a complete dump is cheaper, or if the
    /// chains change meanwhile.
    pub(super) fn lines_without(&self, is_skipped: &dyn Fn(&str) -> bool) -> Option<Vec<String>> {
        let chains = self.chains().ok()?;
        let (skipped, listed): (Vec<&ChainUse>, Vec<&ChainUse>) =
            chains.iter().partition(|chain| is_skipped(&chain.name));
        if cost_of_listing(&skipped) <= listed.len() as u64 * CHAIN_COST {
            return None;
        }
        let mut lines: Vec<String> = chains.iter().map(|chain| format!(":{} - [0:0]", chain.name)).collect();
        for chain in listed {
            lines.extend(self.rules_of(&chain.name).ok()?);
        }
        Some(lines)
    }

    /// Returns true if the tool takes longer to list our chains than to write them.
    pub(super) fn is_costly_to_list(&self) -> bool {
        let is_costly = |chain: &ChainUse| chain.uses > COSTLY_RULES && chain.name.starts_with("KUBE-");
        self.chains().is_ok_and(|chains| chains.iter().any(is_costly))
    }

    /// Returns the time for which the tool may print nothing while it lists the table: it reads all rules first.
    pub(super) fn listing_time(&self) -> Duration {
        let chains = self.chains().unwrap_or_default();
        Duration::from_micros(cost_of_listing(&chains.iter().collect::<Vec<_>>())) * PATIENCE
    }

    /// Deletes rules that jump to other chains, given as lines of a dump. Returns false, and deletes none, if it is uncertain which
    /// ones they are.
    pub(super) fn delete_jumps(&self, jumps: &[String]) -> bool {
        let deleted = self.find_jumps(jumps).and_then(|handles| {
            let handles = handles.iter().map(|(chain, handle)| (chain.as_str(), *handle));
            let deleted = nf_tables::delete_rules(
                &mut socket().ok()?,
                self.kernel_family(),
                self.table.as_str(),
                handles,
            );
            deleted.inspect_err(|error| tracing::debug!(%error, "cannot delete jumps by handle")).ok()
        });
        deleted.is_some()
    }

    /// Returns the chain and handle of each jump. The tool lists the rules of a chain in the order in which the kernel does.
    fn find_jumps(&self, jumps: &[String]) -> Option<Vec<(String, u64)>> {
        let mut socket = socket().ok()?;
        let generation = nf_tables::generation(&mut socket).ok()?;
        let mut by_chain: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for jump in jumps {
            by_chain.entry(SavedRule::parse(jump)?.chain).or_default().push(jump.trim_end());
        }
        let mut handles = Vec::new();
        for (chain, jumps) in by_chain {
            let lines = self.rules_of(chain).ok()?;
            let rules =
                nf_tables::rules_of_chain(&mut socket, self.kernel_family(), self.table.as_str(), chain)
                    .ok()?;
            if lines.len() != rules.len() {
                return None;
            }
            let mut rest: Vec<(&str, &ListedRule)> =
                lines.iter().map(|line| line.trim_end()).zip(&rules).collect();
            for jump in jumps {
                let at = rest.iter().position(|(line, _)| *line == jump)?;
                let (_, rule) = rest.remove(at);
                if target_of(rule) != SavedRule::parse(jump)?.target() {
                    return None;
                }
                handles.push((chain.to_owned(), rule.handle));
            }
        }
        (nf_tables::generation(&mut socket).ok()? == generation).then_some(handles)
    }

    /// Returns the rules of a chain as lines of a dump.
    fn rules_of(&self, chain: &str) -> Result<Vec<String>, ToolError> {
        let mut rules = Vec::new();
        self.tools.list_chain(self.family, self.table, chain, &mut |line| {
            if line.starts_with("-A ") {
                rules.push(line.to_owned());
            }
        })?;
        Ok(rules)
    }

    fn chains(&self) -> portcullis_netlink::Result<Vec<ChainUse>> {
        let mut chains = Vec::new();
        nf_tables::list_chains(&mut socket()?, self.kernel_family(), |chain| {
            if chain.table == self.table.as_str() {
                chains.push(chain);
            }
        })?;
        Ok(chains)
    }

    fn kernel_family(&self) -> TableFamily {
        match self.family {
            Family::V4 => TableFamily::Ip,
            Family::V6 => TableFamily::Ip6,
        }
    }
}

fn socket() -> portcullis_netlink::Result<Socket> {
    Socket::open(NetlinkProtocol::Netfilter)
}

/// Returns the time in microseconds for which the tool and the kernel list the rules of these chains.
fn cost_of_listing(chains: &[&ChainUse]) -> u64 {
    let cost = |rules: u64| rules * RULE_COST + rules * rules / PAIRS_IN_A_MICROSECOND;
    chains.iter().map(|chain| cost(u64::from(chain.uses))).sum()
}

fn target_of(rule: &ListedRule) -> Option<&str> {
    rule.rule.expressions().iter().find_map(|expression| match expression {
        Expression::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => Some(&**chain),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_large_chain_costs_more_than_many_small_ones() {
        let chain = |uses| ChainUse { uses, ..ChainUse::default() };
        let cost = |chains: &[ChainUse]| cost_of_listing(&chains.iter().collect::<Vec<_>>());
        // Measured: 10 s for 78,000 rules of one chain.
        assert!((10_000_000..14_000_000).contains(&cost(&[chain(78_000)])), "{}", cost(&[chain(78_000)]));
        assert!(cost(&vec![chain(2); 39_000]) < 3_000_000);
        assert!(cost(&vec![chain(3); 50]) < 5 * CHAIN_COST, "the table of a small node is read as a whole");
    }
}
