//! Connections that IPVS loses because of colliding source ports, and the number of them that is tolerated.
//!
//! IPVS on an endpoint's node matches replies of a forwarded connection to an entry of its own connection table, if source
//! address, source port and endpoint are equal (docs/ipvs.md, "Lost connections"). This affects only connections with a
//! node's source address, because a node uses it for its own connections and for those that it masquerades.

use crate::data_path::DataPath;
use crate::plan::ClusterPlan;
use crate::probe::{ProbeOutcome, ProbeTally};

/// Number of source ports for masqueraded connections: 1024 to 65535.
const PORTS: f64 = 64_512.0;

/// Upper bound of the entries for one client node and one endpoint in the connection table of the endpoint's node, in a
/// lab: those of the client node's own connections to node ports. 59 to 72 were counted after 75 s of probes.
const TABLE_ENTRIES: f64 = 128.0;

/// Losses with a probability below this are not tolerated.
const SIGNIFICANCE: f64 = 1e-3;

/// Returns the outcomes to check: in IPVS mode without timeouts that colliding source ports explain.
pub fn tolerating_ipvs_losses(data_path: DataPath, plan: &ClusterPlan, tally: &ProbeTally) -> ProbeTally {
    let mut checked = tally.clone();
    let has_node_source = tally.sources.iter().any(|source| {
        plan.nodes
            .iter()
            .any(|node| node.addresses.contains(source) || node.bridge_addresses().contains(source))
    });
    let lost = tally.failures.get(&ProbeOutcome::TimedOut).copied().unwrap_or_default();
    if data_path == DataPath::Ipvs && has_node_source && lost <= tolerated(tally.total()) {
        checked.failures.remove(&ProbeOutcome::TimedOut);
    }
    checked
}

/// Returns the largest tolerated number of losses among a number of connections: more have a probability of at most
/// [`SIGNIFICANCE`] by the binomial distribution.
fn tolerated(connections: usize) -> usize {
    let p = TABLE_ENTRIES / PORTS;
    let mut exactly = (1.0 - p).powf(connections as f64);
    let mut more = 1.0 - exactly;
    let mut lost = 0;
    while more > SIGNIFICANCE && lost < connections {
        exactly *= (connections - lost) as f64 / (lost + 1) as f64 * p / (1.0 - p);
        more -= exactly;
        lost += 1;
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_losses_are_tolerated() {
        for (connections, most) in [(0, 0), (1, 1), (12, 1), (24, 2), (120, 3), (2_000, 11)] {
            assert_eq!(tolerated(connections), most, "{connections} connections");
        }
    }
}
