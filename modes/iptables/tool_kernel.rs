//! The kernel's rules of one family, read and written by the iptables tools of this host.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};

use portcullis_cluster::Family;
use portcullis_netlink::nf_tables::TableFamily;
use portcullis_netlink::socket::{NetlinkProtocol, Socket};
use portcullis_netlink::{nf_tables, xtables};

use super::chain::Table;
use super::error::ToolError;
use super::kernel::{Fingerprint, Flavour, IptablesKernel};
use super::nft_tables::NftTable;
use super::tool::{LOCK_SECONDS, Tools, check, in_netlink, program};

/// The rules of one family, through the tools of a flavour.
pub(super) struct ToolKernel {
    pub(super) tools: Tools,
    pub(super) family: Family,
}

impl ToolKernel {
    /// Returns a table in nf_tables; `None` with the legacy tool.
    fn nft_table(&self, table: Table) -> Option<NftTable<'_>> {
        let is_nft = self.tools.flavour == Flavour::Nft;
        is_nft.then_some(NftTable { tools: &self.tools, family: self.family, table })
    }

    fn generation(&self) -> portcullis_netlink::Result<u32> {
        nf_tables::generation(&mut Socket::open(NetlinkProtocol::Netfilter)?)
    }
}

impl IptablesKernel for ToolKernel {
    fn flavour(&self) -> Flavour {
        self.tools.flavour
    }

    fn restore(&self, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<(), ToolError> {
        let tool = self.tools.name(self.family, Some("restore"));
        let end = program(&tool, ["-w", LOCK_SECONDS, "--noflush"]).feed(write)?;
        check(&tool, end)
    }

    fn dump(&self, table: Table, line: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
        // The legacy tools create a table that does not exist when asked for it. A table without rules is treated like
        // a missing one, since the tool is slow to print it.
        let is_bare = || {
            xtables::table_info(in_netlink(self.family), table.as_str())
                .map(|i| i.is_none_or(|i| i.is_bare()))
        };
        if self.tools.flavour == Flavour::Legacy && is_bare().unwrap_or(false) {
            return Ok(());
        }
        self.tools.dump(self.family, table, line)
    }

    fn dump_without(
        &self,
        table: Table,
        is_skipped: &dyn Fn(&str) -> bool,
        line: &mut dyn FnMut(&str),
    ) -> Result<(), ToolError> {
        match self.nft_table(table).and_then(|table| table.lines_without(is_skipped)) {
            Some(lines) => lines.iter().for_each(|text| line(text)),
            None => self.dump(table, line)?,
        }
        Ok(())
    }

    fn is_costly_to_list(&self, table: Table) -> bool {
        self.nft_table(table).is_some_and(|table| table.is_costly_to_list())
    }

    fn delete_jumps(&self, table: Table, jumps: &[String]) -> bool {
        self.nft_table(table).is_some_and(|table| table.delete_jumps(jumps))
    }

    fn dump_counters(&self, chain: &str, line: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
        let tool = self.tools.name(self.family, None);
        let list = program(&tool, ["-w", LOCK_SECONDS, "-t", Table::Nat.as_str(), "-v", "-S", chain]);
        check(&tool, list.read_lines(line)?)
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        match self.tools.flavour {
            Flavour::Nft => self.generation().ok().map(Fingerprint::Generation),
            Flavour::Legacy => {
                let mut sizes = [None; Table::ALL.len()];
                for (size, table) in sizes.iter_mut().zip(Table::ALL) {
                    *size = xtables::table_info(in_netlink(self.family), table.as_str()).ok()?;
                }
                Some(Fingerprint::Sizes(sizes))
            }
        }
    }

    fn chain_fingerprint(&self) -> Option<u64> {
        match self.tools.flavour {
            Flavour::Nft => own_chains_fingerprint(self.family).ok(),
            Flavour::Legacy => None,
        }
    }
}

/// Returns the fingerprint of our chains in nf_tables, which does not depend on their order.
fn own_chains_fingerprint(family: Family) -> portcullis_netlink::Result<u64> {
    let family = match family {
        Family::V4 => TableFamily::Ip,
        Family::V6 => TableFamily::Ip6,
    };
    let mut fingerprint = 0u64;
    nf_tables::list_chains(&mut Socket::open(NetlinkProtocol::Netfilter)?, family, |chain| {
        if chain.name.starts_with("KUBE-") && Table::from_name(&chain.table).is_some() {
            let mut hasher = DefaultHasher::new();
            chain.hash(&mut hasher);
            fingerprint = fingerprint.wrapping_add(hasher.finish());
        }
    })?;
    Ok(fingerprint)
}
