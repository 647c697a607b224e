//! What an engine knows of the kernel.

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
