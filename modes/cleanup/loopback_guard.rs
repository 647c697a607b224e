//! A guard that drops packets to loopback addresses from other hosts while the rules that did so are removed.
//!
//! ```text
//! route_localnet set? ─► add guard ─► remove all rules ─► reset route_localnet of all interfaces to 0
//!                                                         ├─ set on no interface: remove the guard
//!                                                         └─ set by other software: keep the guard
//! ```

use portcullis_cluster::Family;
use portcullis_netlink::nf_tables;

use super::chain_names::{FILTER, NAT};
use super::result::{Action, CleanupResult, KeptObject, RemovedObject};
use super::tools::tools_for;
use super::{iptables, nftables};
use crate::iptables::ToolError;
use crate::iptables::{Flavour, Table, is_service_chain, write_loopback_guard};
use crate::nftables::add_guard_table;
use crate::route_localnet;

/// The guard during a cleanup.
pub(super) enum LoopbackGuard {
    /// The kernel drops such packets itself.
    NotNeeded,
    /// A table of nf_tables. `added`: it did not exist before.
    Table { added: bool },
    /// The chain `KUBE-FIREWALL`, if the kernel has no nf_tables. `added`: it did not exist before.
    Firewall { added: bool },
}

/// The error if no guard can be added.
#[derive(Debug, thiserror::Error)]
pub enum LoopbackGuardError {
    /// The kernel rejects the table.
    #[error(transparent)]
    Table(#[from] portcullis_netlink::Error),
    /// iptables is missing or fails.
    #[error(transparent)]
    Firewall(#[from] ToolError),
    /// The kernel has neither.
    #[error("the kernel has neither nf_tables nor iptables")]
    NoTables,
}

/// Drops packets from other hosts to IPv4 loopback addresses until a mode does so itself. Call it before
/// `route_localnet` is set.
///
/// # Errors
/// The kernel or the tool rejected the rules.
pub fn guard_loopback() -> Result<(), LoopbackGuardError> {
    add_guard().map(drop)
}

fn add_guard() -> Result<LoopbackGuard, LoopbackGuardError> {
    if let Some(added) = add_guard_table()? {
        return Ok(LoopbackGuard::Table { added });
    }
    let tools =
        tools_for(Flavour::Legacy, &mut CleanupResult::default()).ok_or(LoopbackGuardError::NoTables)?;
    let added = write_loopback_guard(&*tools.kernel(Family::V4))?;
    Ok(LoopbackGuard::Firewall { added })
}

impl LoopbackGuard {
    /// Adds the guard for a cleanup, if it is needed.
    pub(super) fn add(result: &mut CleanupResult) -> Self {
        if !route_localnet::is_set() {
            return LoopbackGuard::NotNeeded;
        }
        add_guard().unwrap_or_else(|error| {
            result.add_failure("a guard of loopback addresses could not be added", error);
            LoopbackGuard::NotNeeded
        })
    }

    /// Returns the guard that [`LoopbackGuard::add`] would return, without adding it.
    pub(super) fn find() -> Self {
        if !route_localnet::is_set() {
            return LoopbackGuard::NotNeeded;
        }
        match nf_tables::open() {
            // If this fails, the guard of a cleanup cannot be added either.
            Ok(Some(mut socket)) => {
                let (family, name) = nftables::GUARD;
                let exists = nf_tables::has_table(&mut socket, family, name).unwrap_or_default();
                LoopbackGuard::Table { added: !exists }
            }
            Ok(None) => LoopbackGuard::Firewall { added: !has_iptables_loopback_guard() },
            Err(_) => LoopbackGuard::NotNeeded,
        }
    }

    /// Returns true if the chain `KUBE-FIREWALL` would stay after the cleanup of a kernel without nf_tables.
    pub(super) fn keeps_firewall(&self) -> bool {
        let is_needed = || {
            route_localnet::interfaces().iter().any(|name| name != route_localnet::ALL)
                || find_rule_with_loopback_target().is_some()
        };
        self.is_firewall() && is_needed()
    }

    /// Finds the changes that [`LoopbackGuard::finish`] would make after the removal of the objects in a result.
    pub(super) fn find_remaining(&self, result: &mut CleanupResult) {
        let added = match self {
            LoopbackGuard::NotNeeded => return nftables::clean(result, &[nftables::GUARD], Action::Find),
            LoopbackGuard::Table { added } | LoopbackGuard::Firewall { added } => *added,
        };
        if added && result.removed.is_empty() {
            return;
        }
        reset_route_localnet(result, Action::Find);
        let mut interfaces = route_localnet::interfaces();
        if result.removed.contains(&RemovedObject::RouteLocalnet) {
            interfaces.retain(|name| name != route_localnet::ALL);
        }
        match self {
            _ if !interfaces.is_empty() => self.keep(&interfaces, result),
            LoopbackGuard::Table { added: false } => {
                nftables::clean(result, &[nftables::GUARD], Action::Find);
            }
            // The chain is one of the objects that were found.
            _ => {}
        }
    }

    /// Returns true if the chain `KUBE-FIREWALL` must stay.
    pub(super) fn is_firewall(&self) -> bool {
        matches!(self, LoopbackGuard::Firewall { .. })
    }

    /// Resets `route_localnet` to 0 if a mode that set it was removed, and removes the guard unless the sysctl is still
    /// set.
    pub(super) fn finish(&self, result: &mut CleanupResult) {
        let added = match self {
            LoopbackGuard::NotNeeded => return nftables::clean(result, &[nftables::GUARD], Action::Remove),
            LoopbackGuard::Table { added } | LoopbackGuard::Firewall { added } => *added,
        };
        let nothing_removed = added && result.removed.is_empty();
        if !nothing_removed {
            reset_route_localnet(result, Action::Remove);
        }
        let interfaces = route_localnet::interfaces();
        if nothing_removed || interfaces.is_empty() {
            return self.remove(result);
        }
        self.keep(&interfaces, result);
    }

    /// Records that the guard stays, because of the sysctl of these interfaces.
    fn keep(&self, interfaces: &[String], result: &mut CleanupResult) {
        let what = match self {
            LoopbackGuard::Firewall { .. } => "chain KUBE-FIREWALL",
            _ => "nf_tables table ip portcullis-loopback",
        };
        let set: Vec<String> = interfaces.iter().map(|name| route_localnet::name(name)).collect();
        result.kept.push(KeptObject {
            object: what.to_owned(),
            reason: format!(
                "it drops packets from other hosts to 127.0.0.0/8 while {} is not 0; set it to 0 and run cleanup again",
                set.join(", ")
            ),
        });
    }

    fn remove(&self, result: &mut CleanupResult) {
        match self {
            LoopbackGuard::NotNeeded => {}
            // A guard that this cleanup added itself is not reported.
            LoopbackGuard::Table { added } => {
                let mut removed = CleanupResult::default();
                nftables::clean(&mut removed, &[nftables::GUARD], Action::Remove);
                result.not_removed.append(&mut removed.not_removed);
                result.removed.extend(removed.removed.into_iter().filter(|_| !added));
            }
            LoopbackGuard::Firewall { .. } => iptables::clean(result, None, Action::Remove, false),
        }
    }
}

/// Returns true if iptables mode's rule drops packets from other hosts to loopback addresses. The rule is removed with
/// that mode.
pub fn has_iptables_loopback_guard() -> bool {
    [Flavour::Nft, Flavour::Legacy].into_iter().any(|flavour| {
        let Some(tools) = tools_for(flavour, &mut CleanupResult::default()) else { return false };
        let (mut rule, mut jump) = (false, false);
        let is_other = |name: &str| FILTER.contains(&name);
        let dumped = tools.kernel(Family::V4).dump_without(Table::Filter, &is_other, &mut |line| {
            rule |= line.starts_with("-A KUBE-FIREWALL ") && line.contains("127.0.0.0/8");
            jump |= line.trim_end() == "-A INPUT -j KUBE-FIREWALL";
        });
        dumped.is_ok() && rule && jump
    })
}

/// Resets `route_localnet` of all interfaces to 0, unless a rule of other software needs it. Call it once IPVS mode
/// serves, which has no node ports on localhost.
pub fn reset_unneeded_route_localnet() -> CleanupResult {
    let mut result = CleanupResult::default();
    reset_route_localnet(&mut result, Action::Remove);
    result
}

/// Resets `route_localnet` of all interfaces to 0, unless a rule of other software needs it.
pub(super) fn reset_route_localnet(result: &mut CleanupResult, action: Action) {
    if !route_localnet::is_set_for_all() {
        return;
    }
    let mut keep = |reason: String| {
        let object = format!("sysctl {}=1", route_localnet::name("all"));
        result.kept.push(KeptObject { object, reason });
    };
    if let Some(rule) = find_rule_with_loopback_target() {
        return keep(format!("this rule of other software needs it: {rule}"));
    }
    match action {
        Action::Find => result.removed.push(RemovedObject::RouteLocalnet),
        Action::Remove => match route_localnet::reset_for_all() {
            Ok(()) => result.removed.push(RemovedObject::RouteLocalnet),
            Err(error) => keep(format!("it cannot be set to 0: {error}")),
        },
    }
}

/// Returns an iptables rule with DNAT to a loopback address, which needs `route_localnet`.
fn find_rule_with_loopback_target() -> Option<String> {
    for flavour in [Flavour::Nft, Flavour::Legacy] {
        let Some(tools) = tools_for(flavour, &mut CleanupResult::default()) else { continue };
        let mut found = None;
        // Endpoints are no loopback addresses.
        let is_service_rule = |name: &str| NAT.contains(&name) || is_service_chain(name);
        let dumped = tools.kernel(Family::V4).dump_without(Table::Nat, &is_service_rule, &mut |line| {
            if line.contains("--to-destination 127.") {
                found.get_or_insert_with(|| line.trim_end().to_owned());
            }
        });
        if let Err(error) = dumped {
            tracing::debug!(?flavour, %error, "cannot search for rules that need route_localnet");
        }
        if found.is_some() {
            return found;
        }
    }
    None
}
