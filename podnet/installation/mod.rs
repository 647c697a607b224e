//! Installation of the CNI plugin, and the readiness of the node's pod network.
//!
//! ```text
//! plugin binary ─► routes, egress rules ─► not-ready is removed ─► CNI configuration, last
//! ```
//! A container runtime uses the first configuration in `/etc/cni/net.d`; the node becomes Ready with it. So it is written last, in one
//! step. A runtime that implements `STATUS` (CNI 1.1.0) also asks the plugin, which returns the reason in the file `not-ready`.
//!
//! When the daemon stops, binary and configuration stay: the plugin works without the daemon, and pods can be started while the
//! daemon is updated. They are removed by `portcullis cleanup`.

mod atomic_file;
mod configuration;
mod error;
mod installed_files;
mod other_configurations;
mod plugin_binary;
mod readiness;

pub use configuration::{ConfigurationList, HOST_LOCAL_FOLDERS, NETWORK};
pub use error::InstallationError;
pub use installed_files::{Installation, RemovedFile};
pub use other_configurations::PrecedingConfiguration;
pub use plugin_binary::is_plugin;
pub use readiness::NOT_READY;
