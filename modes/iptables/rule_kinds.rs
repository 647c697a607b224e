//! The kinds of rules that a Service has. The kernel and its tool reject a kind of rules, not an address: a module is missing, a
//! version does not know an option. So Services with the same kinds are accepted or rejected together, with few exceptions.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::service_rules::ServiceRules;

/// The kinds of rules of a Service, as a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RuleKinds(u64);

impl RuleKinds {
    /// Returns the kinds of these rules.
    pub(super) fn of(rules: &ServiceRules) -> Self {
        let kinds: BTreeSet<u64> = rules.all().map(kind_of).collect();
        let mut hasher = DefaultHasher::new();
        kinds.hash(&mut hasher);
        RuleKinds(hasher.finish())
    }
}

/// Hashes the options of a rule, its protocol, matches and target, without other values.
fn kind_of(rule: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut option = "";
    // Comments, the only quoted values, are at odd positions.
    for word in rule.split('"').step_by(2).flat_map(|text| text.split(' ')) {
        let is_option = word.starts_with('-') || word == "!";
        let is_kind = matches!(option, "-p" | "-m" | "-j" | "-g") && !word.starts_with("KUBE-S");
        if is_option || is_kind {
            word.hash(&mut hasher);
        }
        option = word;
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_options_matches_and_targets_without_their_values() {
        let rule = |comment: &str, protocol: &str, rest: &str| {
            format!("-A KUBE-SEP-A -m comment --comment \"{comment}\" -m {protocol} -p {protocol} {rest}")
        };
        let dnat = kind_of(&rule("a/b -> 1", "tcp", "-j DNAT --to-destination 10.0.0.1:80"));
        let rows = [
            (rule("-j c", "tcp", "-j DNAT --to-destination 10.0.0.2:81"), true),
            (rule("a/b -> 1", "udp", "-j DNAT --to-destination 10.0.0.1:80"), false),
            (rule("a/b -> 1", "tcp", "-m recent --name X -j DNAT --to-destination 10.0.0.1:80"), false),
            (rule("a/b -> 1", "tcp", "-j ACCEPT"), false),
            (rule("a/b -> 1", "tcp", "! -s 10.0.0.1 -j DNAT --to-destination 10.0.0.1:80"), false),
        ];
        for (other, is_same) in rows {
            assert_eq!(kind_of(&other) == dnat, is_same, "{other}");
        }
        let jump = |chain: &str| kind_of(&format!("-A KUBE-SVC-X -j {chain}"));
        assert_eq!(jump("KUBE-SEP-A"), jump("KUBE-SEP-B"));
        assert_ne!(jump("KUBE-MARK-MASQ"), jump("KUBE-SEP-B"));
    }
}
