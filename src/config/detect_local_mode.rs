//! `--detect-local-mode`, which may refer to the Node object.

use ipnet::IpNet;
use portcullis_modes::DetectLocal;

/// The configured detection of traffic from this node's pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetectLocalMode {
    /// By the Node's `spec.podCIDRs` (`NodeCIDR`), which may become known late.
    NodeCidr,
    /// By a property that the configuration contains.
    Fixed(DetectLocal),
}

impl Default for DetectLocalMode {
    fn default() -> Self {
        Self::Fixed(DetectLocal::default())
    }
}

impl DetectLocalMode {
    /// Returns the property by which traffic is recognised on a node with these pod CIDRs.
    pub fn resolve(&self, pod_cidrs: &[IpNet]) -> DetectLocal {
        match self {
            DetectLocalMode::NodeCidr => DetectLocal::Cidrs(pod_cidrs.into()),
            DetectLocalMode::Fixed(detect_local) => detect_local.clone(),
        }
    }
}
