//! Agreement between the rules that a proxier wrote and the kernel's rules.

use std::time::Duration;

/// The longest time between two comparisons of all iptables rules with the kernel. The fingerprint does not show the
/// replacement of a rule by one of the same size. kube-proxy's full sync has the same period.
pub(crate) const FULL_CHECK: Duration = Duration::from_secs(3600);

/// Agreement between the rules as last written and the kernel's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyncState {
    /// This process has not written any rules yet.
    NotSynced,
    /// The kernel held the rules as written, and some may have changed since.
    Unverified,
    /// The kernel holds the rules as written.
    InSync,
}
