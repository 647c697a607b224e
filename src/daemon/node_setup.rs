//! Setup of the node at the start that does not depend on the cluster's objects.

use portcullis_cluster::Family;
use portcullis_modes::iptables::{self, Tools};
use portcullis_modes::{NodeFacts, nftables, source_range_log};
use portcullis_policy::table::{EnforceError, Enforcer};
use tokio::task::JoinError;

use crate::config::{Config, Daemon};
use crate::conntrack_settings::{self, RejectedSetting};
use crate::other_proxies::RunningProxy;
use crate::policy_lock::{PolicyLock, PolicyLockError};
use crate::source::{EventRecorder, EventType, START};
use crate::{host, node, node_network, oom_score, other_proxies, truncated_list};

/// The number of removed objects that a log line names.
const NAMED: usize = 5;

/// The result of [`configure_kernel`].
pub(super) struct KernelSettings {
    /// True if the nfacct counters exist that iptables rules name.
    pub(super) has_nfacct: bool,
    rejected: Vec<RejectedSetting>,
}

/// Applies the settings of this process and of the kernel that do not depend on the cluster's objects.
pub(super) fn configure_kernel(config: &Config) -> KernelSettings {
    oom_score::set(config.oom_score_adj);
    // Only iptables rules name nfacct counters.
    let has_nfacct = config.mode.uses_iptables() && host::ensure_nfacct();
    KernelSettings { has_nfacct, rejected: conntrack_settings::set(&config.conntrack) }
}

impl KernelSettings {
    /// Records an Event about rejected settings, as kube-proxy does if `/sys` is read-only.
    pub(super) fn report_rejected(&self, recorder: &EventRecorder) {
        if self.rejected.is_empty() {
            return;
        }
        let is_read_only = self.rejected.iter().any(RejectedSetting::is_read_only);
        let reason = if is_read_only { "readOnlySysFS" } else { "KernelSettingRefused" };
        let settings: Vec<String> = self.rejected.iter().map(ToString::to_string).collect();
        recorder.node_event(EventType::Warning, [reason, START], &settings.join("; "));
    }
}

/// Undoes what other processes did to this program's rules if it could keep this daemon from its API server, and so from the first
/// sync: rules in its nf_tables tables that block all packets, and a deleted iptables rule without which all packets are masqueraded.
pub(super) fn restore_reachability(config: &Config, enforcer: Option<&mut Enforcer>, tools: Option<&Tools>) {
    remove_blocking_rules(config, enforcer, tools);
    let options = node::options(config, None);
    for family in Family::BOTH {
        let Some(kernel) = tools.map(|tools| tools.kernel(family)) else { continue };
        match iptables::restore_unmarked_return(&*kernel, &options) {
            Ok(false) => {}
            Ok(true) => tracing::warn!(
                %family,
                "another process changed chain KUBE-POSTROUTING, so that all packets were masqueraded; restored its rule that \
                 returns packets without the mark, before the first sync"
            ),
            Err(error) => tracing::debug!(%family, %error, "cannot check chain KUBE-POSTROUTING"),
        }
    }
}

fn remove_blocking_rules(config: &Config, enforcer: Option<&mut Enforcer>, tools: Option<&Tools>) {
    let text = |removed: portcullis_netlink::Result<_>| removed.map_err(|error| error.to_string());
    let services =
        text(nftables::remove_blocking_objects(&node::options(config, None), &NodeFacts::default()));
    let policies = text(enforcer.map_or(Ok(Vec::new()), Enforcer::remove_blocking_objects));
    let of_family = |family: Family| {
        let removed = iptables::remove_blocking_rules(&*tools?.kernel(family));
        Some((family.as_str(), removed.map_err(|error| error.to_string())))
    };
    let chains = Family::BOTH.into_iter().filter_map(of_family);
    for (rules, removed) in
        [("rules of Services", services), ("NetworkPolicy table", policies)].into_iter().chain(chains)
    {
        match removed {
            Ok(removed) if removed.is_empty() => {}
            Ok(removed) => tracing::warn!(
                objects = truncated_list::clauses(&removed, NAMED),
                "{rules}: removed objects of another process that block all packets, before the first sync"
            ),
            Err(error) => {
                tracing::warn!(%error, "{rules}: cannot check for rules of another process that block all packets")
            }
        }
    }
}

/// Warns about other proxies on this node, and returns them. Must be called before this daemon listens on the same addresses.
pub(super) async fn warn_about_other_proxies(
    config: &Config,
    recorder: &EventRecorder,
) -> Result<Vec<RunningProxy>, JoinError> {
    let config = config.clone();
    let proxies = tokio::task::spawn_blocking(move || other_proxies::detect(&config)).await?;
    for proxy in &proxies {
        let text = format!("{proxy}: two proxies on one node overwrite each other's rules; stop one of them");
        tracing::error!("{text}");
        recorder.node_event(EventType::Warning, ["AnotherProxy", START], &text);
    }
    Ok(proxies)
}

/// Warns about the pod network of an earlier run, which stays: pods of this node may still use it.
pub(super) async fn warn_about_pod_network(config: &Config) -> Result<(), JoinError> {
    let installation = config.cni_installation.clone();
    let leftovers =
        tokio::task::spawn_blocking(move || node_network::cleanup::find_leftovers(&installation)).await?;
    if !leftovers.is_empty() {
        tracing::warn!(
            leftovers = leftovers.join(", "),
            "the pod network of an earlier run is on this node, and is not kept up to date (--pod-network=off); once no pod uses it, remove \
             it with `portcullis cleanup`"
        );
    }
    Ok(())
}

/// Removes the NetworkPolicy table of an earlier daemon if policies are not enforced any more. If another process holds the
/// policy lock and does not release it within seconds, the table is kept.
pub(super) async fn remove_policies(options: &Daemon) -> Result<(), JoinError> {
    let _lock = match PolicyLock::try_acquire() {
        Err(PolicyLockError::Held(_)) if !options.force => {
            let removal = tokio::task::spawn_blocking(|| match PolicyLock::acquire(false) {
                Err(error) => tracing::error!(%error, "keeping the NetworkPolicy table of another process"),
                _lock => remove_policy_table(),
            });
            // Only a process that ends after the first sync waits for the removal.
            return if options.once { removal.await } else { Ok(()) };
        }
        lock => lock,
    };
    remove_policy_table();
    Ok(())
}

/// Removes the table that logs packets which source ranges drop, if an earlier daemon left it. Kernels since Linux 5.12 do that.
pub(super) fn remove_drop_log() {
    match source_range_log::remove_leftover() {
        Ok(false) => {}
        Ok(true) => tracing::info!("removed the table {} of an earlier daemon", source_range_log::NAME),
        Err(error) => {
            tracing::debug!(%error, "cannot remove the table {} of an earlier daemon", source_range_log::NAME)
        }
    }
}

fn remove_policy_table() {
    match Enforcer::remove() {
        Ok(families) if families.is_empty() => {}
        Ok(_) => tracing::info!("NetworkPolicies are no longer enforced (--network-policy is off)"),
        Err(EnforceError::NoTables) => {}
        Err(error) => {
            tracing::warn!(%error, "cannot remove the NetworkPolicy table of an earlier daemon")
        }
    }
}
