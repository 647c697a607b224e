//! Intended differences from kube-proxy, each described in `docs/nftables.md`.

use portcullis_netlink::nf_tables::Packet;

use crate::outcome::{Outcome, Outcomes};
use crate::probes;
use crate::states::State;

/// An intended difference.
pub struct IntendedDifference {
    pub case: &'static str,
    pub why: &'static str,
    matches: fn(&State<'_>, &Packet, &Outcomes, &Outcomes) -> bool,
}

/// All intended differences. Each must occur; otherwise it is obsolete.
pub const ALL: [IntendedDifference; 2] = [
    IntendedDifference {
        case: "service-cidr-change",
        why: "a new ServiceCIDR takes effect immediately, not at the next restart",
        matches: |state, packet, theirs, ours| {
            let is_in_service_cidr =
                state.node.service_cidrs.iter().any(|cidr| cidr.contains(&packet.destination));
            is_in_service_cidr && is_untouched(packet, theirs) && ours.keys().eq([&Outcome::Dropped])
        },
    },
    IntendedDifference {
        case: "node-ipv4-only",
        why: "a node without a primary address of a family serves no node ports on it",
        matches: |state, packet, _, ours| {
            let is_own = probes::node_addresses(state).contains(&packet.destination);
            state.node.node_ip(state.family).is_none() && is_own && is_untouched(packet, ours)
        },
    },
];

fn is_untouched(packet: &Packet, outcome: &Outcomes) -> bool {
    let to = std::net::SocketAddr::new(packet.destination, packet.destination_port);
    outcome.keys().eq([&Outcome::Forwarded { to, is_translated: false, is_masqueraded: false, mark: 0 }])
}

/// Returns the reason of the intended difference that applies, if any.
pub fn explanation(
    state: &State<'_>,
    packet: &Packet,
    theirs: &Outcomes,
    ours: &Outcomes,
) -> Option<&'static str> {
    let here = ALL.iter().filter(|difference| difference.case == state.case.name);
    here.into_iter().find(|difference| (difference.matches)(state, packet, theirs, ours)).map(|d| d.why)
}
