//! Versions of the CNI specification.

use std::fmt;

/// A version of the CNI specification that this plugin speaks. Versions 0.1.0 and 0.2.0 have one address per family and no
/// interfaces in their results; every runtime of Kubernetes has spoken a later version for years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CniVersion {
    /// 0.3.0, the first with lists of interfaces and addresses, and with chains of plugins.
    V0_3_0,
    /// 0.3.1.
    V0_3_1,
    /// 0.4.0, the first with `CHECK`, and with `prevResult` in `DEL`.
    V0_4_0,
    /// 1.0.0, in whose results an address has no `version`.
    V1_0_0,
    /// 1.1.0, the first with `STATUS`, `GC` and the MTU of interfaces.
    V1_1_0,
}

impl CniVersion {
    /// All versions, the oldest first.
    pub const ALL: [CniVersion; 5] =
        [CniVersion::V0_3_0, CniVersion::V0_3_1, CniVersion::V0_4_0, CniVersion::V1_0_0, CniVersion::V1_1_0];

    /// The version of documents that answer a request whose version is unknown.
    pub const LATEST: CniVersion = CniVersion::V1_1_0;

    /// Returns the version as the specification spells it.
    pub fn name(self) -> &'static str {
        match self {
            CniVersion::V0_3_0 => "0.3.0",
            CniVersion::V0_3_1 => "0.3.1",
            CniVersion::V0_4_0 => "0.4.0",
            CniVersion::V1_0_0 => "1.0.0",
            CniVersion::V1_1_0 => "1.1.0",
        }
    }

    /// Returns the version with this name; `None` if this plugin does not speak it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.name() == name)
    }

    /// Returns the names of all versions.
    pub(super) fn names() -> Vec<&'static str> {
        Self::ALL.map(CniVersion::name).to_vec()
    }

    /// Returns true if an address of a result has the key `version`, "4" or "6".
    pub(super) fn has_address_version(self) -> bool {
        self < CniVersion::V1_0_0
    }

    /// Returns true if an interface of a result may have the key `mtu`.
    pub(super) fn has_interface_mtu(self) -> bool {
        self >= CniVersion::V1_1_0
    }
}

impl fmt::Display for CniVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
