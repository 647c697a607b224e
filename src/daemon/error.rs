//! Errors of the daemon.

use std::path::PathBuf;
use std::time::Duration;

use portcullis_modes::iptables::ToolError;
use portcullis_modes::ipvs::IpvsPrerequisiteError;
use portcullis_modes::nftables::NftablesPrerequisiteError;
use portcullis_policy::table::EnforceError;
use tokio::task::JoinError;

use crate::observe::http::BindError;
use crate::policy_lock::PolicyLockError;
use crate::source::UnreadableObjects;
use crate::source::{AccessError, PathError};

/// Why the daemon cannot start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// This node's name is not known.
    #[error("cannot determine this node's name: {0}")]
    NodeName(std::io::Error),
    /// The process may not change the network.
    #[error(
        "this process has no CAP_NET_ADMIN: run it as root, or give it the capability (systemd: AmbientCapabilities=, \
         Kubernetes: securityContext.capabilities.add)"
    )]
    NoNetAdmin,
    /// The process may not open raw sockets, which the iptables tools need for rules that match ipsets.
    #[error(
        "this process has no CAP_NET_RAW, which --mode=ipvs requires, as the iptables tools look up ipsets through a raw \
         socket: run it as root, give it the capability, or use --mode=nftables"
    )]
    NoNetRaw,
    /// The node's iptables tools are the legacy variant, and this process does not run as root.
    #[error(
        "the iptables tools of this node are the legacy variant, which requires root: run as root, or use --mode=nftables"
    )]
    LegacyToolsNeedRoot,
    /// The iptables tools are missing, or failed.
    #[error(transparent)]
    Tools(#[from] ToolError),
    /// A prerequisite of IPVS mode is missing.
    #[error(transparent)]
    IpvsPrerequisite(#[from] IpvsPrerequisiteError),
    /// A prerequisite of nftables mode is missing.
    #[error(transparent)]
    NftablesPrerequisite(#[from] NftablesPrerequisiteError),
    /// The kubeconfig is invalid.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The kernel cannot enforce policies.
    #[error("NetworkPolicies cannot be enforced (--network-policy): {0}")]
    Policies(#[from] EnforceError),
    /// Another process enforces policies.
    #[error("NetworkPolicies cannot be enforced (--network-policy): {0}")]
    PolicyLock(#[from] PolicyLockError),
    /// The pod network cannot be provided.
    #[error("the pod network cannot be provided (--pod-network): {0}")]
    PodNetwork(String),
    /// An address cannot be bound.
    #[error(transparent)]
    Serve(#[from] BindError),
    /// A signal handler or thread could not be set up.
    #[error("system error: {0}")]
    System(#[from] std::io::Error),
    /// A sync task panicked.
    #[error("sync task panicked: {0}")]
    Panicked(#[from] JoinError),
    /// The configuration file changed, which requires a restart.
    #[error("{} was changed; exiting, to be restarted with the new configuration", .0.display())]
    Reconfigured(PathBuf),
    /// It was stopped by a signal before it was complete.
    #[error("stopped by a signal before it was complete")]
    Stopped,
    /// With `--once`: some objects could not be read.
    #[error("{}: {unreadable}", if *.held { "nothing was written, as some objects could not be read and the kernel has rules that may serve them" } else { "incomplete, as some objects could not be read" })]
    Unreadable {
        /// The first sync was held back.
        held: bool,
        /// The objects.
        unreadable: UnreadableObjects,
    },
    /// With `--once`: the manifests cannot be read.
    #[error(transparent)]
    Manifests(#[from] PathError),
    /// With `--once`: the API server does not respond.
    #[error("no response from the API server for {0:?} (--request-timeout): {1}")]
    NoResponse(Duration, String),
    /// With `--once`: some rules could not be written.
    #[error("some rules could not be written: {0}")]
    Incomplete(String),
}
