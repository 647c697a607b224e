//! Kubernetes feature gates.
//!
//! As in kube-proxy, all gates of the Kubernetes libraries are accepted, most of which are for other components.

use std::collections::BTreeMap;

use super::feature_gate_table::GATES;
use super::name_suggestion::nearest;

/// Maturity of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Disabled by default; `AllAlpha` sets all of them.
    Alpha,
    /// Usually enabled by default; `AllBeta` sets all of them.
    Beta,
}

/// Graduated gates of kube-proxy's own features, which v1.36 accepts but no longer lists: they are locked to true.
const GRADUATED: [&str; 6] = [
    "DisableAllocatorDualWrite",
    "MultiCIDRServiceAllocator",
    "NFTablesProxyMode",
    "PreferSameTrafficDistribution",
    "ServiceTrafficDistribution",
    "TopologyAwareHints",
];

/// Feature gates as set by the user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FeatureGates {
    set: BTreeMap<String, bool>,
}

impl FeatureGates {
    /// Returns true if the gate is enabled: by its own setting, else by `AllAlpha` or `AllBeta` for its stage, else
    /// by its default. Unknown gates are disabled.
    pub(super) fn enabled(&self, gate: &str) -> bool {
        if GRADUATED.contains(&gate) {
            return true;
        }
        let Some((_, stage, default)) = GATES.iter().find(|(name, ..)| *name == gate) else { return false };
        let all = match stage {
            Stage::Alpha => "AllAlpha",
            Stage::Beta => "AllBeta",
        };
        self.set.get(gate).or_else(|| self.set.get(all)).copied().unwrap_or(*default)
    }
}

/// Result of checking one `GATE=value`.
#[derive(Debug, PartialEq)]
pub(super) enum GateCheck {
    Accepted,
    /// Locked to true, and set to true.
    Graduated,
    /// Invalid; the text completes "expected …".
    Rejected(String),
}

/// Checks one gate.
pub(super) fn check(gate: &str, on: bool) -> GateCheck {
    if GRADUATED.contains(&gate) {
        return if on {
            GateCheck::Graduated
        } else {
            GateCheck::Rejected("true, to which the gate is locked".into())
        };
    }
    if GATES.iter().any(|(name, ..)| *name == gate) {
        return GateCheck::Accepted;
    }
    GateCheck::Rejected(match nearest(gate, GATES.iter().map(|(name, ..)| *name)) {
        Some(meant) => format!("a feature gate of Kubernetes v1.36; did you mean {meant}?"),
        None => "a feature gate of Kubernetes v1.36".into(),
    })
}

/// Returns the gates as set by the user; each must have passed [`check`].
pub(super) fn from_checked(set: &BTreeMap<String, bool>) -> FeatureGates {
    FeatureGates { set: set.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_kube_proxys_list_of_gates() {
        let recorded = include_str!("../../fixtures/kube-proxy/feature-gates.tsv");
        let rows: Vec<_> =
            recorded.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>()).collect();
        assert_eq!(rows.len(), GATES.len());
        for (row, (name, stage, default)) in rows.iter().zip(GATES) {
            let stage = if *stage == Stage::Alpha { "ALPHA" } else { "BETA" };
            assert_eq!(*row, [*name, stage, &default.to_string()]);
            assert_eq!(check(name, true), GateCheck::Accepted);
            assert_eq!(FeatureGates::default().enabled(name), *default);
        }
    }

    #[test]
    fn checks_of_single_gates() {
        assert_eq!(check("NFTablesProxyMode", true), GateCheck::Graduated);
        assert!(matches!(check("NFTablesProxyMode", false), GateCheck::Rejected(_)));
        assert_eq!(
            check("WatchLst", true),
            GateCheck::Rejected("a feature gate of Kubernetes v1.36; did you mean WatchList?".into())
        );
        assert_eq!(
            check("Frobnicate", true),
            GateCheck::Rejected("a feature gate of Kubernetes v1.36".into())
        );
    }

    #[test]
    fn all_alpha_and_all_beta_set_the_gates_of_their_stage() {
        let gates = |pairs: &[(&str, bool)]| {
            from_checked(&pairs.iter().map(|(name, on)| ((*name).into(), *on)).collect())
        };
        type Set = &'static [(&'static str, bool)];
        let rows: [(Set, &str, bool); 8] = [
            (&[], "LoggingAlphaOptions", false),
            (&[("AllAlpha", true)], "LoggingAlphaOptions", true),
            (&[("AllAlpha", true), ("LoggingAlphaOptions", false)], "LoggingAlphaOptions", false),
            (&[("AllBeta", false)], "WatchListClient", false),
            (&[("AllBeta", false), ("WatchListClient", true)], "WatchListClient", true),
            (&[("AllAlpha", true)], "WatchListClient", true),
            (&[], "TopologyAwareHints", true),
            (&[], "Frobnicate", false),
        ];
        for (set, gate, on) in rows {
            assert_eq!(gates(set).enabled(gate), on, "{set:?} {gate}");
        }
    }
}
