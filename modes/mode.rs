//! The trait that every proxy mode implements, and the result of a sync.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, ServiceChange};
use portcullis_cluster::{Family, NamespacedName};

use crate::error::SyncError;
use crate::node_facts::NodeFacts;
use crate::options::Options;
use crate::progress::SyncProgress;
use crate::proxy_mode::ProxyMode;
use crate::traffic::ServicePortTraffic;

/// A proxy mode: programs Services into the kernel.
pub trait Mode: Send {
    /// Returns which of the modes it is.
    fn proxy_mode(&self) -> ProxyMode;

    /// Makes the kernel serve `desired`. `changes` are the Services that differ since the last call; the mode itself
    /// remembers and retries what an earlier call could not write.
    fn sync(&mut self, desired: &Desired, changes: &[ServiceChange]) -> Vec<SyncResult>;

    /// Returns true if another process changed the mode's rules; the next [`Mode::sync`] then restores them. Cheap while
    /// there are no external changes.
    fn check_drift(&mut self) -> bool;

    /// Returns true if the rules were written or compared at this nf_tables generation or a later one. The change that made
    /// the generation is then known, or it is this process's own.
    fn has_synced_since(&self, generation: u32) -> bool {
        let _ = generation;
        false
    }

    /// Returns true if nothing shows that another process wrote until this nf_tables generation: writes of this process, of which some
    /// were rejected in part, can have led to it. False if the rules were written or compared since.
    fn may_be_own_write(&self, generation: u32) -> bool {
        let _ = generation;
        false
    }

    /// Records that another process changed the mode's rules, or may have, as the kernel reported.
    fn note_external_change(&mut self) {}

    /// Sets new options and node facts. This node's pod CIDRs may become known late, and addresses change.
    fn reconfigure(&mut self, options: Options, node_facts: NodeFacts);

    /// Returns the options that the rules depend on.
    fn options(&self) -> &Options;

    /// Returns the node facts that the rules depend on.
    fn node_facts(&self) -> &NodeFacts;

    /// Returns the traffic of all Service ports, from counters that the kernel keeps anyway; `None` in modes without such
    /// counters. Takes as long as reading all of them does.
    ///
    /// # Errors
    /// The counters could not be read.
    fn traffic(&mut self, desired: &Desired) -> Result<Option<Vec<ServicePortTraffic>>, SyncError> {
        let _ = desired;
        Ok(None)
    }

    /// Returns the progress counters of a long sync, for other threads to read while it runs; `None` in modes whose syncs
    /// are short.
    fn progress(&self) -> Option<Arc<SyncProgress>> {
        None
    }

    /// Returns the time at which [`Mode::sync`] must be called even if nothing has changed by then.
    fn next_due(&self) -> Option<Instant> {
        None
    }
}

/// The result of one call of [`Mode::sync`] in one family.
#[derive(Debug)]
pub struct SyncResult {
    /// The family.
    pub family: Family,
    /// Everything was compared with the kernel, not only the changes.
    pub is_full: bool,
    /// The duration.
    pub duration: Duration,
    /// The number of lines of rules or kernel objects written.
    pub written: usize,
    /// The number of rules by table, in modes with iptables rules.
    pub tables: Vec<TableRuleCounts>,
    /// The number of chains or objects that another process had changed and that were restored.
    pub restored: usize,
    /// Services whose changes the next syncs write, because they are large.
    pub deferred: Vec<NamespacedName>,
    /// Services that could not be programmed, while all other Services were.
    pub isolated: Vec<IsolatedService>,
    /// The error if the whole sync failed; the last good rules are still in place.
    pub error: Option<SyncError>,
}

/// The number of rules in one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRuleCounts {
    /// The table's name.
    pub table: &'static str,
    /// The rules of the mode that it holds.
    pub in_kernel: usize,
    /// The rules that the last sync wrote.
    pub written: usize,
}

/// A Service that keeps its last good rules while all other Services are programmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsolatedService {
    /// The Service.
    pub service: NamespacedName,
    /// The cause of its isolation.
    pub cause: IsolationCause,
    /// The error message.
    pub reason: String,
    /// The kernel has rules of an earlier version of it in this family. Without them nothing serves it.
    pub has_rules: bool,
}

/// The cause of a Service's isolation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsolationCause {
    /// The kernel or its tool rejects its rules.
    Rejected,
    /// It exceeds the limits on the size of a Service ([`portcullis_cluster::desired::MAX_ENTRIES`]).
    TooLarge,
}

impl fmt::Display for IsolatedService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.service, self.reason)
    }
}
