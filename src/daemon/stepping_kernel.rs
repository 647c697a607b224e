//! The tools of iptables, of which each run is a step of the sync that runs.

use std::io::{self, Write};
use std::sync::Arc;

use portcullis_modes::SyncError;
use portcullis_modes::iptables::{Fingerprint, Flavour, IptablesKernel, Table};

use super::serving::Kernels;

/// Reports a step of the sync.
pub(super) type Step = Arc<dyn Fn() + Send + Sync>;

/// Kernels that report their steps.
pub(super) fn report_steps(kernels: Kernels, step: &Step) -> Kernels {
    let stepping = |kernel| Box::new(SteppingKernel { kernel, step: Arc::clone(step) });
    kernels
        .into_iter()
        .map(|(family, kernel)| (family, stepping(kernel) as Box<dyn IptablesKernel>))
        .collect()
}

struct SteppingKernel {
    kernel: Box<dyn IptablesKernel>,
    step: Step,
}

impl SteppingKernel {
    fn after<T>(&self, result: Result<T, SyncError>) -> Result<T, SyncError> {
        (self.step)();
        result
    }
}

impl IptablesKernel for SteppingKernel {
    fn flavour(&self) -> Flavour {
        self.kernel.flavour()
    }

    fn restore(&self, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<(), SyncError> {
        self.after(self.kernel.restore(write))
    }

    fn dump(&self, table: Table, line: &mut dyn FnMut(&str)) -> Result<(), SyncError> {
        self.after(self.kernel.dump(table, line))
    }

    fn dump_counters(&self, chain: &str, line: &mut dyn FnMut(&str)) -> Result<(), SyncError> {
        self.after(self.kernel.dump_counters(chain, line))
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        self.kernel.fingerprint()
    }

    fn chain_fingerprint(&self) -> Option<u64> {
        self.kernel.chain_fingerprint()
    }
}
