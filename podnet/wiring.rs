//! How pods are connected to their node.

use serde::{Deserialize, Serialize};

/// How pods are connected to their node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wiring {
    /// A veth pair and a route for each pod.
    #[default]
    Ptp,
    /// A bridge with all pods.
    Bridge,
}

impl Wiring {
    /// All kinds of wiring.
    pub const ALL: [Wiring; 2] = [Wiring::Ptp, Wiring::Bridge];

    /// Returns the name, as `--pod-network-wiring` and the CNI configuration spell it.
    pub fn name(self) -> &'static str {
        match self {
            Wiring::Ptp => "ptp",
            Wiring::Bridge => "bridge",
        }
    }

    /// Returns the wiring with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|wiring| wiring.name() == name)
    }
}
