//! The requests of a cleanup with the nft tool: what a node with many rules pays for.

use std::cell::RefCell;

use super::*;
use crate::iptables::Fingerprint;

/// The number of Service chains, and of rules in `KUBE-SERVICES`.
const SERVICES: usize = 1_500;

/// A table nat with chains of Services, and the requests to it.
struct LargeTable {
    /// Jumps can be deleted without a restore.
    deletes_jumps: bool,
    chains: RefCell<BTreeSet<String>>,
    jumps: RefCell<Vec<String>>,
    restores: RefCell<Vec<String>>,
}

impl LargeTable {
    fn new(deletes_jumps: bool) -> Self {
        let services = (0..SERVICES).map(|n| format!("KUBE-SVC-{n:016}"));
        let jumps = ["PREROUTING", "OUTPUT"].map(|from| format!("-A {from} -j KUBE-SERVICES"));
        LargeTable {
            deletes_jumps,
            chains: RefCell::new(["KUBE-SERVICES".to_owned()].into_iter().chain(services).collect()),
            jumps: RefCell::new(jumps.into()),
            restores: RefCell::default(),
        }
    }

    fn clean(&self) -> CleanupResult {
        let mut result = CleanupResult::default();
        let location = IptablesLocation { flavour: Flavour::Nft, family: Family::V4, table: Table::Nat };
        let (kept, emptied) = (BTreeMap::new(), BTreeSet::new());
        let remover = Remover { kernel: self, location, has_kubelet: false, active: None, kept, emptied };
        remover.remove(&mut result).expect("the table can be read and written");
        result
    }
}

impl IptablesKernel for LargeTable {
    fn flavour(&self) -> Flavour {
        Flavour::Nft
    }

    fn restore(&self, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<(), ToolError> {
        let mut text = Vec::new();
        write(&mut text).expect("memory can be written");
        let text = String::from_utf8(text).expect("rules are text");
        for line in text.lines() {
            if let Some(chain) = line.strip_prefix("-X ") {
                self.chains.borrow_mut().remove(chain);
            } else if let Some(rule) = line.strip_prefix("-D ") {
                self.jumps.borrow_mut().retain(|jump| jump.strip_prefix("-A ") != Some(rule));
            }
        }
        self.restores.borrow_mut().push(text);
        Ok(())
    }

    fn dump(&self, _: Table, _: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
        panic!("the rules of all chains are read");
    }

    fn dump_without(
        &self,
        _: Table,
        is_skipped: &dyn Fn(&str) -> bool,
        line: &mut dyn FnMut(&str),
    ) -> Result<(), ToolError> {
        let chains = self.chains.borrow();
        for chain in ["PREROUTING", "OUTPUT", "MINE"].into_iter().chain(chains.iter().map(String::as_str)) {
            line(&format!(":{chain} - [0:0]"));
            assert_eq!(is_skipped(chain), chain.starts_with("KUBE-"), "{chain}");
        }
        self.jumps.borrow().iter().for_each(|jump| line(jump));
        line("-A MINE -d 192.0.2.1/32 -j ACCEPT");
        Ok(())
    }

    fn is_costly_to_list(&self, _: Table) -> bool {
        false
    }

    fn delete_jumps(&self, _: Table, jumps: &[String]) -> bool {
        if self.deletes_jumps {
            self.jumps.borrow_mut().retain(|jump| !jumps.contains(jump));
        }
        self.deletes_jumps
    }

    fn dump_counters(&self, _: &str, _: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
        Ok(())
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        None
    }

    fn chain_fingerprint(&self) -> Option<u64> {
        None
    }
}

#[test]
fn rules_of_removed_chains_are_neither_read_nor_deleted_one_by_one() {
    for deletes_jumps in [true, false] {
        let table = LargeTable::new(deletes_jumps);
        let result = table.clean();
        assert!(result.is_complete(), "{:?}", result.not_removed);
        let location = IptablesLocation { flavour: Flavour::Nft, family: Family::V4, table: Table::Nat };
        let removed = RemovedObject::Iptables { location, jumps: 2, chains: SERVICES + 1 };
        assert_eq!(result.removed, [removed]);
        // One restore deletes the chains with their rules; without handles, another one the jumps.
        let restores = table.restores.borrow();
        assert_eq!(restores.len(), if deletes_jumps { 1 } else { 2 });
        let deletions = |text: &String| text.lines().filter(|line| line.starts_with("-D ")).count();
        let by_text: usize = restores.iter().map(deletions).sum();
        assert_eq!(by_text, if deletes_jumps { 0 } else { 2 });
        assert!(!restores.iter().any(|text| text.contains("MINE")), "chains of other programs stay");
    }
}
