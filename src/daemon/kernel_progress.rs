//! Progress of syncs by the runs of iptables tools: each is a step.

use std::io::{self, Write};
use std::sync::Arc;

use portcullis_modes::external_program;
use portcullis_modes::iptables::{Fingerprint, Flavour, IptablesKernel, Table, ToolError};

use super::mode_setup::Kernels;

/// Reports a step of the sync.
pub(super) type ReportProgress = Arc<dyn Fn() + Send + Sync>;

/// Kernels that report their steps.
pub(super) fn with_progress(kernels: Kernels, step: &ReportProgress) -> Kernels {
    let stepping = |kernel| Box::new(ProgressKernel { kernel, step: Arc::clone(step) });
    kernels
        .into_iter()
        .map(|(family, kernel)| (family, stepping(kernel) as Box<dyn IptablesKernel>))
        .collect()
}

struct ProgressKernel {
    kernel: Box<dyn IptablesKernel>,
    step: ReportProgress,
}

impl ProgressKernel {
    /// Returns the result of a run of a tool. Its end is a step, and so is each time that it did something meanwhile.
    fn run<T>(&self, run: impl FnOnce() -> T) -> T {
        let result = external_program::report_progress(&self.step, run);
        (self.step)();
        result
    }
}

impl IptablesKernel for ProgressKernel {
    fn flavour(&self) -> Flavour {
        self.kernel.flavour()
    }

    fn restore(&self, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<(), ToolError> {
        self.run(|| self.kernel.restore(write))
    }

    fn dump(&self, table: Table, line: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
        self.run(|| self.kernel.dump(table, line))
    }

    fn dump_without(
        &self,
        table: Table,
        is_skipped: &dyn Fn(&str) -> bool,
        line: &mut dyn FnMut(&str),
    ) -> Result<(), ToolError> {
        self.run(|| self.kernel.dump_without(table, is_skipped, line))
    }

    fn is_costly_to_list(&self, table: Table) -> bool {
        self.kernel.is_costly_to_list(table)
    }

    fn delete_jumps(&self, table: Table, jumps: &[String]) -> bool {
        self.run(|| self.kernel.delete_jumps(table, jumps))
    }

    fn dump_counters(&self, chain: &str, line: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
        self.run(|| self.kernel.dump_counters(chain, line))
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        self.kernel.fingerprint()
    }

    fn chain_fingerprint(&self) -> Option<u64> {
        self.kernel.chain_fingerprint()
    }
}
