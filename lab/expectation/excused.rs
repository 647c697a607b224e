//! Losses that no proxy by IPVS can avoid, and how many of them chance explains.
//!
//! The IPVS of an endpoint's node takes the answer of a connection that only passes through for the answer of one that
//! it remembers, if source address, source port and endpoint are the same (docs/ipvs.md, "Lost connections"). This
//! can only happen to connections that bear a node's address, which a node shares between its own connections and those
//! that it masquerades.

use crate::mode::Mode;
use crate::plan::Plan;
use crate::probe::{Outcome, Tally};

/// The kernel takes the source port of a masqueraded connection from 1024 to 65535.
const PORTS: f64 = 64_512.0;

/// The most connections of one node to one endpoint that IPVS on the endpoint's node remembers in a lab: those
/// that the node itself made to node ports. 59 to 72 were counted after 75 s of probes.
const REMEMBERED: f64 = 128.0;

/// What is less probable than this is not chance.
const CHANCE: f64 = 1e-3;

/// What is to be judged of what was seen: without the losses that chance explains in IPVS mode. The table shows them.
pub fn excused(mode: Mode, plan: &Plan, tally: &Tally) -> Tally {
    let mut judged = tally.clone();
    let has_node_source = tally.sources.iter().any(|source| {
        plan.nodes.iter().any(|node| node.addresses.contains(source) || node.bridge().contains(source))
    });
    let lost = tally.others.get(&Outcome::TimedOut).copied().unwrap_or_default();
    if mode == Mode::Ipvs && has_node_source && lost <= by_chance(tally.total()) {
        judged.others.remove(&Outcome::TimedOut);
    }
    judged
}

/// The most losses that chance explains among a number of connections, by the binomial distribution.
fn by_chance(connections: usize) -> usize {
    let p = REMEMBERED / PORTS;
    let mut exactly = (1.0 - p).powf(connections as f64);
    let mut more = 1.0 - exactly;
    let mut lost = 0;
    while more > CHANCE && lost < connections {
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
    fn chance_explains_a_few_losses() {
        for (connections, most) in [(0, 0), (1, 1), (12, 1), (24, 2), (120, 3), (2_000, 11)] {
            assert_eq!(by_chance(connections), most, "{connections} connections");
        }
    }
}
