//! What the kernel refuses of virtual and real servers, and which Service is to blame.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use portcullis_cluster::NamespacedName;
use portcullis_netlink as netlink;
use portcullis_netlink::ip_vs::VirtualServer;

use super::family_sync::FamilySync;
use super::kernel::{IpvsKernel, ServerChange};
use super::write::said;
use crate::mode::SyncError;

/// What was rejected first of each virtual server, and why.
#[derive(Default)]
pub(super) struct Refused(pub(super) BTreeMap<VirtualServer, (ServerChange, netlink::Error)>);

impl FamilySync {
    /// Takes refusals up once more, from what the kernel really has: it may have been there, or gone, already. What
    /// is rejected again is to blame, and its Service is isolated.
    pub(super) fn judge_refused(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        names: Vec<NamespacedName>,
        rejected: Refused,
        now: Instant,
    ) -> Result<(), SyncError> {
        let mut guilty = BTreeSet::new();
        let mut lost = None;
        if !rejected.0.is_empty() {
            let mut again = Refused::default();
            let mut changes = Vec::new();
            for key in rejected.0.keys() {
                let owner = self.ledger.owner(key).cloned();
                let wanted = owner.and_then(|owner| self.server_of(&owner, key, &self.renderer));
                self.compare(kernel, key, wanted.as_ref(), now, &mut changes)?;
            }
            self.apply(kernel, &mut changes, &mut again)?;
            for (key, (change, error)) in again.0 {
                let blameless = error.is_privilege_or_memory_error();
                let error = explained(&change, error);
                match self.ledger.owner(&key).cloned() {
                    Some(_) if blameless => {
                        self.unsure.insert(key);
                        lost = Some(error);
                    }
                    Some(owner) => {
                        self.unsure.insert(key);
                        self.isolations.add(&owner, &error, now);
                        guilty.insert(owner);
                    }
                    None => lost = Some(error),
                }
            }
        }
        for name in names.iter().filter(|name| !guilty.contains(*name) && !self.withheld.contains_key(*name))
        {
            self.isolations.remove(name);
        }
        lost.map_or(Ok(()), Err)
    }
}

/// What went wrong with a change. A scheduler that the kernel does not find is a module that it does not have: there
/// is no other thing in the request that it would answer so for (`ip_vs_add_service` and `ip_vs_edit_service` in
/// net/netfilter/ipvs/ip_vs_ctl.c).
fn explained(change: &ServerChange, error: netlink::Error) -> SyncError {
    let missing = match change {
        ServerChange::AddServer(_, balancing) | ServerChange::SetServer(_, balancing)
            if error.errno() == Some(libc::ENOENT) =>
        {
            Some(balancing.scheduler.clone())
        }
        _ => None,
    };
    let mut error = said(described(change), error);
    if let (Some(scheduler), SyncError::Kernel { reason, .. }) = (missing, &mut error) {
        reason.push_str(&format!("; is there a kernel module ip_vs_{scheduler} on this node?"));
    }
    error
}

/// What a change was to do, in the words of ipvsadm.
fn described(change: &ServerChange) -> String {
    let name = |server: &VirtualServer| {
        let protocol = match i32::from(server.protocol) {
            libc::IPPROTO_TCP => "TCP",
            libc::IPPROTO_UDP => "UDP",
            _ => "SCTP",
        };
        format!("{protocol} {}", SocketAddr::new(server.address, server.port))
    };
    let real = |address: &IpAddr, port: &u16| SocketAddr::new(*address, *port);
    match change {
        ServerChange::AddServer(server, balancing) => {
            format!("add the virtual server {} with scheduler {}", name(server), balancing.scheduler)
        }
        ServerChange::SetServer(server, balancing) => {
            format!("edit the virtual server {} to scheduler {}", name(server), balancing.scheduler)
        }
        ServerChange::DeleteServer(server) => format!("delete the virtual server {}", name(server)),
        ServerChange::AddRealServer(server, r) => {
            format!("add the real server {} of {}", real(&r.address, &r.port), name(server))
        }
        ServerChange::SetRealServer(server, r) => {
            format!(
                "give the real server {} of {} weight {}",
                real(&r.address, &r.port),
                name(server),
                r.weight
            )
        }
        ServerChange::DeleteRealServer(server, address, port) => {
            format!("delete the real server {} of {}", real(address, port), name(server))
        }
    }
}
