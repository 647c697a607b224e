//! Rejections by the kernel, with the Services that they concern.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use portcullis_netlink as netlink;
use portcullis_netlink::ip_vs::VirtualServer;
use portcullis_netlink::ipset::SetEntry;

use super::errors::cannot_do;
use super::ip_set::IpSet;
use super::kernel::ServerChange;
use super::service_objects::ServiceObjects;
use crate::error::SyncError;

/// The rejected changes of virtual servers: the first of each, since later ones are its consequences, such as a real
/// server for a missing virtual server.
#[derive(Default)]
pub(super) struct RejectedChanges(BTreeMap<VirtualServer, RejectedChange>);

/// A change that the kernel rejected.
pub(super) struct RejectedChange {
    /// The program lacks privileges, or the kernel memory: the Service is not the reason.
    pub(super) is_node_error: bool,
    pub(super) class: ChangeClass,
    /// It adds the virtual server, which the kernel does not have now.
    pub(super) is_addition: bool,
    pub(super) error: SyncError,
}

impl RejectedChanges {
    pub(super) fn add(&mut self, change: &ServerChange, error: netlink::Error) {
        self.0.entry(*change.server()).or_insert_with(|| RejectedChange {
            is_node_error: error.is_privilege_or_memory_error(),
            class: ChangeClass::new(change),
            is_addition: matches!(change, ServerChange::AddServer(..)),
            error: change_error(change, error),
        });
    }

    pub(super) fn contains(&self, server: &VirtualServer) -> bool {
        self.0.contains_key(server)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&VirtualServer, &RejectedChange)> {
        self.0.iter()
    }

    pub(super) fn servers(&self) -> impl Iterator<Item = &VirtualServer> {
        self.0.keys()
    }
}

impl IntoIterator for RejectedChanges {
    type Item = (VirtualServer, RejectedChange);
    type IntoIter = std::collections::btree_map::IntoIter<VirtualServer, RejectedChange>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// What a change writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangeClass {
    Server,
    RealServer,
}

impl ChangeClass {
    pub(super) fn new(change: &ServerChange) -> Self {
        match change {
            ServerChange::AddServer(..) | ServerChange::SetServer(..) | ServerChange::DeleteServer(_) => {
                ChangeClass::Server
            }
            ServerChange::AddRealServer(..)
            | ServerChange::SetRealServer(..)
            | ServerChange::DeleteRealServer(..) => ChangeClass::RealServer,
        }
    }
}

/// The classes of changes that the kernel accepted, other than deletions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AcceptedClasses {
    server: bool,
    real_server: bool,
}

impl AcceptedClasses {
    pub(super) fn add(&mut self, change: &ServerChange) {
        match change {
            ServerChange::AddServer(..) | ServerChange::SetServer(..) => self.server = true,
            ServerChange::AddRealServer(..) | ServerChange::SetRealServer(..) => self.real_server = true,
            ServerChange::DeleteServer(_) | ServerChange::DeleteRealServer(..) => {}
        }
    }

    pub(super) fn extend(&mut self, others: AcceptedClasses) {
        self.server |= others.server;
        self.real_server |= others.real_server;
    }

    pub(super) fn has(self, class: ChangeClass) -> bool {
        match class {
            ChangeClass::Server => self.server,
            ChangeClass::RealServer => self.real_server,
        }
    }
}

/// Entries that a set does not take, for example because it is full.
pub(super) struct RejectedEntries {
    pub(super) set: IpSet,
    pub(super) entries: HashSet<SetEntry>,
    /// The set has other entries, so that it does not reject every entry.
    pub(super) has_others: bool,
    pub(super) error: SyncError,
}

impl RejectedEntries {
    /// Returns true if a Service with these objects needs one of the entries.
    pub(super) fn are_needed_by(&self, objects: &ServiceObjects) -> bool {
        objects.entries.iter().any(|(set, entry)| *set == self.set && self.entries.contains(entry))
    }
}

/// Returns the error for a rejected change. `ENOENT` for the configuration of a virtual server has one meaning: the
/// kernel has no such scheduler (`ip_vs_add_service` and `ip_vs_edit_service` in net/netfilter/ipvs/ip_vs_ctl.c).
fn change_error(change: &ServerChange, error: netlink::Error) -> SyncError {
    let missing = match change {
        ServerChange::AddServer(_, config) | ServerChange::SetServer(_, config)
            if error.errno() == Some(libc::ENOENT) =>
        {
            Some(config.scheduler.clone())
        }
        _ => None,
    };
    let error = cannot_do(action(change), error);
    match missing {
        Some(scheduler) => {
            error.with_hint(format_args!("is there a kernel module ip_vs_{scheduler} on this node?"))
        }
        None => error,
    }
}

/// Describes a change in the terms of ipvsadm.
fn action(change: &ServerChange) -> String {
    let name = |server: &VirtualServer| {
        let protocol = match i32::from(server.protocol) {
            libc::IPPROTO_TCP => "TCP",
            libc::IPPROTO_UDP => "UDP",
            _ => "SCTP",
        };
        format!("{protocol} {}", SocketAddr::new(server.address, server.port))
    };
    match change {
        ServerChange::AddServer(server, config) => {
            format!("add the virtual server {} with scheduler {}", name(server), config.scheduler)
        }
        ServerChange::SetServer(server, config) => {
            format!("edit the virtual server {} to scheduler {}", name(server), config.scheduler)
        }
        ServerChange::DeleteServer(server) => format!("delete the virtual server {}", name(server)),
        ServerChange::AddRealServer(server, real) => {
            format!("add the real server {} of {}", real.socket_address(), name(server))
        }
        ServerChange::SetRealServer(server, real) => {
            let address = real.socket_address();
            format!("give the real server {address} of {} weight {}", name(server), real.weight)
        }
        ServerChange::DeleteRealServer(server, address) => {
            format!("delete the real server {address} of {}", name(server))
        }
    }
}

/// An address of the dummy interface that the kernel rejected.
pub(super) struct RejectedAddress {
    pub(super) address: IpAddr,
    pub(super) error: SyncError,
}
