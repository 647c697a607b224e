//! Removal of the objects of all modes, or of all modes but the active one.

use super::active_rules::ActiveRules;
use super::loopback_guard::{LoopbackGuard, reset_route_localnet};
use super::result::{Action, CleanupResult};
use super::{iptables, ipvs, nftables};
use crate::iptables::Flavour;
use crate::proxy_mode::ProxyMode;

/// Removes the objects of all modes from the network namespace of the calling thread. A failure in one part does not
/// stop the other parts.
pub fn remove_all_modes() -> CleanupResult {
    let mut result = CleanupResult::default();
    let guard = LoopbackGuard::add(&mut result);
    // Sets that rules match against cannot be destroyed.
    iptables::clean(&mut result, None, Action::Remove, guard.is_firewall());
    ipvs::remove(&mut result);
    nftables::clean(&mut result, &nftables::ALL, Action::Remove);
    guard.finish(&mut result);
    result
}

/// Returns the objects that [`remove_all_modes`] would remove, keep and be unable to remove, without changing anything.
pub fn find_all_modes() -> CleanupResult {
    let mut result = CleanupResult::default();
    let guard = LoopbackGuard::find();
    iptables::clean(&mut result, None, Action::Find, guard.keeps_firewall());
    ipvs::find(&mut result);
    nftables::clean(&mut result, &nftables::ALL, Action::Find);
    guard.find_remaining(&mut result);
    result
}

/// Removes the objects of all modes but the active one, kube-proxy's and ours, in both flavours, from the network
/// namespace of the calling thread. Call it once the new mode serves all Services. If there are no leftovers, it reads
/// one small table per family and flavour.
pub fn remove_other_modes(mode: ProxyMode, flavour: Flavour) -> CleanupResult {
    clean_other_modes(mode, flavour, Action::Remove)
}

/// Returns the objects that [`remove_other_modes`] would remove, without changing anything.
pub fn find_other_modes(mode: ProxyMode, flavour: Flavour) -> CleanupResult {
    clean_other_modes(mode, flavour, Action::Find)
}

fn clean_other_modes(mode: ProxyMode, flavour: Flavour, action: Action) -> CleanupResult {
    let mut result = CleanupResult::default();
    iptables::clean(&mut result, Some(&ActiveRules::new(mode, flavour)), action, false);
    if mode != ProxyMode::Ipvs && ipvs::has_leftovers() {
        match action {
            Action::Remove => ipvs::remove(&mut result),
            Action::Find => ipvs::find(&mut result),
        }
    }
    nftables::clean(&mut result, nftables::of_other_modes(mode), action);
    if mode == ProxyMode::Ipvs && !result.removed.is_empty() {
        // Node ports are no longer served on localhost. If the sysctl must stay, the mode's own rules drop the packets.
        reset_route_localnet(&mut result, action);
    }
    result
}
