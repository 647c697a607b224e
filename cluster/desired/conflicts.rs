//! Conflicts between Services that claim the same frontend.
//!
//! The Service that claims it with the field of the highest precedence ([`FrontendKind`]) is served; among equals the older
//! one by `creationTimestamp`, then the one with the lower UID, then the one with the lower name. A node port also precedes
//! external IPs and load balancer addresses of other Services that are addresses of this node. The other Services are
//! *shadowed* there. The cost follows the size of a change: only Services that gained or lost a frontend are resolved again.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;

use super::frontend_address::{FrontendAddress, FrontendKind};
use crate::address::Family;
use crate::name::NamespacedName;
use crate::sparse;

/// A frontend that a Service claims and at which it is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnservedFrontend {
    /// The frontend.
    pub frontend: FrontendAddress,
    /// The field with which the Service claims it.
    pub kind: FrontendKind,
    /// The reason why the Service is not served there.
    pub reason: UnservedReason,
}

/// The reason why a Service is not served at a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnservedReason {
    /// Another Service is served there.
    Shadowed {
        /// The Service that is served.
        by: NamespacedName,
    },
    /// The address is outside of the blocks to which external addresses are restricted.
    OutsideAllowedCidrs,
}

impl fmt::Display for UnservedFrontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnservedFrontend { frontend, kind, reason } = self;
        match reason {
            UnservedReason::Shadowed { by } => {
                write!(f, "{kind} {frontend} is not served: it belongs to Service {by}")
            }
            UnservedReason::OutsideAllowedCidrs => {
                write!(f, "{kind} {frontend} is not served: it is outside of --external-address-cidrs")
            }
        }
    }
}

/// The rank of a Service among those that claim a frontend; the lowest is served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) kind: FrontendKind,
    /// The creation time in seconds since 1970. A Service without one ranks last.
    pub(super) created: i64,
    pub(super) uid: Box<str>,
    pub(super) name: NamespacedName,
}

/// The Services that claim each frontend.
#[derive(Default)]
pub(super) struct Claims(HashMap<FrontendAddress, Claimants>);

enum Claimants {
    One(NamespacedName),
    Several(Box<Conflict>),
}

struct Conflict {
    served: NamespacedName,
    all: BTreeSet<NamespacedName>,
}

/// Frontends whose served Service may change, each with the Service served before.
#[derive(Default)]
pub(super) struct AffectedFrontends(BTreeMap<FrontendAddress, Option<NamespacedName>>);

impl Claims {
    /// Returns the Service that is served at a frontend.
    pub(super) fn served(&self, frontend: &FrontendAddress) -> Option<&NamespacedName> {
        self.0.get(frontend).map(|claimants| match claimants {
            Claimants::One(only) => only,
            Claimants::Several(conflict) => &conflict.served,
        })
    }

    /// Returns the Service other than `name` that is served at a frontend claimed by `name`.
    pub(super) fn shadowing(
        &self,
        name: &NamespacedName,
        frontend: &FrontendAddress,
        kind: FrontendKind,
        node_addresses: &[IpAddr],
    ) -> Option<&NamespacedName> {
        let is_preceded = kind > FrontendKind::NodePort;
        let node_port = node_port_at(frontend, node_addresses).filter(|_| is_preceded);
        let winners = node_port.iter().chain([frontend]).filter_map(|frontend| self.served(frontend));
        winners.into_iter().find(|winner| *winner != name)
    }

    /// Replaces the frontends that a Service claims.
    pub(super) fn replace(
        &mut self,
        name: &NamespacedName,
        before: &BTreeSet<FrontendAddress>,
        after: &BTreeSet<FrontendAddress>,
        affected: &mut AffectedFrontends,
    ) {
        for frontend in before.union(after) {
            let is_conflicted = matches!(self.0.get(frontend), Some(Claimants::Several(_)));
            if is_conflicted || before.contains(frontend) != after.contains(frontend) {
                affected.0.entry(*frontend).or_insert_with(|| self.served(frontend).cloned());
            }
        }
        before.difference(after).for_each(|frontend| self.remove(name, frontend));
        after.difference(before).for_each(|frontend| self.add(name, *frontend));
    }

