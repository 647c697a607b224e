//! What the operator decides for this mode alone.

use ipnet::IpNet;
use portcullis_cluster::IpvsScheduler;

/// What the operator decides, from flags and configuration. All that the modes have in common is in
/// [`Options`](crate::Options).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IpvsOptions {
    /// The scheduler of Services that ask for none.
    pub scheduler: IpvsScheduler,
    /// Virtual servers with addresses in here belong to others, and stay.
    pub exclude_cidrs: Box<[IpNet]>,
}
