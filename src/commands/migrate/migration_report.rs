//! The report of a migration.

use portcullis_modes::cleanup::{self, DetectedMode, Implementation};
use portcullis_modes::iptables::Flavour;
use serde::Serialize;

use super::affected_connections::AffectedConnections;
use super::planned_rules::PlannedRules;
use super::{MigrateError, planned_rules};
use crate::cluster_view::NodeView;
use crate::config::{Config, Migrate};
use crate::daemon::DaemonError;
use crate::daemon::mode_setup::Prerequisites;
use crate::other_proxies::{self, RunningProxy};
use crate::proxy_modes;

/// The report of a migration. Its fields are the JSON output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MigrationReport {
    /// The new mode.
    pub(super) to: &'static str,
    /// The modes that serve now, by their rules in the kernel.
    pub(super) serving: Vec<CurrentMode>,
    /// The proxies that run on this node.
    pub(super) running: Vec<RunningProxy>,
    /// The prerequisite of the new mode that is missing.
    pub(super) missing: Option<String>,
    /// The rules that would be written.
    #[serde(rename = "written")]
    pub(super) planned_rules: PlannedRules,
    /// The objects that would be removed, one per line.
    pub(super) removed: Vec<String>,
    /// Checks that failed.
    #[serde(rename = "unknown")]
    pub(super) failed_checks: Vec<String>,
    /// Established connections through Services.
    pub(super) connections: AffectedConnections,
    /// The time limit for connections through IPVS, in seconds.
    pub(super) drain_seconds: u64,
    /// The changes made, with `--apply`.
    pub(super) applied: Option<Applied>,
}

/// A mode that serves now.
#[derive(Debug, Serialize)]
pub(super) struct CurrentMode {
    /// The mode.
    pub(super) mode: &'static str,
    /// The proxy that wrote the rules.
    #[serde(rename = "whose")]
    pub(super) proxy: &'static str,
    /// The rules and objects by which it was detected.
    pub(super) evidence: Vec<String>,
}

/// The changes that a migration made.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Applied {
    /// The objects that were removed, one per line.
    pub(super) removed: Vec<String>,
    /// The objects that could not be removed, one per line.
    pub(super) left: Vec<String>,
    /// The number of connections through IPVS that were terminated at the time limit.
    #[serde(rename = "cutOff")]
    pub(super) terminated: u64,
    /// The number of stale conntrack entries that were deleted.
    pub(super) stale_flows: usize,
}

impl MigrationReport {
    /// Inspects the node and the kernel without changing anything.
    ///
    /// # Errors
    /// Connections cannot be counted.
    pub(super) fn new(
        config: &Config,
        migrate: &Migrate,
        state: &NodeView,
        prerequisites: &Result<Prerequisites, DaemonError>,
    ) -> Result<MigrationReport, MigrateError> {
        let missing = match prerequisites {
            Err(error) => Some(error.to_string()),
            Ok(_) => {
                let checked = proxy_modes::driver(config.mode).check_kernel(config);
                checked.err().map(|error| error.to_string())
            }
        };
        // Without tools, there are no iptables rules to keep.
        let prerequisites = prerequisites.as_ref().ok();
        let tools = prerequisites.and_then(|prerequisites| prerequisites.tools.as_ref());
        let flavour = tools.map_or(Flavour::Nft, |tools| tools.flavour);
        let families = prerequisites.map(|prerequisites| prerequisites.families.clone()).unwrap_or_default();
        let (seen, mut failed_checks) = cleanup::detect_modes();
        let leftovers = cleanup::find_other_modes(config.mode, flavour);
        failed_checks.extend(leftovers.not_removed);
        Ok(MigrationReport {
            to: config.mode.name(),
            serving: seen.into_iter().map(current_mode).collect(),
            running: other_proxies::detect(config),
            missing,
            planned_rules: planned_rules::count(config, state, &families),
            removed: leftovers.removed.iter().map(ToString::to_string).collect(),
            failed_checks: failed_checks.iter().map(ToString::to_string).collect(),
            connections: AffectedConnections::count(&state.desired)?,
            drain_seconds: migrate.drain.as_secs(),
            applied: None,
        })
    }

    /// Returns true if the prerequisites of the new mode are met.
    pub(super) fn is_possible(&self) -> bool {
        self.missing.is_none()
    }

    /// Returns the running proxies that would write the rules of another mode again.
    pub(super) fn obstacles(&self) -> Vec<&RunningProxy> {
        self.running.iter().filter(|proxy| proxy.mode.as_deref() != Some(self.to)).collect()
    }
}

fn current_mode(detected: DetectedMode) -> CurrentMode {
    let proxy = match detected.implementation {
        Implementation::KubeProxy => "kube-proxy",
        Implementation::Portcullis => "portcullis",
        Implementation::Either => "kube-proxy or portcullis",
    };
    CurrentMode { mode: detected.mode.name(), proxy, evidence: detected.evidence }
}
