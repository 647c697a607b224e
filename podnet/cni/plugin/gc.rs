//! `GC`: removes what containers that no longer exist have left.

use std::collections::HashSet;

use portcullis_netlink::route::Rtnetlink;

use super::super::configuration::NetworkConfiguration;
use super::super::error::{CniError, ErrorCode, Result};
use super::{host_ports, rtnetlink, store_error, store_without_ranges};
use crate::addresses::{AddressStore, AttachmentKey};
use crate::pod_interface::{self, Identity, is_pod_interface};

pub(super) fn run(configuration: &NetworkConfiguration, valid: &[AttachmentKey]) -> Result<()> {
    let mut host = rtnetlink()?;
    let store = store_without_ranges(configuration)?;
    // Before the records are read: an `ADD` that begins later has a record before it has an interface.
    let links = host.links().map_err(|error| CniError::new(ErrorCode::Kernel, error.to_string()))?;
    let mut failures = Vec::new();
    let removals = store
        .remove_all_except(valid, |key| {
            host_ports::remove(configuration, &store, key).map_err(|error| error.to_string())?;
            pod_interface::remove(&mut host, key).map(drop).map_err(|error| error.to_string())
        })
        .map_err(|error| store_error(&error))?;
    for removal in removals {
        if let Err(error) = removal.result {
            failures.push(format!("{}: {error}", removal.key));
        }
    }
    let in_use = interfaces_in_use(&store, valid)?;
    for link in links.iter().filter(|link| is_pod_interface(link) && !in_use.contains(&link.name)) {
        if let Err(error) = remove_orphan(&mut host, &link.name) {
            failures.push(format!("interface {}: {error}", link.name));
        }
    }
    match failures.is_empty() {
        true => Ok(()),
        false => Err(CniError::new(ErrorCode::IncompleteGc, "cannot remove all unused attachments")
            .with_details(failures.join("; "))),
    }
}

/// Returns the names of the interfaces of attachments: of the valid ones, and of those that are being added.
fn interfaces_in_use(store: &AddressStore, valid: &[AttachmentKey]) -> Result<HashSet<String>> {
    let listing = store.attachments().map_err(|error| store_error(&error))?;
    let recorded = listing.attachments.iter().map(|attachment| &attachment.key);
    Ok(valid.iter().chain(recorded).map(|key| Identity::new(key).host_name).collect())
}

fn remove_orphan(host: &mut Rtnetlink, name: &str) -> portcullis_netlink::Result<()> {
    // By name: its index may belong to another link by now.
    if let Some(link) = host.link(name)?.filter(is_pod_interface) {
        host.delete_link(link.index)?;
    }
    Ok(())
}
