//! IPVS schedulers, which select the real server of a new connection.

use std::fmt;

use crate::problem::Problem;

/// The annotation that selects another scheduler than the configured one for a Service. Only IPVS mode uses it.
pub const SCHEDULER_ANNOTATION: &str = "portcullis.io/ipvs-scheduler";

/// The schedulers of the kernel (`net/netfilter/ipvs/ip_vs_*.c`, ipvsadm(8)). All real servers have weight 1, so weighted
/// schedulers behave as the unweighted ones.
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
    /// Locality-based least connections with replication.
    LocalityLeastConnectionsReplicated,
    /// Destination hashing.
    DestinationHash,
    /// Source hashing.
    SourceHash,
    /// Maglev hashing.
    MaglevHash,
    /// Shortest expected delay.
    ShortestExpectedDelay,
    /// Never queue.
    NeverQueue,
    /// Weighted failover: the real server with the highest weight.
    Failover,
    /// Weighted overflow: the real server with the highest weight until it is full.
    Overflow,
    /// The better of two random choices.
    TwoRandomChoices,
}

impl IpvsScheduler {
    /// All schedulers, the default first.
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

    /// The names of all schedulers, for messages.
    pub const NAMES: &str = "rr, wrr, lc, wlc, lblc, lblcr, dh, sh, mh, sed, nq, fo, ovf or twos";

    /// Returns its name in the kernel; its module is named `ip_vs_` and this name.
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

    /// Returns the scheduler with this name in the kernel.
    pub fn from_name(name: &str) -> Option<IpvsScheduler> {
        IpvsScheduler::ALL.into_iter().find(|scheduler| scheduler.name() == name)
    }

    /// Parses the annotation of a Service. Adds a problem for an unknown name.
    pub(crate) fn parse_annotation(
        annotation: Option<&String>,
        problems: &mut Vec<Problem>,
    ) -> Option<IpvsScheduler> {
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
    fn schedulers_are_found_by_their_unique_names() {
        for scheduler in IpvsScheduler::ALL {
            assert_eq!(IpvsScheduler::from_name(scheduler.name()), Some(scheduler));
            assert!(IpvsScheduler::NAMES.split([',', ' ']).any(|name| name == scheduler.name()));
        }
        assert_eq!(IpvsScheduler::from_name("RR"), None);
        assert_eq!(IpvsScheduler::default(), IpvsScheduler::ALL[0]);
    }
}
