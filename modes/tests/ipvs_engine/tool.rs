//! The fake iptables of one family: rejects rules with missing sets, and fails when the fake IPVS does.

use std::io::{self, Write};

use portcullis_cluster::Family;
use portcullis_modes::iptables::{Fingerprint, Flavour, IptablesKernel, Table, ToolError};

use crate::fake_iptables::FakeKernel;
use crate::kernel::{Call, FakeIpvs};

pub struct Tool {
    pub family: Family,
    pub rules: FakeKernel,
    pub kernel: FakeIpvs,
}

impl Tool {
    fn attempt(&self, action: &'static str) -> Result<(), ToolError> {
        let failed = |_| ToolError::Locked { tool: "fake".into() };
        self.kernel.state().attempt(action).map_err(failed)
    }

    /// Rejects rules with missing sets, as iptables does.
    fn check_sets(&self, text: &str) -> Result<(), ToolError> {
        let state = self.kernel.state();
        for line in text.lines() {
            let mut words = line.split(' ').skip_while(|word| *word != "--match-set").skip(1);
            if let Some(name) = words.next().filter(|name| !state.sets.contains_key(*name)) {
                return Err(ToolError::Failed {
                    tool: "fake".into(),
                    status: "exit status: 2".into(),
                    message: format!("Set {name} doesn't exist."),
                    line: None,
                });
            }
        }
        Ok(())
    }
}

impl IptablesKernel for Tool {
    fn flavour(&self) -> Flavour {
        self.rules.flavour()
    }

    fn restore(&self, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<(), ToolError> {
        self.attempt("restore rules")?;
        let mut text = Vec::new();
        write(&mut text).expect("writing to memory");
        let text = String::from_utf8(text).expect("rules are text");
        let tables = text.lines().filter_map(|line| line.strip_prefix('*'));
        let tables = tables.map(|name| Table::from_name(name).expect("one of our tables"));
        self.kernel.state().log.extend(tables.map(|table| Call::WroteTable(self.family, table)));
        self.check_sets(&text)?;
        self.rules.restore(&mut |out| out.write_all(text.as_bytes()))
    }

    fn dump(&self, table: Table, line: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
        self.kernel.state().reads += 1;
        self.attempt("read rules")?;
        self.rules.dump(table, line)
    }

    fn dump_without(
        &self,
        table: Table,
        _: &dyn Fn(&str) -> bool,
        line: &mut dyn FnMut(&str),
    ) -> Result<(), ToolError> {
        self.dump(table, line)
    }

    fn is_costly_to_list(&self, table: Table) -> bool {
        self.rules.is_costly_to_list(table)
    }

    fn delete_jumps(&self, table: Table, jumps: &[String]) -> bool {
        self.rules.delete_jumps(table, jumps)
    }

    fn dump_counters(&self, chain: &str, line: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
        self.rules.dump_counters(chain, line)
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        self.kernel.state().reads += 1;
        self.rules.fingerprint()
    }

    fn chain_fingerprint(&self) -> Option<u64> {
        self.rules.chain_fingerprint()
    }
}
