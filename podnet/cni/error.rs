//! Errors of the plugin, and their documents.

use std::io;

use serde_json::{Value, json};

use super::CniVersion;

/// Error codes. 1 to 99 are those of the specification, section "Error".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ErrorCode {
    /// The configuration's version is not supported.
    IncompatibleVersion = 1,
    /// The configuration has a field with an unsupported value.
    UnsupportedField = 2,
    /// The container is unknown; the runtime need not clean up anything.
    UnknownContainer = 3,
    /// An environment variable is missing or invalid.
    InvalidEnvironment = 4,
    /// Input or output failed.
    IoFailure = 5,
    /// The configuration is not JSON.
    DecodingFailure = 6,
    /// The configuration has invalid values.
    InvalidConfiguration = 7,
    /// A condition that is expected to pass.
    TryAgainLater = 11,
    /// `STATUS`: no container can be added.
    NotAvailable = 50,
    /// The kernel rejected an interface, address or route. (From here on the codes are the plugin's own.)
    Kernel = 100,
    /// No address is free, or addresses could not be reserved.
    Addresses = 101,
    /// `CHECK`: the network of a container is not as `ADD` left it.
    Damaged = 102,
    /// `GC` could not remove everything.
    IncompleteGc = 103,
    /// A host port is in use, or could not be added.
    HostPorts = 104,
    /// A fault of the plugin itself; the reference library uses this code too.
    Internal = 999,
}

/// An error of the plugin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", details.as_deref().map(|details| format!(": {details}")).unwrap_or_default())]
pub struct CniError {
    /// The code.
    pub code: ErrorCode,
    /// The message, which runtimes show with the pod.
    pub message: String,
    /// Further explanation.
    pub details: Option<String>,
}

/// Result of an operation of the plugin.
pub type Result<T, E = CniError> = std::result::Result<T, E>;

impl CniError {
    /// Returns an error without details.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        CniError { code, message: message.into(), details: None }
    }

    /// Adds details.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = Some(details.into());
        self
    }

    /// Returns the error of a file or stream.
    pub(super) fn io(action: impl Into<String>, source: &io::Error) -> Self {
        Self::new(ErrorCode::IoFailure, format!("cannot {}: {source}", action.into()))
    }

    /// Returns the document for the runtime. Runtimes of Kubernetes show `msg` and `details` in the Event of the pod.
    pub fn document(&self, version: CniVersion) -> Value {
        let mut document = json!({
            "cniVersion": version.name(),
            "code": self.code as u32,
            "msg": self.message,
        });
        if let Some(details) = &self.details {
            document["details"] = json!(details);
        }
        document
    }
}
