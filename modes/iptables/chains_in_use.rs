//! Chains of Services to which rules of another process jump.
//!
//! The tool rejects the deletion of such a chain, and with it the whole restore. So that its Service can still be
//! updated, the chain is emptied and kept until no rule jumps to it any more.

use std::collections::BTreeSet;

use portcullis_cluster::Family;

use super::chain::{ChainName, Table, is_service_chain};
use super::error::ToolError;
use super::kernel::IptablesKernel;
use super::script::Script;

/// The number of chains that a log line names.
const NAMED: usize = 5;

/// The known chains in use.
#[derive(Default)]
pub(super) struct ChainsInUse {
    chains: BTreeSet<ChainName>,
    /// This sync has already read the rules for them.
    is_read: bool,
}

impl ChainsInUse {
    /// Begins a sync.
    pub(super) fn begin(&mut self) {
        self.is_read = false;
    }

    /// Deletes a chain, which must be empty, unless it is in use.
    pub(super) fn delete(&self, script: &mut Script, chain: ChainName) {
        if !self.chains.contains(&chain) {
            script.delete_chain(chain);
        }
    }

    /// Looks, once per sync, for chains in use that may be the reason for a rejected restore. Returns true if it found
    /// new ones: the restore is then worth a retry.
    ///
    /// # Errors
    /// The rules cannot be read.
    pub(super) fn find_new(
        &mut self,
        kernel: &dyn IptablesKernel,
        family: Family,
    ) -> Result<bool, ToolError> {
        if std::mem::replace(&mut self.is_read, true) {
            return Ok(false);
        }
        let found = read(kernel)?;
        let new: Vec<&ChainName> = found.difference(&self.chains).collect();
        if new.is_empty() {
            return Ok(false);
        }
        let names: Vec<&str> = new.iter().take(NAMED).map(|chain| chain.as_str()).collect();
        tracing::warn!(%family, chains = new.len(), named = names.join(", "),
            "rules of another process jump to chains of Services; once no Service needs such a chain, it is emptied, and \
             deleted when nothing jumps to it any more");
        self.chains.extend(found);
        Ok(true)
    }

    /// Removes the chains to which no rule jumps any more.
    ///
    /// # Errors
    /// The rules cannot be read.
    pub(super) fn refresh(&mut self, kernel: &dyn IptablesKernel) -> Result<(), ToolError> {
        if !self.chains.is_empty() {
            self.chains = read(kernel)?;
        }
        Ok(())
    }
}

fn read(kernel: &dyn IptablesKernel) -> Result<BTreeSet<ChainName>, ToolError> {
    let mut found = BTreeSet::new();
    let is_own = |name: &str| name.starts_with("KUBE-");
    kernel.dump_without(Table::Nat, &is_own, &mut |line| found.extend(foreign_jump_target(line)))?;
    Ok(found)
}

/// Returns the Service chain to which a rule of another process jumps.
fn foreign_jump_target(line: &str) -> Option<ChainName> {
    let (from, rule) = line.strip_prefix("-A ")?.split_once(' ')?;
    if from.starts_with("KUBE-") {
        return None;
    }
    let mut words = rule.split(' ');
    words.find(|word| matches!(*word, "-j" | "-g"))?;
    words.next().filter(|target| is_service_chain(target)).and_then(ChainName::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_jumps_of_other_processes_to_service_chains_count() {
        let rows = [
            ("-A MINE -s 10.0.0.0/8 -j KUBE-SVC-AAAAAAAAAAAAAAAA", Some("KUBE-SVC-AAAAAAAAAAAAAAAA")),
            ("-A MINE -g KUBE-SEP-AAAAAAAAAAAAAAAA", Some("KUBE-SEP-AAAAAAAAAAAAAAAA")),
            ("-A PREROUTING -j KUBE-SERVICES", None),
            ("-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-AAAAAAAAAAAAAAAA", None),
            ("-A MINE -j ACCEPT", None),
            (":KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]", None),
            ("COMMIT", None),
        ];
        for (line, expected) in rows {
            assert_eq!(foreign_jump_target(line).as_ref().map(ChainName::as_str), expected, "{line}");
        }
    }
}
