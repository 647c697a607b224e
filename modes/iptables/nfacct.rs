//! Names of the nfacct objects that the rules count in, as kube-proxy names them.

/// The nfacct object that counts packets dropped for their connection tracking state.
pub const NFACCT_INVALID_DROPPED: &str = "ct_state_invalid_dropped_pkts";

/// The nfacct object that counts connections to node ports on loopback addresses.
pub const NFACCT_LOCALHOST_NODE_PORTS: &str = "localhost_nps_accepted_pkts";
