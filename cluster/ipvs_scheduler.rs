//! IPVS schedulers: how a virtual server picks the real server of a new connection.

use std::fmt;

use crate::problem::Problem;

/// The annotation by which a Service asks for another scheduler than the one configured. Only ipvs mode
/// looks at it.
pub const SCHEDULER_ANNOTATION: &str = "portcullis.io/ipvs-scheduler";

/// The schedulers of the kernel (`net/netfilter/ipvs/ip_vs_*.c`, ipvsadm(8)). Real servers all have the weight 1,
/// so the weighted ones do as their simple namesakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum IpvsScheduler {
    /// Round robin, kube-proxy's default.
    #[default]
    RoundRobin,
    /// Weighted round robin.
    WeightedRoundRobin,
    /// Least connections.
    LeastConnections,
    /// Weighted least connections.
    WeightedLeastConnections,
    /// Locality-based least connections.
    LocalityLeastConnections,
    /// The same, with replication.
    LocalityLeastConnectionsReplicated,
    /// By a hash of the destination.
    DestinationHash,
    /// By a hash of the source.
    SourceHash,
    /// By Maglev's consistent hash.
    MaglevHash,
    /// Shortest expected delay.
    ShortestExpectedDelay,
    /// Never queue.
    NeverQueue,
    /// The first of the highest weight.
    Failover,
    /// The first until it is full.
    Overflow,
    /// The better of two chosen at random.
    TwoRandomChoices,
}

impl IpvsScheduler {
    /// All of them, the default first.
    pub const ALL: [IpvsScheduler; 14] = [
        IpvsScheduler::RoundRobin,
        IpvsScheduler::WeightedRoundRobin,
        IpvsScheduler::LeastConnections,
        IpvsScheduler::WeightedLeastConnections,
        IpvsScheduler::LocalityLeastConnections,
        IpvsScheduler::LocalityLeastConnectionsReplicated,
        IpvsScheduler::DestinationHash,
        IpvsScheduler::SourceHash,
        IpvsScheduler::MaglevHash,
        IpvsScheduler::ShortestExpectedDelay,
        IpvsScheduler::NeverQueue,
        IpvsScheduler::Failover,
        IpvsScheduler::Overflow,
        IpvsScheduler::TwoRandomChoices,
    ];

    /// The names of all, for who has to choose.
    pub const NAMES: &str = "rr, wrr, lc, wlc, lblc, lblcr, dh, sh, mh, sed, nq, fo, ovf or twos";

    /// The kernel's name; that of its module is `ip_vs_` and this.
    pub fn name(self) -> &'static str {
        match self {
            IpvsScheduler::RoundRobin => "rr",
            IpvsScheduler::WeightedRoundRobin => "wrr",
            IpvsScheduler::LeastConnections => "lc",
            IpvsScheduler::WeightedLeastConnections => "wlc",
            IpvsScheduler::LocalityLeastConnections => "lblc",
            IpvsScheduler::LocalityLeastConnectionsReplicated => "lblcr",
            IpvsScheduler::DestinationHash => "dh",
            IpvsScheduler::SourceHash => "sh",
            IpvsScheduler::MaglevHash => "mh",
            IpvsScheduler::ShortestExpectedDelay => "sed",
            IpvsScheduler::NeverQueue => "nq",
            IpvsScheduler::Failover => "fo",
            IpvsScheduler::Overflow => "ovf",
            IpvsScheduler::TwoRandomChoices => "twos",
        }
    }

    /// The scheduler that the kernel knows by this name.
    pub fn from_name(name: &str) -> Option<IpvsScheduler> {
        IpvsScheduler::ALL.into_iter().find(|scheduler| scheduler.name() == name)
    }

    /// Reads the annotation of a Service. `None` without one, and, with a problem, for a name that is none.
    pub(crate) fn read(annotation: Option<&String>, problems: &mut Vec<Problem>) -> Option<IpvsScheduler> {
        let name = annotation?;
        let scheduler = IpvsScheduler::from_name(name);
        if scheduler.is_none() {
            let field = format!("metadata.annotations[{SCHEDULER_ANNOTATION}]");
            problems.push(Problem::new(field, name, IpvsScheduler::NAMES));
        }
        scheduler
    }
}

impl fmt::Display for IpvsScheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_of_its_own_and_is_found_by_it() {
        for scheduler in IpvsScheduler::ALL {
            assert_eq!(IpvsScheduler::from_name(scheduler.name()), Some(scheduler));
            assert!(IpvsScheduler::NAMES.split([',', ' ']).any(|name| name == scheduler.name()));
        }
        assert_eq!(IpvsScheduler::from_name("RR"), None);
        assert_eq!(IpvsScheduler::default(), IpvsScheduler::ALL[0]);
    }
}
