//! The objects and problems of one node.

use ipnet::IpNet;
use portcullis_cluster::{Family, Name};
use portcullis_netlink::route::{FdbEntry, Neighbour, Route, RouteTarget};

use super::object::ForwardingObject;
use super::own_network::{family_index, underlay};
use super::problem::{NodeProblem, Reserved};
use super::vtep::{vtep_gateway, vtep_mac};
use super::{Member, NodeRoutes, UNREACHABLE_METRIC};
use crate::mode::PodNetworkMode;

/// The objects and problems of a node.
#[derive(Debug, Default)]
pub(super) struct Evaluation {
    pub(super) objects: Vec<ForwardingObject>,
    pub(super) problems: Vec<NodeProblem>,
    pub(super) accepted: Vec<IpNet>,
}

impl NodeRoutes {
    /// Returns a block of reserved addresses in a pod CIDR, and whose they are.
    pub(super) fn reserved_in(&self, cidr: IpNet) -> Option<(IpNet, Reserved)> {
        let reserved = self.reserved.overlapping(cidr).map(|(net, owner)| (*net, owner.clone()));
        reserved.or_else(|| {
            let (net, owners) = self.addresses.within(cidr).next()?;
            Some((*net, Reserved::Node(owners.first()?.clone())))
        })
    }

    /// Computes the objects and problems of a node.
    pub(super) fn evaluate(&self, name: &Name) -> Option<Evaluation> {
        let member = self.nodes.get(name)?;
        let mut evaluation = Evaluation::default();
        if member.pod_cidrs.is_empty() {
            evaluation.problems.push(NodeProblem::NoPodCidrs);
        }
        for cidr in &member.pod_cidrs {
            match self.objects_of(name, member, *cidr) {
                Ok(found) => {
                    evaluation.objects.extend(found);
                    evaluation.accepted.push(*cidr);
                }
                Err(problem) => evaluation.problems.push(problem),
            }
            if *name == self.own.node {
                evaluation.problems.extend(self.own_conflict(member, *cidr));
            }
        }
        Some(evaluation)
    }

    /// Returns the claim of an older node on a pod CIDR of this node: all other nodes send its packets there.
    fn own_conflict(&self, member: &Member, cidr: IpNet) -> Option<NodeProblem> {
        let rank = self.rank(&self.own.node, member.created);
        let older = self.claims.older(cidr, &rank, |_, cidr| self.reserved_in(cidr).is_none())?;
        Some(NodeProblem::Conflict { cidr, other: older.node, other_cidr: older.cidr })
    }

    /// Returns the objects for a pod CIDR of a node.
    fn objects_of(
        &self,
        name: &Name,
        member: &Member,
        cidr: IpNet,
    ) -> Result<Vec<ForwardingObject>, NodeProblem> {
        if let Some((reserved, owner)) = self.reserved_in(cidr) {
            return Err(NodeProblem::Reserved { cidr, reserved, owner });
        }
        if let Some(conflict) = self.conflicts.get(&(name.clone(), cidr)) {
            let (other, other_cidr) = (conflict.node.clone(), conflict.cidr);
            return Err(NodeProblem::Conflict { cidr, other, other_cidr });
        }
        let family = Family::from_net(&cidr);
        let metric = Route::default_metric(netlink_family(family));
        if *name == self.own.node {
            let route =
                Route { destination: cidr, target: RouteTarget::Unreachable, metric: UNREACHABLE_METRIC };
            return Ok(vec![ForwardingObject::Route(route)]);
        }
        let address = member.internal[family_index(family)];
        let link = address.and_then(|address| self.own.link_of(address));
        match (self.own.mode, address.zip(link)) {
            (PodNetworkMode::HostGw | PodNetworkMode::CrossSubnet, Some((address, link))) => {
                let target = RouteTarget::Gateway { link, address, is_onlink: false };
                Ok(vec![ForwardingObject::Route(Route { destination: cidr, target, metric })])
            }
            (PodNetworkMode::HostGw, None) => Err(match address {
                Some(address) => NodeProblem::NotOnLink { cidr, address },
                None => NodeProblem::NoAddress { cidr, family: Some(family) },
            }),
            (PodNetworkMode::Vxlan | PodNetworkMode::CrossSubnet, _) => {
                self.overlay(name, member, cidr, metric)
            }
        }
    }

    /// Returns the objects for a pod CIDR that is reached by the overlay.
    fn overlay(
        &self,
        name: &Name,
        member: &Member,
        cidr: IpNet,
        metric: u32,
    ) -> Result<Vec<ForwardingObject>, NodeProblem> {
        let own = self.nodes.get(&self.own.node).map_or([None; 2], |own| own.internal);
        let underlay = underlay(own, member.internal).ok_or(NodeProblem::NoAddress { cidr, family: None })?;
        let remote = member.internal[family_index(underlay)].expect("the family was chosen for it");
        let link = self.own.vtep(underlay).ok_or(NodeProblem::NoOverlay { cidr, family: underlay })?;
        let mac = vtep_mac(name);
        let gateway = vtep_gateway(mac, cidr);
        let target = RouteTarget::Gateway { link, address: gateway, is_onlink: gateway.is_ipv4() };
        Ok(vec![
            ForwardingObject::Fdb(FdbEntry { link, mac, remote }),
            ForwardingObject::Neighbour(Neighbour { link, address: gateway, mac }),
            ForwardingObject::Route(Route { destination: cidr, target, metric }),
        ])
    }
}

/// Returns the family as the netlink crate has it, which knows nothing of Kubernetes.
fn netlink_family(family: Family) -> portcullis_netlink::Family {
    match family {
        Family::V4 => portcullis_netlink::Family::V4,
        Family::V6 => portcullis_netlink::Family::V6,
    }
}
