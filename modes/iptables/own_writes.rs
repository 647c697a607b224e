//! This process's own writes, by which writes of other processes at the same time are detected.
//!
//! A fingerprint that is read after a write also covers what another process wrote meanwhile. With nf_tables it is a number
//! that each transaction raises by 1, so a difference greater than the number of own transactions shows other writers.

use std::cell::Cell;
use std::io::{self, Write};

use portcullis_netlink::nf_tables::committed_transactions;

use super::chain::Table;
use super::error::ToolError;
use super::kernel::{Fingerprint, Flavour, IptablesKernel};

/// A kernel interface that counts the tables that are written.
pub(super) struct CountingKernel {
    kernel: Box<dyn IptablesKernel>,
    /// Wraps around.
    tables: Cell<u32>,
}

impl CountingKernel {
    pub(super) fn new(kernel: Box<dyn IptablesKernel>) -> Self {
        CountingKernel { kernel, tables: Cell::new(0) }
    }

    /// Returns the number of tables that were written, at most; it wraps around.
    pub(super) fn written_tables(&self) -> u32 {
        self.tables.get()
    }
}

impl IptablesKernel for CountingKernel {
    fn flavour(&self) -> Flavour {
        self.kernel.flavour()
    }

    fn restore(&self, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<(), ToolError> {
        let mut tables = 0;
        let result = self.kernel.restore(&mut |out| {
            let mut counter = CommitCounter { out, line: Vec::new(), commits: 0 };
            write(&mut counter)?;
            tables = counter.commits;
            Ok(())
        });
        // The kernel may have any of several tables of a failed restore.
        if result.is_ok() || tables > 1 {
            self.tables.set(self.tables.get().wrapping_add(tables));
        }
        result
    }

    fn dump(&self, table: Table, line: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
        self.kernel.dump(table, line)
    }

    fn dump_counters(&self, chain: &str, line: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
        self.kernel.dump_counters(chain, line)
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        self.kernel.fingerprint()
    }

    fn chain_fingerprint(&self) -> Option<u64> {
        self.kernel.chain_fingerprint()
    }
}

/// Counts the lines that commit a table.
struct CommitCounter<'a> {
    out: &'a mut dyn Write,
    /// The beginning of the current line.
    line: Vec<u8>,
    commits: u32,
}

const COMMIT: &[u8] = b"COMMIT\n";

impl Write for CommitCounter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        for part in bytes[..written].split_inclusive(|byte| *byte == b'\n') {
            let missing = (COMMIT.len() + 1).saturating_sub(self.line.len());
            self.line.extend(part.iter().take(missing));
            if part.ends_with(b"\n") {
                self.commits += u32::from(self.line == COMMIT);
                self.line.clear();
            }
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A time in which this process writes.
pub(crate) struct WriteInterval {
    flavour: Flavour,
    before: Option<Fingerprint>,
    /// The transactions of this process that are not written by the tools.
    transactions: u32,
}

impl WriteInterval {
    /// Begins with this fingerprint, which was read just now.
    pub(crate) fn new(flavour: Flavour, before: Option<Fingerprint>) -> Self {
        WriteInterval { flavour, before, transactions: committed_transactions() }
    }

    pub(crate) fn before(&self) -> Option<&Fingerprint> {
        self.before.as_ref()
    }

    /// Returns true if another process has written since, given a fingerprint that was read just now and the number of
    /// tables that the tools have written for this process. Always false with the legacy tool, whose fingerprint does not
    /// count writes.
    pub(crate) fn is_disturbed(&self, now: Option<&Fingerprint>, tables: u32) -> bool {
        let transactions = committed_transactions().wrapping_sub(self.transactions);
        let own = tables.saturating_add(transactions);
        let (Flavour::Nft, Some(before), Some(now)) = (self.flavour, &self.before, now) else { return false };
        // Generations have 32 bits and wrap around.
        before.iter().zip(now).any(|(before, now)| (*now as u32).wrapping_sub(*before as u32) > own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_counted_however_they_are_written() {
        let text = b"*nat\n:KUBE-X - [0:0]\n-A KUBE-X -m comment --comment \"COMMIT\"\nCOMMIT\n*filter\nCOMMIT\nCOMMITS\n";
        for size in 1..text.len() {
            let mut out = Vec::new();
            let mut counter = CommitCounter { out: &mut out, line: Vec::new(), commits: 0 };
            text.chunks(size).for_each(|part| counter.write_all(part).expect("writing to memory"));
            assert_eq!(counter.commits, 2, "in parts of {size} bytes");
            assert_eq!(out, text);
        }
    }

    #[test]
    fn more_transactions_than_own_ones_are_of_another_process() {
        let rows = [
            (Flavour::Nft, 7, 7, 0, false),
            (Flavour::Nft, 7, 9, 2, false),
            (Flavour::Nft, 7, 9, 1, true),
            (Flavour::Nft, u64::from(u32::MAX), 1, 2, false),
            (Flavour::Nft, u64::from(u32::MAX), 1, 1, true),
            (Flavour::Legacy, 7, 9, 0, false),
        ];
        for (flavour, before, now, tables, expected) in rows {
            let interval = WriteInterval::new(flavour, Some(vec![before, before]));
            let disturbed = interval.is_disturbed(Some(&vec![now, now]), tables);
            assert_eq!(disturbed, expected, "{flavour:?} {before} {now} {tables}");
        }
        let unknown = WriteInterval::new(Flavour::Nft, None);
        assert!(!unknown.is_disturbed(Some(&vec![1]), 0));
    }
}
