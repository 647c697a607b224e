//! Chains of Services to which rules of another process jump.
//!
//! The tool rejects the deletion of such a chain, and everything else in the same restore. So it is emptied and stays,
//! instead of keeping its Service from being updated, until nothing jumps to it any more.

use std::collections::BTreeSet;

use super::chain::{ChainName, Table, belongs_to_a_service};
use super::family_sync::IptablesFamilySync;
use super::kernel::IptablesKernel;
use super::script::Script;
use crate::mode::SyncError;

/// How many chains a log line names.
const NAMED: usize = 5;

/// What is known of them.
#[derive(Default)]
pub(super) struct ChainsInUse {
    chains: BTreeSet<ChainName>,
    /// This sync has read the rules for them already.
    is_read: bool,
}

impl ChainsInUse {
    /// A sync begins.
    pub(super) fn begin(&mut self) {
        self.is_read = false;
    }

    /// Deletes chains that are empty by then.
    pub(super) fn delete(&self, script: &mut Script, chain: ChainName) {
        if !self.chains.contains(&chain) {
            script.delete_chain(chain);
        }
    }
}

impl IptablesFamilySync {
    /// Looks, once a sync, for chains that may be the reason for which a restore was rejected. Returns whether any was
    /// found that was not known: then the restore is worth another try.
    ///
    /// # Errors
    /// The rules cannot be read.
    pub(super) fn notes_chains_in_use(&mut self) -> Result<bool, SyncError> {
        if std::mem::replace(&mut self.in_use.is_read, true) {
            return Ok(false);
        }
        let found = read(&*self.kernel)?;
        let new: Vec<&ChainName> = found.difference(&self.in_use.chains).collect();
        if new.is_empty() {
            return Ok(false);
        }
        let names: Vec<&str> = new.iter().take(NAMED).map(|chain| chain.as_str()).collect();
        tracing::warn!(family = %self.family, chains = new.len(), named = names.join(", "),
            "rules of another process jump to chains of Services; once no Service needs such a chain, it is emptied, and \
             deleted when nothing jumps to it any more");
        self.in_use.chains.extend(found);
        Ok(true)
    }

    /// Forgets chains to which nothing jumps any more.
    ///
    /// # Errors
    /// The rules cannot be read.
    pub(super) fn refresh_chains_in_use(&mut self) -> Result<(), SyncError> {
        if !self.in_use.chains.is_empty() {
            self.in_use.chains = read(&*self.kernel)?;
        }
        Ok(())
    }
}

fn read(kernel: &dyn IptablesKernel) -> Result<BTreeSet<ChainName>, SyncError> {
    let mut found = BTreeSet::new();
    kernel.dump(Table::Nat, &mut |line| found.extend(target_of_another(line)))?;
    Ok(found)
}

/// The chain of a Service to which a rule outside of our chains jumps.
fn target_of_another(line: &str) -> Option<ChainName> {
    let (from, rule) = line.strip_prefix("-A ")?.split_once(' ')?;
    if from.starts_with("KUBE-") {
        return None;
    }
    let mut words = rule.split(' ');
    words.find(|word| matches!(*word, "-j" | "-g"))?;
    words.next().filter(|target| belongs_to_a_service(target)).and_then(ChainName::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_jumps_from_outside_to_services_count() {
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
            assert_eq!(target_of_another(line).as_ref().map(ChainName::as_str), expected, "{line}");
        }
    }
}
