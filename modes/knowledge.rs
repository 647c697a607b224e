//! What an engine knows of the kernel.

use std::time::Duration;

/// At the latest after this time all rules of iptables are compared with the kernel, whatever their fingerprint says:
/// it does not show a rule that was replaced by one of the same size. kube-proxy's full sync has the same period.
pub(crate) const FULL_CHECK: Duration = Duration::from_secs(3600);

/// What is known of what the kernel holds of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Knowledge {
    /// Nothing: this process has not written yet.
    None,
    /// It held what we wrote, and some of that may be otherwise now.
    Suspect,
    /// It holds what we wrote.
    Known,
}
