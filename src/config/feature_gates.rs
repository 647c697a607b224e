//! Kubernetes' feature gates, which kube-proxy's flags and files may set.
//!
//! All gates of the Kubernetes libraries are accepted, as they are by kube-proxy, of which most are for
//! other components.

use std::collections::BTreeMap;

use super::feature_gate_table::GATES;
use super::nearest::nearest;

/// How far a gated feature has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Off unless asked for; `AllAlpha` speaks for all of them.
    Alpha,
    /// On as a rule; `AllBeta` speaks for all of them.
    Beta,
}

/// Gates of kube-proxy's own features that v1.36 still takes but no longer lists: they are always on.
const GRADUATED: [&str; 6] = [
    "DisableAllocatorDualWrite",
    "MultiCIDRServiceAllocator",
    "NFTablesProxyMode",
    "PreferSameTrafficDistribution",
    "ServiceTrafficDistribution",
    "TopologyAwareHints",
];

/// Which gates are on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates {
    set: BTreeMap<String, bool>,
}

impl FeatureGates {
    /// Whether the gate is on: as it was set, else as `AllAlpha` or `AllBeta` was set for its stage, else
    /// by its default. Gates that nobody knows are off.
    pub fn enabled(&self, gate: &str) -> bool {
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

    /// The gates that were set, by name.
    pub fn set(&self) -> impl Iterator<Item = (&str, bool)> {
        self.set.iter().map(|(name, on)| (name.as_str(), *on))
    }
}

/// What becomes of one `GATE=value`.
#[derive(Debug, PartialEq)]
pub(super) enum GateCheck {
    Accepted,
    /// Always on, and asked to be on.
    Graduated,
    /// Completes "expected …".
    Rejected(String),
}

/// Judges one gate.
pub(super) fn check(gate: &str, on: bool) -> GateCheck {
    if GRADUATED.contains(&gate) {
        return if on {
            GateCheck::Graduated
        } else {
            GateCheck::Rejected("true: the gate can no longer be turned off".into())
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

/// The gates as set by the user, each of them [judged](check) before.
pub(super) fn accept(set: &BTreeMap<String, bool>) -> FeatureGates {
    FeatureGates { set: set.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_kube_proxys_gates_are_known() {
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
    fn verdicts() {
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
    fn all_alpha_and_all_beta() {
        let gates =
            |pairs: &[(&str, bool)]| accept(&pairs.iter().map(|(name, on)| ((*name).into(), *on)).collect());
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
