//! Where ours differs from kube-proxy on purpose, each with a row in `docs/nftables.md`.

use portcullis_netlink::nf_tables::Packet;

use crate::outcome::{End, Outcome};
use crate::probes;
use crate::states::State;

/// A difference that is wanted.
pub struct Difference {
    pub case: &'static str,
    pub why: &'static str,
    holds: fn(&State<'_>, &Packet, &Outcome, &Outcome) -> bool,
}

/// All of them. Each must be met, or it is no difference any more.
pub const ALL: [Difference; 2] = [
    Difference {
        case: "service-cidr-change",
        why: "a ServiceCIDR counts at once, and not at the next restart",
        holds: |state, packet, theirs, ours| {
            let is_of_a_block =
                state.host.service_cidrs.iter().any(|cidr| cidr.contains(&packet.destination));
            is_of_a_block && is_untouched(packet, theirs) && ours.keys().eq([&End::Dropped])
        },
    },
    Difference {
        case: "node-ipv4-only",
        why: "where the node has no primary address, none serves node ports",
        holds: |state, packet, _, ours| {
            let own = probes::own(state).contains(&packet.destination);
            state.host.node_ip(state.family).is_none() && own && is_untouched(packet, ours)
        },
    },
];

fn is_untouched(packet: &Packet, outcome: &Outcome) -> bool {
    let to = std::net::SocketAddr::new(packet.destination, packet.destination_port);
    outcome.keys().eq([&End::Reaches { to, translated: false, masqueraded: false, mark: 0 }])
}

/// The one that explains why theirs and ours are not the same.
pub fn explanation(
    state: &State<'_>,
    packet: &Packet,
    theirs: &Outcome,
    ours: &Outcome,
) -> Option<&'static str> {
    let here = ALL.iter().filter(|difference| difference.case == state.case.name);
    here.into_iter().find(|difference| (difference.holds)(state, packet, theirs, ours)).map(|d| d.why)
}
