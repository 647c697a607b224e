//! All that there is to know before a node is moved.

use portcullis_modes::cleanup::{self, DetectedMode, Implementation};
use portcullis_modes::iptables::Flavour;
use portcullis_modes::ipvs;
use serde::Serialize;

use super::plan::Written;
use super::stake::Stake;
use super::{MigrateError, plan};
use crate::cluster_view::NodeView;
use crate::config::{Config, Migrate, ProxyMode};
use crate::daemon::DaemonError;
use crate::daemon::mode_setup::Prerequisites;
use crate::other_proxies::{self, RunningProxy};

/// What a migration comes to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// The new mode.
    pub(super) to: &'static str,
    /// What serves now, as far as the kernel tells.
    pub(super) serving: Vec<Now>,
    /// Proxies that answer on this node.
    pub(super) running: Vec<RunningProxy>,
    /// Why the new mode cannot be had; nothing if it can.
    pub(super) missing: Option<String>,
    /// What would be written.
    pub(super) written: Written,
    /// What would be removed, a line each.
    pub(super) removed: Vec<String>,
    /// What could not be looked at.
    pub(super) unknown: Vec<String>,
    /// Connections that are under way.
    pub(super) connections: Stake,
    /// How long connections through IPVS may last, in seconds.
    pub(super) drain_seconds: u64,
    /// What was done.
    pub(super) applied: Option<Applied>,
}

/// A mode that serves.
#[derive(Debug, Serialize)]
pub(super) struct Now {
    /// The mode.
    pub(super) mode: &'static str,
    /// Whose rules they are.
    pub(super) whose: &'static str,
    /// By what it is known.
    pub(super) evidence: Vec<String>,
}

/// What was done.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Applied {
    /// What was removed, a line each.
    pub(super) removed: Vec<String>,
    /// What could not be.
    pub(super) left: Vec<String>,
    /// Connections through IPVS that had not ended in time.
    pub(super) cut_off: u64,
    /// Stale flows that were deleted.
    pub(super) stale_flows: usize,
}

impl Report {
    /// Looks at everything. Changes nothing.
    ///
    /// # Errors
    /// Connections cannot be counted.
    pub(super) fn of(
        config: &Config,
        migrate: &Migrate,
        state: &NodeView,
        prerequisites: &Result<Prerequisites, DaemonError>,
    ) -> Result<Report, MigrateError> {
        let missing = match (prerequisites, config.mode) {
            (Err(error), _) => Some(error.to_string()),
            (Ok(_), ProxyMode::Ipvs) => {
                ipvs::check_requirements(config.ipvs.scheduler).err().map(|error| error.to_string())
            }
            (Ok(_), _) => None,
        };
        // Without tools no rules of iptables can stay.
        let prerequisites = prerequisites.as_ref().ok();
        let tools = prerequisites.and_then(|prerequisites| prerequisites.tools.as_ref());
        let flavour = tools.map_or(Flavour::Nft, |tools| tools.flavour);
        let families = prerequisites.map(|prerequisites| prerequisites.families.clone()).unwrap_or_default();
        let (seen, mut unknown) = cleanup::detect_modes();
        let others = cleanup::find_other_modes(config.mode, flavour);
        unknown.extend(others.not_removed);
        Ok(Report {
            to: config.mode.name(),
            serving: seen.into_iter().map(now).collect(),
            running: other_proxies::detect(config),
            missing,
            written: plan::written(config, state, &families),
            removed: others.removed.iter().map(ToString::to_string).collect(),
            unknown: unknown.iter().map(ToString::to_string).collect(),
            connections: Stake::count(&state.desired)?,
            drain_seconds: migrate.drain.as_secs(),
            applied: None,
        })
    }

    /// Whether the node has what the new mode needs.
    pub(super) fn is_possible(&self) -> bool {
        self.missing.is_none()
    }

    /// Proxies that would write the rules of another mode again.
    pub(super) fn obstacles(&self) -> Vec<&RunningProxy> {
        self.running.iter().filter(|proxy| proxy.mode.as_deref() != Some(self.to)).collect()
    }
}

fn now(seen: DetectedMode) -> Now {
    let whose = match seen.implementation {
        Implementation::KubeProxy => "kube-proxy",
        Implementation::Portcullis => "portcullis",
        Implementation::Either => "kube-proxy or portcullis",
    };
    Now { mode: seen.mode.name(), whose, evidence: seen.evidence }
}
