//! Keeps loopback addresses from other hosts when the rules that did so go.
//!
//! ```text
//! route_localnet set? ─► guard ─► all rules go ─► route_localnet of all interfaces is 0 again
//!                                                 ├─ set nowhere: the guard goes
//!                                                 └─ set by other software: the guard stays
//! ```

use portcullis_cluster::Family;

use super::iptables::tools_of;
use super::{Cleanup, Doing, Left, Removed, nftables};
use crate::iptables::{Flavour, Table, write_loopback_guard};
use crate::mode::SyncError;
use crate::nftables::add_guard_table;
use crate::route_localnet;

/// The guard while a cleanup runs.
pub(super) enum Guard {
    /// The kernel drops such packets itself.
    Needless,
    /// A table of nf_tables. `added`: it was not there before.
    Table { added: bool },
    /// The chain `KUBE-FIREWALL`, where the kernel has no nf_tables. `added`: it was not there before.
    Firewall { added: bool },
}

/// Why no guard can be added.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The kernel rejects the table.
    #[error(transparent)]
    Table(#[from] portcullis_netlink::Error),
    /// There is no tool of iptables, or it fails.
    #[error(transparent)]
    Firewall(#[from] SyncError),
    /// The kernel has neither.
    #[error("the kernel has neither nf_tables nor iptables")]
    NoTables,
}

/// Drops packets from other hosts to IPv4 loopback addresses from now on, until a mode that serves does so itself. To be
/// called before `route_localnet` is set.
///
/// # Errors
/// The kernel or the tool refuses.
pub fn guard() -> Result<(), GuardError> {
    add_guard().map(drop)
}

fn add_guard() -> Result<Guard, GuardError> {
    if let Some(added) = add_guard_table()? {
        return Ok(Guard::Table { added });
    }
    let tools = tools_of(Flavour::Legacy, &mut Cleanup::default()).ok_or(GuardError::NoTables)?;
    let added = write_loopback_guard(&*tools.kernel(Family::V4))?;
    Ok(Guard::Firewall { added })
}

impl Guard {
    /// The guard for the time of a cleanup.
    pub(super) fn put(done: &mut Cleanup) -> Self {
        if !route_localnet::is_set() {
            return Guard::Needless;
        }
        add_guard().unwrap_or_else(|error| {
            done.left("a guard of loopback addresses could not be added", error);
            Guard::Needless
        })
    }

    /// Whether the chain `KUBE-FIREWALL` is to stay.
    pub(super) fn is_firewall(&self) -> bool {
        matches!(self, Guard::Firewall { .. })
    }

    /// Sets `route_localnet` to 0, if a mode was removed that set it, and removes the guard unless the sysctl is still set.
    pub(super) fn settle(&self, done: &mut Cleanup) {
        let added = match self {
            Guard::Needless => return nftables::go_over(done, &[nftables::GUARD], Doing::Remove),
            Guard::Table { added } | Guard::Firewall { added } => *added,
        };
        let nothing_of_ours = added && done.removed.is_empty();
        if !nothing_of_ours {
            reset_route_localnet(done, Doing::Remove);
        }
        let interfaces = route_localnet::interfaces();
        if nothing_of_ours || interfaces.is_empty() {
            return self.remove(done);
        }
        let what = match self {
            Guard::Firewall { .. } => "chain KUBE-FIREWALL",
            _ => "nf_tables table ip portcullis-loopback",
        };
        let set: Vec<String> = interfaces.iter().map(|name| route_localnet::name(name)).collect();
        done.kept.push(Left {
            what: what.to_owned(),
            reason: format!(
                "it drops packets from other hosts to 127.0.0.0/8 while {} is not 0; set that to 0 and clean up again",
                set.join(", ")
            ),
        });
    }

    fn remove(&self, done: &mut Cleanup) {
        match self {
            Guard::Needless => {}
            // What was added for a moment is not worth a word.
            Guard::Table { added } => {
                let mut removed = Cleanup::default();
                nftables::go_over(&mut removed, &[nftables::GUARD], Doing::Remove);
                done.left.append(&mut removed.left);
                done.removed.extend(removed.removed.into_iter().filter(|_| !added));
            }
            Guard::Firewall { .. } => super::iptables::go_over(done, None, Doing::Remove, false),
        }
    }
}

/// Whether the rule of iptables mode drops packets from other hosts to loopback addresses. It goes with the rest of that
/// mode.
pub fn is_guarded_by_iptables_mode() -> bool {
    [Flavour::Nft, Flavour::Legacy].into_iter().any(|flavour| {
        let Some(tools) = tools_of(flavour, &mut Cleanup::default()) else { return false };
        let (mut rule, mut jump) = (false, false);
        let dumped = tools.kernel(Family::V4).dump(Table::Filter, &mut |line| {
            rule |= line.starts_with("-A KUBE-FIREWALL ") && line.contains("127.0.0.0/8");
            jump |= line.trim_end() == "-A INPUT -j KUBE-FIREWALL";
        });
        dumped.is_ok() && rule && jump
    })
}

/// Sets `route_localnet` of all interfaces to 0, unless a rule of other software needs it. To be called once IPVS mode
/// serves: it has no node ports on localhost.
pub fn without_localhost() -> Cleanup {
    let mut done = Cleanup::default();
    reset_route_localnet(&mut done, Doing::Remove);
    done
}

/// Sets `route_localnet` of all interfaces to 0, unless a rule of other software needs it.
pub(super) fn reset_route_localnet(done: &mut Cleanup, doing: Doing) {
    if !route_localnet::is_set_for_all() {
        return;
    }
    let mut keep = |reason: String| {
        let what = format!("sysctl {}=1", route_localnet::name("all"));
        done.kept.push(Left { what, reason });
    };
    if let Some(rule) = translation_to_loopback() {
        return keep(format!("this rule of other software needs it: {rule}"));
    }
    match doing {
        Doing::Look => done.removed.push(Removed::RouteLocalnet),
        Doing::Remove => match route_localnet::reset_for_all() {
            Ok(()) => done.removed.push(Removed::RouteLocalnet),
            Err(error) => keep(format!("it cannot be set to 0: {error}")),
        },
    }
}

/// A rule of iptables that sends packets to a loopback address, which needs `route_localnet`.
fn translation_to_loopback() -> Option<String> {
    for flavour in [Flavour::Nft, Flavour::Legacy] {
        let Some(tools) = tools_of(flavour, &mut Cleanup::default()) else { continue };
        let mut found = None;
        let dumped = tools.kernel(Family::V4).dump(Table::Nat, &mut |line| {
            if line.contains("--to-destination 127.") {
                found.get_or_insert_with(|| line.trim_end().to_owned());
            }
        });
        if let Err(error) = dumped {
            tracing::debug!(?flavour, %error, "cannot look for rules that need route_localnet");
        }
        if found.is_some() {
            return found;
        }
    }
    None
}
