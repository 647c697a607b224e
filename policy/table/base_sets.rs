//! Sets and maps that every policy table has: pod addresses with the numbers of their profiles, profiles by number, identities of
//! peers, and the pick-up set.

use std::sync::Arc;

use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{DataType, Element, Key, Set, SetSpec};

use super::names::{
    CLIENTS, EGRESS, EGRESS_PROFILES, INGRESS, INGRESS_PROFILES, ITSELF, KNOWN_PODS, NODE_PROFILES,
    PEER_RANGES, PEERS, PICKED_UP, POD_RANGES, SERVERS, TO_THIS_NODE, of_family,
};
use super::options::{PolicyOptions, UnknownPods};

/// Timeout of the pick-up element in milliseconds, in case no daemon removes it before.
const PICK_UP_TIMEOUT: u64 = 120_000;

/// Returns the sets and maps without elements of pods.
pub(super) fn base_sets(options: &PolicyOptions) -> Vec<(Arc<str>, Set)> {
    let mut sets: Vec<(Arc<str>, Set)> = Vec::new();
    for family in Family::ALL {
        let address = DataType::address(family);
        let mut put = |name: &str, spec: SetSpec, comment: &str| {
            sets.push((of_family(name, family).into(), Set::new(spec.with_comment(comment))));
        };
        let numbers = || SetSpec::new(&[address]).with_data(&[DataType::ClassId]);
        put(EGRESS, numbers(), "pods whose connections to others are judged");
        put(INGRESS, numbers(), "pods to which connections are judged");
        put(TO_THIS_NODE, numbers(), "pods judged towards this node itself");
        put(PEERS, numbers(), "identities of pods and nodes as peers");
        put(PEER_RANGES, numbers().with_intervals(), "identities of addresses in ipBlocks and networks");
        put(ITSELF, SetSpec::new(&[address, address]), "a pod that talks to itself");
        if options.terminates_connections {
            put(SERVERS, SetSpec::new(&[address]), "pods to which connections are judged");
            put(CLIENTS, SetSpec::new(&[address]), "pods whose connections are judged");
        }
        if let UnknownPods::Deny { ranges } = &options.unknown_pods {
            put(KNOWN_PODS, SetSpec::new(&[address]), "all pods of this node that are known");
            let ranges = ranges.iter().filter(|range| Family::from_address(range.addr()) == family);
            let elements = ranges
                .map(|range| (Key::from(range.network()), Element::range_to(Key::from(range.broadcast()))));
            let set = Set::with_elements(SetSpec::new(&[address]).with_intervals(), elements);
            sets.push((of_family(POD_RANGES, family).into(), set));
        }
    }
    for (name, comment) in [
        (EGRESS_PROFILES, "numbers of profiles of pods whose connections to others are judged"),
        (INGRESS_PROFILES, "numbers of profiles of pods to which connections are judged"),
        (NODE_PROFILES, "numbers of profiles of pods judged towards this node itself"),
    ] {
        sets.push((name.into(), Set::new(SetSpec::verdict_map(&[DataType::ClassId]).with_comment(comment))));
    }
    let spec = SetSpec { timeout: Some(0), ..SetSpec::new(&[DataType::InetProto]) };
    let comment = "whose connections may be older than connection tracking";
    sets.push((PICKED_UP.into(), Set::new(spec.with_comment(comment))));
    sets
}

/// Returns the element by which TCP connections are picked up in their middle.
pub(super) fn pick_up_element() -> (Key, Element) {
    (Key::new().protocol(libc::IPPROTO_TCP as u8), Element::new().with_timeout(PICK_UP_TIMEOUT))
}
