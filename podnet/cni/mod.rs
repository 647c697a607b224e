//! The CNI plugin: what `portcullis` is when a container runtime runs it with `CNI_COMMAND` set.
//!
//! ```text
//! environment ─┐
//!              ├─► Call (pure) ─► plugin: AddressStore, PodInterface ─► CniResult or CniError ─► document
//! stdin ───────┘
//! ```
//!
//! The specification is version 1.1.0 of <https://www.cni.dev/docs/spec>. The plugin never talks to the daemon.

mod configuration;
mod environment;
mod error;
mod plugin;
mod request;
mod result;
mod usage;
mod verb;
mod version;

pub(crate) use configuration::{BRIDGE, LOOPBACK};
pub use configuration::{Capabilities, NetworkConfiguration, ValidAttachment};
pub use error::{CniError, ErrorCode, Result};
pub use plugin::main;
pub use request::{Call, Container, Request};
pub use result::{CniResult, Interface, Ip, Route};
pub use usage::usage;
pub use verb::Verb;
pub use version::CniVersion;
