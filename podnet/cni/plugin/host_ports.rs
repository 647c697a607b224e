//! Host ports of a container, in `ADD`, `CHECK`, `DEL` and `GC`.

use std::net::IpAddr;

use super::super::configuration::NetworkConfiguration;
use super::super::error::{CniError, ErrorCode, Result};
use crate::Wiring;
use crate::addresses::{AddressStore, Attachment, AttachmentKey};
use crate::host_ports::{HostPortError, HostPorts, PodHostPorts};

/// Adds the host ports of an attachment, which is recorded with them. `interface` is the node's end of its veth pair.
pub(super) fn add(
    configuration: &NetworkConfiguration,
    store: &AddressStore,
    attachment: &Attachment,
    interface: &str,
) -> Result<()> {
    if attachment.host_ports.is_empty() {
        return Ok(());
    }
    // The interface by which the node sends packets to the pod.
    let interface = match configuration.wiring {
        Wiring::Ptp => interface,
        Wiring::Bridge => configuration.bridge(),
    };
    let added = HostPorts::open(&configuration.state_dir())
        .and_then(|mut ports| ports.add(&PodHostPorts::from(attachment), interface, |ip| exists(store, ip)));
    if let Err(error) = added.map_err(|error| host_port_error(&error))? {
        eprintln!("portcullis: cannot delete conntrack entries of host ports of {}: {error}", attachment.key);
    }
    Ok(())
}

/// Returns the host ports of an attachment that are missing.
pub(super) fn missing(configuration: &NetworkConfiguration, attachment: &Attachment) -> Result<Vec<String>> {
    if attachment.host_ports.is_empty() {
        return Ok(Vec::new());
    }
    let missing = HostPorts::open(&configuration.state_dir())
        .and_then(|mut ports| ports.missing(&PodHostPorts::from(attachment)));
    let missing = missing.map_err(|error| host_port_error(&error))?;
    Ok(missing.iter().map(|mapping| format!("host port {mapping} does not lead to the pod")).collect())
}

/// Removes the host ports of an attachment, if it has any.
pub(super) fn remove(
    configuration: &NetworkConfiguration,
    store: &AddressStore,
    key: &AttachmentKey,
) -> Result<()> {
    // The daemon removes ports whose record cannot be read.
    let Ok(Some(attachment)) = store.get(key) else { return Ok(()) };
    if attachment.host_ports.is_empty() {
        return Ok(());
    }
    let removed = HostPorts::open(&configuration.state_dir())
        .and_then(|mut ports| ports.remove(&PodHostPorts::from(&attachment)));
    match removed {
        Ok(Ok(_)) | Err(HostPortError::NoTables) => Ok(()),
        Ok(Err(error)) => {
            eprintln!("portcullis: cannot delete conntrack entries of host ports of {key}: {error}");
            Ok(())
        }
        Err(error) => Err(host_port_error(&error)),
    }
}

/// Returns true unless an address belongs to no pod, or to one whose network namespace has gone.
fn exists(store: &AddressStore, address: IpAddr) -> bool {
    match store.holder(address) {
        Ok(None) => false,
        Ok(Some(key)) => match store.get(&key) {
            Ok(Some(attachment)) => attachment.netns.exists(),
            Ok(None) => false,
            Err(_) => true,
        },
        Err(_) => true,
    }
}

fn host_port_error(error: &HostPortError) -> CniError {
    let code = match error {
        HostPortError::MappedTwice { .. } | HostPortError::NoAddress { .. } => {
            ErrorCode::InvalidConfiguration
        }
        HostPortError::Lock { .. } | HostPortError::Records(_) => ErrorCode::IoFailure,
        HostPortError::Conflict { .. }
        | HostPortError::NoTables
        | HostPortError::Kernel(_)
        | HostPortError::Loopback { .. } => ErrorCode::HostPorts,
    };
    CniError::new(code, error.to_string())
}
