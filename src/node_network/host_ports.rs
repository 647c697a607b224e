//! Host ports of this node's pods: restored from the plugin's records, and apart from addresses of Services.

use std::net::IpAddr;
use std::path::Path;

use portcullis_podnet::addresses::AddressStore;
use portcullis_podnet::host_ports::{
    HostPortError, HostPortRecords, HostPortRestore, HostPorts, PodHostPorts,
};

use super::NodeNetwork;
use super::result::{NodeNetworkResult, Step};

impl NodeNetwork {
    /// Sets the addresses that Services have on an interface of this node, or will have, and excludes them from host ports.
    pub fn set_service_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.service_addresses = addresses;
        let host_ports = HostPorts::open(&self.installation.state_dir);
        let excluded = host_ports
            .map(|host_ports| host_ports.with_service_addresses(&self.service_addresses))
            .and_then(|mut host_ports| host_ports.exclude_services());
        match excluded {
            Ok(_) | Err(HostPortError::NoTables) => {}
            // The next sync does it again, and reports the error.
            Err(error) => tracing::warn!(%error, "cannot exclude addresses of Services from host ports"),
        }
    }

    pub(super) fn restore_host_ports(&self, result: &mut NodeNetworkResult) {
        match restore(&self.installation.state_dir, &self.service_addresses) {
            Ok(restored) => {
                result.host_port_changes = restored.changes;
                for conflict in &restored.conflicts {
                    let text = format_args!(
                        "host port {} of the pod at {} is not served: the pod at {} has it",
                        conflict.mapping, conflict.pod, conflict.holder
                    );
                    result.warn(Step::HostPorts, &text);
                }
                if let Err(error) = &restored.stale_flows {
                    result.warn(
                        Step::HostPorts,
                        &format_args!("cannot delete stale conntrack entries: {error}"),
                    );
                }
            }
            Err(error) => result.warn(Step::HostPorts, &error),
        }
    }
}

/// Restores the host ports from the records of pods; of two pods with the same port, the older one keeps it.
fn restore(state_dir: &Path, service_addresses: &[IpAddr]) -> Result<HostPortRestore, HostPortError> {
    let mut host_ports = HostPorts::open(state_dir)?.with_service_addresses(service_addresses);
    host_ports.restore(|| records(state_dir))
}

/// Returns the host ports of all pods, from the records of the plugin.
pub(super) fn records(state_dir: &Path) -> Result<HostPortRecords, String> {
    let listing = AddressStore::open(state_dir, &[], &[]).and_then(|store| store.attachments());
    let mut listing = listing.map_err(|error| error.to_string())?;
    listing.attachments.sort_by_key(|attachment| attachment.created);
    Ok(HostPortRecords {
        pods: listing.attachments.iter().map(PodHostPorts::from).collect(),
        is_complete: listing.unreadable.is_empty(),
    })
}
