//! Return of the addresses of pods that ended without a `DEL`, e.g. because the runtime was killed or lost its records.

use std::path::Path;

use portcullis_podnet::addresses::{self, AddressStore, GRACE, Removal, UnreadableFile};
use portcullis_podnet::host_ports::{HostPortError, HostPorts, PodHostPorts};

/// Removes the leaked attachments, and first their host ports: another pod may get the addresses immediately. Returns the removals, and
/// the files that are not records.
pub(super) fn remove(state_dir: &Path) -> addresses::Result<(Vec<Removal>, Vec<UnreadableFile>)> {
    let store = AddressStore::open(state_dir, &[], &[])?;
    let removals = store.remove_leaked(GRACE, |key| {
        let attachment = store.get(key).map_err(|error| error.to_string())?;
        match attachment.filter(|attachment| !attachment.host_ports.is_empty()) {
            Some(attachment) => remove_host_ports(state_dir, &PodHostPorts::from(&attachment)),
            None => Ok(()),
        }
    })?;
    Ok((removals, store.attachments()?.unreadable))
}

fn remove_host_ports(state_dir: &Path, ports: &PodHostPorts) -> Result<(), String> {
    match HostPorts::open(state_dir).and_then(|mut host_ports| host_ports.remove(ports)) {
        Ok(Ok(_)) | Err(HostPortError::NoTables) => Ok(()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot delete conntrack entries of the host ports of a pod that has ended");
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}
