//! The size of a policy, and its limit.
//!
//! One policy must not take the time and the memory that all others need. The rules of a policy above the limit are not read:
//! it isolates its pods, so it never allows more than its author intended. The result depends on the object only, so it is the
//! same on all nodes and after a restart.

use crate::label_selector::RawLabelSelector;
use crate::problem::Problem;

/// The most entries of a policy: one for each address block, exception, port number, label and value of a selector, and
/// `WEIGHT` for each rule, each selector and each named port, which cost the compiler and the kernel more. The address ranges of
/// a large cloud provider (10,000 blocks), or 900 rules with a selector and a port, are within the limit.
pub const MAX_POLICY_ENTRIES: usize = 20_000;

/// The entries of a rule, a selector and a named port.
pub(crate) const WEIGHT: usize = 10;

/// Returns the entries of a peer's selectors.
pub(crate) fn selector_entries(selectors: &[&Option<RawLabelSelector>]) -> usize {
    selectors.iter().copied().flatten().map(|selector| WEIGHT + selector.entries()).sum()
}

/// Returns the problem of a policy with this many entries, if it is above the limit.
pub(crate) fn problem(entries: usize, consequence: &'static str) -> Option<Problem> {
    (entries > MAX_POLICY_ENTRIES).then(|| {
        let expected =
            format!("at most {MAX_POLICY_ENTRIES} entries (rules, selectors, address blocks and ports)");
        Problem::new("spec", format!("{entries} entries"), expected).with_consequence(consequence)
    })
}
