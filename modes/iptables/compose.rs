//! The text of a bulk write.

use std::io::{self, Write};

use super::bulk::{Execution, Parts};
use super::chain::{ChainName, SharedChain, Table};
use super::family_sync::IptablesFamilySync;
use super::kernel::Flavour;
use super::plan::{Known, base_differs};
use super::script::Script;
use super::service_rules::ServiceRules;
use super::snapshot::Snapshot;

/// The text held back before it is handed to the tool, in bytes.
const STREAM_BYTES: usize = 64 * 1024;

/// A chain that nothing leads to and that is gone with the restore that makes it: rules are tried in it.
const TRIAL: &str = "KUBE-PROXY-TRIAL";

impl IptablesFamilySync {
    pub(super) fn compose(
        &self,
        execution: &Execution<'_>,
        parts: &Parts<'_>,
        script: &mut Script,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        for table in [Table::Mangle, Table::Filter, Table::Nat] {
            script.begin_table(table);
            script.owner(None);
            if let (Known::Read(snapshot), true) = (&execution.plan.known, parts.base) {
                self.compose_base(table, snapshot, script);
            }
            self.compose_services(table, execution, parts, script, out)?;
            script.owner(None);
            for chain in SharedChain::ALL.into_iter().filter(|c| c.table() == table && parts.shared) {
                self.compose_shared(chain, execution, parts, script, out)?;
            }
            if table == Table::Nat {
                self.compose_removals(execution, parts, script);
            }
            script.end_table();
            script.drain(out)?;
        }
        Ok(())
    }

    fn compose_base(&self, table: Table, snapshot: &Snapshot, script: &mut Script) {
        for chain in SharedChain::ALL.into_iter().filter(|c| c.table() == table) {
            if snapshot.chain(table, chain.name()).is_none() {
                script.declare(chain.name());
            }
        }
        for chain in self.base.chains.iter().filter(|c| c.table == table && base_differs(c, snapshot)) {
            script.declare(chain.name);
            script.lines(&chain.lines);
        }
        // Each goes to the top, so the last written is the first.
        for jump in self.base.jumps.iter().rev().filter(|j| j.table == table) {
            if !snapshot.has_rule(table, jump.from, &jump.rule) {
                script.insert_first(jump.from, &jump.rule);
            }
        }
    }

    fn compose_services(
        &self,
        table: Table,
        execution: &Execution<'_>,
        parts: &Parts<'_>,
        script: &mut Script,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let plan = execution.plan;
        if table == Table::Nat && parts.ports.is_none() {
            // Both tools keep chains sorted: to declare them so takes a fifth to a half less.
            for (chain, i) in plan.declared.iter().filter(|(_, i)| parts.services.contains(i)) {
                if !execution.refused.contains(&plan.services[*i].name) {
                    script.owner(Some(*i));
                    script.declare(chain);
                }
            }
        }
        let tries = self.tries_shared(execution);
        let mut tried = false;
        for i in parts.services.clone() {
            let service = &plan.services[i];
            if execution.refused.contains(&service.name) || !self.has_lines(execution, service) {
                continue;
            }
            let Some(ports) = &service.ports else { continue };
            let ports = parts.ports_of(ports);
            let rules = self.renderer.service(ports, service.large);
            script.owner(Some(i));
            if table == Table::Nat {
                let old = match &plan.known {
                    Known::Read(_) => ServiceRules::default(),
                    Known::Programmed => self.programmed_rules_of(&service.name, ports),
                };
                let old = old.by_name();
                let right = |chain: ChainName, lines: &str| match &plan.known {
                    Known::Read(snapshot) => snapshot.holds(chain, lines),
                    Known::Programmed => old.get(&chain) == Some(&lines),
                };
                let wrong: Vec<_> = rules.chains().filter(|(chain, lines)| !right(*chain, lines)).collect();
                if parts.ports.is_some() {
                    let mut declared: Vec<ChainName> = wrong.iter().map(|(chain, _)| *chain).collect();
                    declared.sort_unstable();
                    declared.iter().for_each(|chain| script.declare(chain));
                }
                wrong.iter().for_each(|(_, lines)| script.lines(lines));
            }
            let written_anew = |chain: &SharedChain| chain.table() == table && plan.shared[chain.at()];
            for chain in SharedChain::ALL.into_iter().filter(|chain| tries && written_anew(chain)) {
                for rule in rules.shared(chain) {
                    if !std::mem::replace(&mut tried, true) {
                        script.declare(TRIAL);
                    }
                    script.try_rule(TRIAL, rule);
                }
            }
            if script.bytes() > STREAM_BYTES {
                script.drain(out)?;
            }
        }
        if tried {
            script.owner(None);
            script.declare(TRIAL);
            script.delete_chain(ChainName::new(TRIAL).expect("it is short"));
        }
        Ok(())
    }

    fn compose_shared(
        &self,
        chain: SharedChain,
        execution: &Execution<'_>,
        parts: &Parts<'_>,
        script: &mut Script,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        if !execution.plan.shared[chain.at()] {
            return Ok(());
        }
        script.declare(chain.name());
        for rules in self.shared_rules_to_write(execution, parts, chain).map(|(_, rules)| rules) {
            rules.shared(chain).for_each(|rule| script.append(chain.name(), rule));
            if script.bytes() > STREAM_BYTES {
                script.drain(out)?;
            }
        }
        if chain == SharedChain::NatServices {
            self.base.tail.iter().for_each(|rule| script.append(chain.name(), rule));
        }
        Ok(())
    }
}

impl IptablesFamilySync {
    fn compose_removals(&self, execution: &Execution<'_>, parts: &Parts<'_>, script: &mut Script) {
        // What a refused Service last had may still be led to, and is not known by name after a restart.
        let unsure = matches!(execution.plan.known, Known::Read(_)) && !execution.refused.is_empty();
        let mut chains: Vec<ChainName> = if unsure { Vec::new() } else { parts.removals.to_vec() };
        if self.kernel.flavour() == Flavour::Legacy {
            let services = &execution.plan.services[parts.services.clone()];
            let kept = services.iter().filter(|s| !execution.refused.contains(&s.name));
            chains.extend(kept.flat_map(|s| s.removals.iter().copied()));
        }
        // All are emptied before any is deleted, as they may refer to each other.
        chains.iter().for_each(|chain| script.declare(chain));
        chains.iter().for_each(|chain| self.in_use.delete(script, *chain));
    }
}
