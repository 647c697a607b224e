//! The table of egress rules (pure).

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{
    BaseChain, Chain, ChainKind, DataType, DesiredTable, Element, Expression, Field, Hook, Key, Rule, Set,
    SetSpec, TableFamily,
};

use crate::plan::PodNetworkPlan;

/// The name of the table, in the family `inet`.
pub const TABLE: &str = "portcullis-pod-network";

/// After `srcnat` (100), the priority of the proxy modes.
const PRIORITY: i32 = 110;

/// The CIDRs of this node's pods.
const PODS: &str = "pods";
/// The CIDRs to which pods' traffic is not masqueraded.
const NOT_MASQUERADED: &str = "not-masqueraded";

/// Multicast addresses (RFC 5771, RFC 4291).
const MULTICAST: [&str; 2] = ["224.0.0.0/4", "ff00::/8"];

/// The traffic of pods that is masqueraded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgressPolicy {
    /// The pod CIDRs of this node.
    pub pod_cidrs: Vec<IpNet>,
    /// CIDRs whose hosts have routes to pods: the pod CIDRs of all nodes, and those that the operator excludes.
    pub excluded: Vec<IpNet>,
}

impl EgressPolicy {
    /// Returns the policy of a node. `excluded` are the CIDRs of `--pod-network-masquerade-exclude-cidrs` and `--cluster-cidr`.
    pub fn new(plan: &PodNetworkPlan, excluded: &[IpNet]) -> Self {
        let all = plan.cluster_pod_cidrs.iter().chain(&plan.pod_cidrs).chain(excluded).copied();
        EgressPolicy { pod_cidrs: plan.pod_cidrs.clone(), excluded: all.collect() }
    }

    /// Returns true if the rules masquerade packets with these addresses that leave the node.
    pub fn masquerades(&self, source: IpAddr, destination: IpAddr) -> bool {
        let is_in = |cidrs: &[IpNet], address: IpAddr| cidrs.iter().any(|cidr| cidr.contains(&address));
        is_in(&self.pod_cidrs, source)
            && !is_in(&self.excluded, destination)
            && !is_in(&multicast(), destination)
    }
}

/// Returns the table without CIDRs.
pub(super) fn empty_table() -> DesiredTable {
    let mut table = DesiredTable::new(TableFamily::Inet, TABLE);
    table.set_comment("pods' traffic that leaves the pod network, by portcullis");
    put_policy(&mut table, &EgressPolicy::default());
    let base = BaseChain { kind: ChainKind::Nat, hook: Hook::Postrouting, priority: PRIORITY };
    let chain = Chain { base: Some(base), ..Chain::new(Family::ALL.map(masquerade).to_vec()) };
    table.put_chain(&"nat-postrouting".into(), chain);
    table
}

/// Puts the CIDRs of a policy in place of those of the previous one.
pub(super) fn put_policy(table: &mut DesiredTable, policy: &EgressPolicy) {
    let not_masqueraded: Vec<IpNet> = policy.excluded.iter().copied().chain(multicast()).collect();
    for family in Family::ALL {
        let sets = [
            (PODS, &policy.pod_cidrs, "pods of this node"),
            (NOT_MASQUERADED, &not_masqueraded, "hosts that have routes to pods"),
        ];
        for (name, cidrs, comment) in sets {
            let spec = SetSpec::new(&[DataType::address(family)]).with_intervals().with_comment(comment);
            let of_family: Vec<IpNet> =
                cidrs.iter().filter(|cidr| Family::from_address(cidr.addr()) == family).copied().collect();
            let elements = without_contained(of_family)
                .into_iter()
                .map(|cidr| (Key::from(cidr.network()), Element::range_to(cidr.broadcast().into())));
            table.put_set(&of(name, family), Set::with_elements(spec, elements));
        }
    }
}

fn multicast() -> [IpNet; 2] {
    MULTICAST.map(|cidr| cidr.parse().expect("a CIDR"))
}