    /// Resolves the conflicts at the affected frontends. Returns the Services that gained or lost one.
    pub(super) fn resolve(
        &mut self,
        affected: AffectedFrontends,
        node_addresses: &[IpAddr],
        rank: impl Fn(&NamespacedName, &FrontendAddress) -> Option<Rank>,
    ) -> BTreeSet<NamespacedName> {
        let mut changed = BTreeSet::new();
        let is_node_port = |frontend: &FrontendAddress| matches!(frontend, FrontendAddress::NodePort { .. });
        let (node_ports, mut addresses): (BTreeMap<_, _>, BTreeMap<_, _>) =
            affected.0.into_iter().partition(|(frontend, _)| is_node_port(frontend));
        for (node_port, before) in node_ports {
            let winner = self.resolve_one(&node_port, None, &rank);
            if winner != before {
                for address in at_node_addresses(&node_port, node_addresses) {
                    let served = self.served(&address).cloned();
                    changed.extend(served.clone());
                    addresses.entry(address).or_insert(served);
                }
                changed.extend(before.into_iter().chain(winner));
            }
        }
        for (address, before) in addresses {
            let node_port = node_port_at(&address, node_addresses);
            let owner = node_port.and_then(|node_port| self.served(&node_port).cloned());
            let winner = self.resolve_one(&address, owner.as_ref(), &rank);
            if winner != before {
                changed.extend(before.into_iter().chain(winner));
            }
        }
        changed
    }

    /// Resolves the conflict at a frontend, and returns the Service that is served. `owner` has the same destination as node
    /// port.
    fn resolve_one(
        &mut self,
        frontend: &FrontendAddress,
        owner: Option<&NamespacedName>,
        rank: impl Fn(&NamespacedName, &FrontendAddress) -> Option<Rank>,
    ) -> Option<NamespacedName> {
        if let Some(Claimants::Several(conflict)) = self.0.get_mut(frontend) {
            let ranks = conflict.all.iter().filter_map(|name| rank(name, frontend));
            let ranks = ranks.map(|rank| match owner {
                Some(owner) if *owner == rank.name => {
                    Rank { kind: rank.kind.min(FrontendKind::NodePort), ..rank }
                }
                _ => rank,
            });
            if let Some(best) = ranks.min() {
                conflict.served = best.name;
            }
        }
        self.served(frontend).cloned()
    }

    fn add(&mut self, name: &NamespacedName, frontend: FrontendAddress) {
        match self.0.entry(frontend) {
            Entry::Vacant(vacant) => {
                vacant.insert(Claimants::One(name.clone()));
            }
            Entry::Occupied(mut occupied) => match occupied.get_mut() {
                Claimants::One(only) if only == name => {}
                Claimants::One(only) => {
                    let winner = only.clone();
                    let all = BTreeSet::from([winner.clone(), name.clone()]);
                    occupied.insert(Claimants::Several(Box::new(Conflict { served: winner, all })));
                }
                Claimants::Several(conflict) => {
                    conflict.all.insert(name.clone());
                }
            },
        }
    }

    fn remove(&mut self, name: &NamespacedName, frontend: &FrontendAddress) {
        let last = match self.0.get_mut(frontend) {
            Some(Claimants::One(only)) if only == name => None,
            Some(Claimants::Several(conflict)) => {
                conflict.all.remove(name);
                match conflict.all.first() {
                    Some(last) if conflict.all.len() == 1 => Some(last.clone()),
                    _ => return,
                }
            }
            _ => return,
        };
        match last {
            Some(last) => self.0.insert(*frontend, Claimants::One(last)),
            None => sparse::remove(&mut self.0, frontend),
        };
    }
}

/// Returns the node port with the same destination, if the address is one of this node.
fn node_port_at(frontend: &FrontendAddress, node_addresses: &[IpAddr]) -> Option<FrontendAddress> {
    frontend.ip().filter(|ip| node_addresses.contains(ip)).and_then(|_| frontend.same_node_port())
}

/// Returns the addresses of this node with the port of a node port.
fn at_node_addresses(node_port: &FrontendAddress, node_addresses: &[IpAddr]) -> Vec<FrontendAddress> {
    let FrontendAddress::NodePort { protocol, family, port } = *node_port else { return Vec::new() };
    let own = node_addresses.iter().filter(|ip| Family::from_address(**ip) == family);
    own.map(|ip| FrontendAddress::virtual_ip(protocol, *ip, port)).collect()
}
