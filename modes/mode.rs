//! What every mode can do.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, ServiceChange};
use portcullis_cluster::{Family, NamespacedName};

use crate::iptables::{Host, Options};
use crate::progress::SyncProgress;
use crate::traffic::Traffic;

/// A way to serve Services from the kernel.
pub trait Mode: Send {
    /// Its name, as `--mode` takes it.
    fn name(&self) -> &'static str;

    /// Makes the kernel serve `desired`. `changes` are the Services that differ since the last call; what
    /// an earlier call could not write is remembered and tried again.
    fn sync(&mut self, desired: &Desired, changes: &[ServiceChange]) -> Vec<Report>;

    /// Looks whether somebody else changed what we wrote and, if so, makes the next [`Mode::sync`] repair
    /// it. Costs next to nothing while nobody did. Says whether something was found.
    fn check_drift(&mut self) -> bool;

    /// Whether the rules were written or compared at this generation of nf_tables or later, so that a change which made that
    /// generation is known or our own.
    fn has_seen(&self, generation: u32) -> bool {
        let _ = generation;
        false
    }

    /// Somebody else changed what we wrote, or may have: the kernel said so.
    fn suspect(&mut self) {}

    /// Takes new options and facts of the host: this node's pod blocks may become known late, and addresses
    /// come and go.
    fn set_facts(&mut self, options: Options, host: Host);

    /// The options that the rules stand on.
    fn options(&self) -> &Options;

    /// The facts of the host that the rules stand on.
    fn host(&self) -> &Host;

    /// What the ports of all Services have served, by counters that the kernel keeps anyway; `None` where it keeps none.
    /// Takes as long as reading them all does.
    ///
    /// # Errors
    /// The kernel could not be asked.
    fn traffic(&mut self, desired: &Desired) -> Result<Option<Vec<Traffic>>, SyncError> {
        let _ = desired;
        Ok(None)
    }

    /// Counters of how far a sync has come that takes long, for other threads to read while it runs; `None` where none does.
    fn progress(&self) -> Option<Arc<SyncProgress>> {
        None
    }

    /// When it wants [`Mode::sync`] to be called though nothing changed, as it waits for something of its own.
    fn next_due(&self) -> Option<Instant> {
        None
    }
}

/// What one call of [`Mode::sync`] did in one family.
#[derive(Debug)]
pub struct Report {
    /// The family.
    pub family: Family,
    /// Everything was compared with the kernel, not only what had changed.
    pub full: bool,
    /// How long it took.
    pub took: Duration,
    /// Lines of rules written.
    pub lines: usize,
    /// The rules by table, where the mode has tables.
    pub tables: Vec<TableRules>,
    /// Chains that somebody else had changed and that were put right.
    pub repaired: usize,
    /// Services that could not be programmed, while all others were.
    pub isolated: Vec<Isolated>,
    /// Why the sync failed as a whole; the last good rules are in place.
    pub error: Option<SyncError>,
}

/// The rules of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRules {
    /// The table's name.
    pub table: &'static str,
    /// How many of our rules it holds.
    pub in_kernel: usize,
    /// How many of them the last sync wrote.
    pub written: usize,
}

/// A Service that the kernel or its tool refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolated {
    /// The Service.
    pub service: NamespacedName,
    /// What was said of it.
    pub reason: String,
}

/// Why rules could not be written or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// The tool is missing or could not be started.
    #[error("cannot run {tool}: {reason}; is iptables installed?")]
    Tool {
        /// The program.
        tool: String,
        /// The system's reason.
        reason: String,
    },
    /// The tool ran and refused.
    #[error("{tool} failed ({status}): {message}")]
    Refused {
        /// The program.
        tool: String,
        /// Its exit status.
        status: String,
        /// What it said.
        message: String,
        /// The line of its input that it names, from 1.
        line: Option<usize>,
    },
    /// Somebody else holds the lock of xtables.
    #[error("{tool} could not get the xtables lock within its time; it is tried again")]
    Locked {
        /// The program.
        tool: String,
    },
    /// The kernel refused something else that the rules need.
    #[error("{what}: {reason}")]
    Kernel {
        /// What was asked.
        what: String,
        /// What it said.
        reason: String,
    },
}

impl fmt::Display for Isolated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.service, self.reason)
    }
}
