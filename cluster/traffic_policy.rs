//! Traffic policies of Services.

use std::fmt;

/// A traffic policy (`internalTrafficPolicy`, `externalTrafficPolicy`): the endpoints among which connections are
/// distributed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TrafficPolicy {
    /// All endpoints, narrowed down by topology hints.
    #[default]
    Cluster,
    /// The endpoints on this node.
    Local,
}

impl TrafficPolicy {
    /// Both policies.
    pub const ALL: [TrafficPolicy; 2] = [TrafficPolicy::Cluster, TrafficPolicy::Local];

    /// Returns the policy that a field of a Service names. Any value but `Local` is the default, as in kube-proxy.
    pub(crate) fn from_field(text: Option<&str>) -> TrafficPolicy {
        if text == Some("Local") { TrafficPolicy::Local } else { TrafficPolicy::Cluster }
    }

    /// Returns its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            TrafficPolicy::Cluster => "Cluster",
            TrafficPolicy::Local => "Local",
        }
    }

    /// Returns true for `Local`.
    pub fn is_local(self) -> bool {
        self == TrafficPolicy::Local
    }
}

impl fmt::Display for TrafficPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
