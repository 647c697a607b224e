//! The part of the setup that needs more privileges than the daemon has in a container (`--init-only`).

use std::path::Path;

use portcullis_netlink::Family;
use portcullis_podnet::egress::{KernelSetting, UnsetSetting, enable_forwarding};
use portcullis_podnet::installation::InstallationError;

use super::{OWN_BINARY, installation};
use crate::config;

/// The node could not be set up for the pod network.
#[derive(Debug, thiserror::Error)]
pub enum NodeSetupError {
    /// A kernel setting could not be written.
    #[error("{0}")]
    Setting(UnsetSetting),
    /// The CNI plugin, or the folder of its configuration, could not be installed.
    #[error("cannot install the CNI plugin: {0}")]
    Plugin(#[from] InstallationError),
}

/// Enables forwarding and installs the CNI plugin. The families of pods are not known yet, so all families of the kernel are set up.
///
/// # Errors
/// The first setting that could not be written; the plugin could not be installed.
pub fn set_up_node(config: &config::PodNetwork) -> Result<(), NodeSetupError> {
    let proc = Path::new("/proc");
    let exists = |family: &Family| match family {
        Family::V4 => true,
        Family::V6 => proc.join("sys/net/ipv6").exists(),
    };
    match enable_forwarding(proc, Family::ALL.into_iter().filter(exists)) {
        Ok(changed) => log_settings(&changed),
        Err(unset) => {
            let first = unset.into_iter().next().map(NodeSetupError::Setting);
            return Err(first.expect("an error names a setting"));
        }
    }
    let installation = installation(config);
    installation.create_configuration_folder()?;
    if installation.install_plugin(Path::new(OWN_BINARY))? {
        tracing::info!(path = %installation.plugin().display(), "CNI plugin installed");
    }
    if installation.install_loopback()? {
        tracing::info!("CNI plugin loopback installed, as there was none");
    }
    Ok(())
}

pub(super) fn log_settings(changed: &[KernelSetting]) {
    for KernelSetting { name, before, value } in changed {
        tracing::info!(setting = name, was = before, value, "kernel setting changed");
    }
}
