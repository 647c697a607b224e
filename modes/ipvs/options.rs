//! The options of IPVS mode.

use ipnet::IpNet;
use portcullis_cluster::IpvsScheduler;

/// The options of IPVS mode. Those of all modes are in [`Options`](crate::Options).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IpvsOptions {
    /// The scheduler of Services without an annotation for it.
    pub scheduler: IpvsScheduler,
    /// Virtual servers with these addresses belong to other programs, and are not deleted.
    pub exclude_cidrs: Box<[IpNet]>,
}
