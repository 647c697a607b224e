//! Connections that IPVS loses because of colliding source ports, and the number of them that is tolerated.
//!
//! IPVS on an endpoint's node matches replies of a forwarded connection to an entry of its own connection table, if source
//! address, source port and endpoint are equal (docs/ipvs.md, "Lost connections"). This affects only connections that
//! another node masquerades: their source address is that node's `InternalIP`, which the node also uses for its own
//! connections, and their source port is random. Each is lost with a probability of at most [`TABLE_ENTRIES`] /
//! [`PORTS`], so the number of losses has a binomial distribution.

use std::iter::Sum;

use crate::data_path::DataPath;
use crate::plan::ClusterPlan;
use crate::probe::{ProbeOutcome, ProbeTally};

/// Number of source ports for masqueraded connections: 1024 to 65535.
const PORTS: f64 = 64_512.0;

/// Upper bound of the entries for one client node and one endpoint in the connection table of the endpoint's node, in a
/// lab: those of the client node's own connections to node ports. 59 to 72 were counted after 75 s of probes.
const TABLE_ENTRIES: f64 = 128.0;

/// A number of losses with a probability below this is not tolerated.
const SIGNIFICANCE: f64 = 1e-3;

/// Connections that colliding source ports in IPVS can affect, and the lost ones among them: of a row, or the total of a
/// suite.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IpvsLosses {
    /// Number of connections that can be affected, including the lost ones.
    pub connections: usize,
    /// Number of connections that timed out.
    pub lost: usize,
}

impl IpvsLosses {
    /// Counts the affected connections of one client to one frontend: those to pods that saw the `InternalIP` of another
    /// node, and the timeouts. Zero with another data path, or if no pod saw such an address.
    pub fn new(data_path: DataPath, plan: &ClusterPlan, tally: &ProbeTally) -> Self {
        let masquerading = plan.nodes.iter().filter(|node| {
            data_path == DataPath::Ipvs
                && node.addresses.iter().any(|address| tally.sources.contains(address))
        });
        let masquerading: Vec<&str> = masquerading.map(|node| node.name.as_str()).collect();
        if masquerading.is_empty() {
            return Self::default();
        }
        let is_on_another_node = |responder: &str| {
            let node = plan.pod(responder).map(|pod| pod.node.as_str());
            node.is_some_and(|node| masquerading.iter().any(|other| *other != node))
        };
        let responses = tally.by_responder.iter().filter(|(responder, _)| is_on_another_node(responder));
        let lost = tally.failures.get(&ProbeOutcome::TimedOut).copied().unwrap_or_default();
        Self { connections: lost + responses.map(|(_, count)| count).sum::<usize>(), lost }
    }

    /// Returns true if colliding source ports explain the losses.
    pub fn is_tolerated(&self) -> bool {
        self.lost <= self.tolerated()
    }

    /// Returns the largest tolerated number of losses. More losses have a probability of at most `SIGNIFICANCE`.
    pub fn tolerated(&self) -> usize {
        let p = TABLE_ENTRIES / PORTS;
        let mut exactly = (1.0 - p).powf(self.connections as f64);
        let mut more = 1.0 - exactly;
        let mut lost = 0;
        while more > SIGNIFICANCE && lost < self.connections {
            exactly *= (self.connections - lost) as f64 / (lost + 1) as f64 * p / (1.0 - p);
            more -= exactly;
            lost += 1;
        }
        lost
    }
}

impl Sum for IpvsLosses {
    fn sum<I: Iterator<Item = Self>>(losses: I) -> Self {
        losses.fold(Self::default(), |sum, losses| Self {
            connections: sum.connections + losses.connections,
            lost: sum.lost + losses.lost,
        })
    }
}

/// Returns the outcomes to check: without timeouts that colliding source ports in IPVS explain.
pub fn tolerating_ipvs_losses(data_path: DataPath, plan: &ClusterPlan, tally: &ProbeTally) -> ProbeTally {
    let mut checked = tally.clone();
    let losses = IpvsLosses::new(data_path, plan, tally);
    if losses.connections > 0 && losses.is_tolerated() {
        checked.failures.remove(&ProbeOutcome::TimedOut);
    }
    checked
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::ClusterObjects;

    #[test]
    fn a_few_losses_are_tolerated() {
        for (connections, tolerated) in [(0, 0), (1, 1), (12, 1), (24, 2), (120, 3), (2_000, 11)] {
            let losses = IpvsLosses { connections, lost: 0 };
            assert_eq!(losses.tolerated(), tolerated, "{connections} connections");
        }
    }

    #[test]
    fn the_total_of_a_suite_tolerates_fewer_losses_than_its_rows() {
        let row = IpvsLosses { connections: 24, lost: 2 };
        assert!(row.is_tolerated());
        let suite: IpvsLosses = std::iter::repeat_n(row, 20).sum();
        assert_eq!((suite, suite.tolerated()), (IpvsLosses { connections: 480, lost: 40 }, 5));
        assert!(!suite.is_tolerated());
    }

    #[test]
    fn only_connections_that_another_node_masquerades_are_affected() {
        let pod = |name: &str, node: &str| {
            format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{nodeName: {node}}}}}\n---\n"
            )
        };
        let pods = pod("a", "node-1") + &pod("b", "node-2");
        let plan = ClusterObjects::parse(&pods).unwrap().plan().unwrap();
        let [node_1, node_2] = [0, 1].map(|index| plan.nodes[index].addresses[0]);
        let (bridge_1, client) = (plan.nodes[0].bridge_addresses()[0], plan.pod("a").unwrap().addresses[0]);
        // data path · source addresses · responses of a and b · timeouts · affected connections
        type Row<'a> = (DataPath, &'a [IpAddr], [usize; 2], usize, usize);
        let rows: [Row<'_>; 8] = [
            (DataPath::Ipvs, &[node_1], [0, 10], 1, 11),
            (DataPath::Ipvs, &[node_2], [10, 0], 1, 11),
            (DataPath::Ipvs, &[bridge_1, node_1], [10, 12], 2, 14),
            (DataPath::Ipvs, &[node_2], [0, 10], 0, 0),
            (DataPath::Ipvs, &[bridge_1], [10, 0], 2, 0),
            (DataPath::Ipvs, &[client], [10, 12], 2, 0),
            (DataPath::Ipvs, &[], [0, 0], 24, 0),
            (DataPath::Netfilter, &[node_1], [0, 10], 1, 0),
        ];
        for (data_path, sources, responses, timeouts, connections) in rows {
            let tally = ProbeTally {
                by_responder: ["default/a", "default/b"]
                    .map(str::to_owned)
                    .into_iter()
                    .zip(responses)
                    .collect(),
                sources: sources.iter().copied().collect(),
                failures: [(ProbeOutcome::TimedOut, timeouts)].into(),
            };
            let lost = if connections == 0 { 0 } else { timeouts };
            let losses = IpvsLosses::new(data_path, &plan, &tally);
            let row = format!("{data_path:?} {sources:?} {responses:?}");
            assert_eq!(losses, IpvsLosses { connections, lost }, "{row}");
        }
    }
}
