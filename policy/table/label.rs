//! Metric labels of the table's counters.

use crate::compile::PolicyId;

/// Maximum length of a list of policies in bytes, unless the first policy alone is longer. Hundreds of policies may
/// select a pod, and each series would repeat all their names.
const MAX_BYTES: usize = 200;

/// Labels of a counter of dropped packets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DropLabels {
    /// `ingress`, `egress`, or empty for drops that belong to no direction.
    pub direction: &'static str,
    /// The policy whose rule denies, or those that isolate the pod, as many as fit.
    pub policy: String,
}

/// Returns the names of policies, separated by commas, and the number of those that do not fit.
pub(super) fn names(policies: &[PolicyId]) -> String {
    let mut words = String::new();
    for (position, policy) in policies.iter().enumerate() {
        let name = policy.to_string();
        if position > 0 && words.len() + name.len() > MAX_BYTES {
            let rest = policies.len() - position;
            return format!("{words} and {rest} more");
        }
        if position > 0 {
            words.push_str(", ");
        }
        words.push_str(&name);
    }
    words
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::NamespacedName;

    use super::*;

    #[test]
    fn label_has_as_many_policies_as_fit() {
        let policies = |count: usize| -> Vec<PolicyId> {
            let name = |n| PolicyId::Network(NamespacedName::new("shop", &format!("policy-{n:03}")));
            (0..count).map(name).collect()
        };
        assert_eq!(names(&policies(1)), "NetworkPolicy shop/policy-000");
        assert_eq!(names(&policies(2)), "NetworkPolicy shop/policy-000, NetworkPolicy shop/policy-001");
        let many = names(&policies(150));
        assert!(
            many.starts_with("NetworkPolicy shop/policy-000, ") && many.ends_with(" and 144 more"),
            "{many}"
        );
        assert!(many.len() < MAX_BYTES + 20, "{many}");
        let long = PolicyId::Network(NamespacedName::new("shop", &"x".repeat(253)));
        let with_long = names(&[long.clone(), long]);
        assert!(with_long.ends_with("xxx and 1 more"), "the first is whole: {with_long}");
    }
}