fn masquerade(family: Family) -> Rule {
    let (source, destination) = (Field::Source(family), Field::Destination(family));
    Rule::new()
        .family(family)
        .is_in(&[source], of(PODS, family))
        .is_not_in(&[destination], of(NOT_MASQUERADED, family))
        .push(Expression::Masquerade { random_fully: true })
}

fn of(name: &str, family: Family) -> Arc<str> {
    let suffix = match family {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    format!("{name}-{suffix}").into()
}

/// Returns the CIDRs of one family that no other one contains, without host bits. Adjacent CIDRs are not merged: a node that joins
/// adds an element, and changes none.
fn without_contained(cidrs: Vec<IpNet>) -> Vec<IpNet> {
    let mut cidrs: Vec<IpNet> = cidrs.iter().map(IpNet::trunc).collect();
    // A CIDR comes before those that it contains.
    cidrs.sort_unstable_by_key(|cidr| (cidr.network(), cidr.prefix_len()));
    let mut kept: Vec<IpNet> = Vec::new();
    for cidr in cidrs {
        if !kept.last().is_some_and(|last| last.contains(&cidr)) {
            kept.push(cidr);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contained_cidrs_are_left_out_and_adjacent_ones_stay() {
        let nets =
            |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a CIDR")).collect::<Vec<IpNet>>();
        let rows: [(&[&str], &[&str]); 4] = [
            (&[], &[]),
            (&["10.244.1.0/24", "10.244.0.0/24", "10.244.1.0/24"], &["10.244.0.0/24", "10.244.1.0/24"]),
            (&["10.244.1.0/24", "10.0.0.0/8", "10.244.0.0/16", "11.0.0.0/8"], &["10.0.0.0/8", "11.0.0.0/8"]),
            (&["fd00::1:0/112", "fd00::/64", "fd00:0:0:1::5/64"], &["fd00::/64", "fd00:0:0:1::/64"]),
        ];
        for (given, expected) in rows {
            assert_eq!(without_contained(nets(given)), nets(expected), "{given:?}");
        }
    }

    #[test]
    fn packets_that_leave_the_pod_network_are_masqueraded() {
        let net = |text: &str| text.parse().expect("a CIDR");
        let policy = EgressPolicy {
            pod_cidrs: vec![net("10.244.1.0/24"), net("fd00:10:244:1::/64")],
            excluded: vec![net("10.244.0.0/16"), net("192.168.0.0/16")],
        };
        for (source, destination, expected) in [
            ("10.244.1.5", "8.8.8.8", true),
            ("10.244.2.5", "8.8.8.8", false),
            ("10.244.1.5", "10.244.2.5", false),
            ("10.244.1.5", "192.168.7.7", false),
            ("10.244.1.5", "224.0.0.251", false),
            ("fd00:10:244:1::5", "2001:db8::1", true),
            ("fd00:10:244:1::5", "ff02::fb", false),
        ] {
            let address = |text: &str| text.parse().expect("an address");
            assert_eq!(
                policy.masquerades(address(source), address(destination)),
                expected,
                "{source} {destination}"
            );
        }
    }

    #[test]
    fn the_table_as_nft_lists_it() {
        let mut table = empty_table();
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a CIDR")).collect();
        put_policy(
            &mut table,
            &EgressPolicy {
                pod_cidrs: nets(&["10.244.1.0/24", "fd00:10:244:1::/64"]),
                excluded: nets(&["10.244.0.0/24", "10.244.1.0/24", "192.168.0.0/16"]),
            },
        );
        let listed = table.desired().to_string();
        for line in [
            "ip saddr @pods-4 ip daddr != @not-masqueraded-4 masquerade fully-random",
            "ip6 saddr @pods-6 ip6 daddr != @not-masqueraded-6 masquerade fully-random",
            "type nat hook postrouting priority 110",
            "elements = { 10.244.0.0/24,\n",
        ] {
            assert!(listed.contains(line), "{line} is not in {listed}");
        }
    }
}
