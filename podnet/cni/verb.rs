//! The operations of the CNI specification.

use super::CniVersion;

/// An operation, the value of `CNI_COMMAND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Adds a container to the network.
    Add,
    /// Removes a container from the network.
    Del,
    /// Compares the network of a container with the result of `ADD`.
    Check,
    /// Reports whether `ADD` can succeed.
    Status,
    /// Removes what containers that no longer exist have left.
    Gc,
    /// Reports the supported versions.
    Version,
}

impl Verb {
    /// All operations.
    pub const ALL: [Verb; 6] = [Verb::Add, Verb::Del, Verb::Check, Verb::Status, Verb::Gc, Verb::Version];

    /// Returns the value of `CNI_COMMAND`.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Add => "ADD",
            Verb::Del => "DEL",
            Verb::Check => "CHECK",
            Verb::Status => "STATUS",
            Verb::Gc => "GC",
            Verb::Version => "VERSION",
        }
    }

    /// Returns the operation with this name, which the specification writes in capitals.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.name() == name)
    }

    /// Returns the first version of the specification that has this operation.
    pub(super) fn since(self) -> CniVersion {
        match self {
            Verb::Add | Verb::Del | Verb::Version => CniVersion::V0_3_0,
            Verb::Check => CniVersion::V0_4_0,
            Verb::Status | Verb::Gc => CniVersion::V1_1_0,
        }
    }

    /// Returns true if the operation is about one interface of one container.
    pub(super) fn has_container(self) -> bool {
        matches!(self, Verb::Add | Verb::Del | Verb::Check)
    }

    /// Returns true if the operation needs the network namespace. `DEL` does not: the namespace may be gone.
    pub(super) fn needs_netns(self) -> bool {
        matches!(self, Verb::Add | Verb::Check)
    }
}
