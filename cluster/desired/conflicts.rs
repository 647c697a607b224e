//! Conflicts: several Services that claim one frontend, of which one is served.
//!
//! The Service that has the frontend by the field of the highest precedence ([`FrontendKind`]) is served; among
//! equals the older one by `creationTimestamp`, then the one with the lesser UID, then the one with the lesser name.
//! A node port also precedes external IPs and load balancer addresses of other Services that are addresses of this
//! node. The other Services are *shadowed* there. What a change costs follows the change: only Services that won or
//! lost a frontend are resolved again.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;

use super::frontend::{Frontend, FrontendKind};
use crate::address::Family;
use crate::name::NamespacedName;

/// A frontend that a Service asks for and is not served at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnservedFrontend {
    /// The frontend.
    pub frontend: Frontend,
    /// The field by which the Service asks for it.
    pub kind: FrontendKind,
    /// Why the Service is not served there.
    pub reason: UnservedReason,
}

/// Why a Service is not served at a frontend.
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

/// What decides between two Services that claim one frontend; the lesser is served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) kind: FrontendKind,
    /// In seconds since 1970. One that is not known counts as the youngest.
    pub(super) created: i64,
    pub(super) uid: Box<str>,
    pub(super) name: NamespacedName,
}

/// The Services that claim each frontend.
#[derive(Default)]
pub(super) struct Claims(HashMap<Frontend, Claimants>);

enum Claimants {
    One(NamespacedName),
    Several(Box<Contest>),
}

struct Contest {
    winner: NamespacedName,
    all: BTreeSet<NamespacedName>,
}

/// Frontends whose winner may change, each with its winner before.
#[derive(Default)]
pub(super) struct Reconsidered(BTreeMap<Frontend, Option<NamespacedName>>);

impl Claims {
    /// The Service that is served at a frontend.
    pub(super) fn winner(&self, frontend: &Frontend) -> Option<&NamespacedName> {
        self.0.get(frontend).map(|claimants| match claimants {
            Claimants::One(only) => only,
            Claimants::Several(contest) => &contest.winner,
        })
    }

    /// The Service other than `name` that is served at a frontend which `name` claims.
    pub(super) fn shadowing(
        &self,
        name: &NamespacedName,
        frontend: &Frontend,
        kind: FrontendKind,
        node_addresses: &[IpAddr],
    ) -> Option<&NamespacedName> {
        let is_preceded = kind > FrontendKind::NodePort;
        let node_port = node_port_at(frontend, node_addresses).filter(|_| is_preceded);
        let winners = node_port.iter().chain([frontend]).filter_map(|frontend| self.winner(frontend));
        winners.into_iter().find(|winner| *winner != name)
    }

    /// Replaces the frontends that a Service claims.
    pub(super) fn replace(
        &mut self,
        name: &NamespacedName,
        before: &BTreeSet<Frontend>,
        after: &BTreeSet<Frontend>,
        reconsidered: &mut Reconsidered,
    ) {
        for frontend in before.union(after) {
            let is_contested = matches!(self.0.get(frontend), Some(Claimants::Several(_)));
            if is_contested || before.contains(frontend) != after.contains(frontend) {
                reconsidered.0.entry(*frontend).or_insert_with(|| self.winner(frontend).cloned());
            }
        }
        before.difference(after).for_each(|frontend| self.remove(name, frontend));
        after.difference(before).for_each(|frontend| self.add(name, *frontend));
    }

    /// Decides who is served at the frontends that were reconsidered. Gives the Services that won or lost one.
    pub(super) fn decide(
        &mut self,
        reconsidered: Reconsidered,
        node_addresses: &[IpAddr],
        rank: impl Fn(&NamespacedName, &Frontend) -> Option<Rank>,
    ) -> BTreeSet<NamespacedName> {
        let mut changed = BTreeSet::new();
        let is_node_port = |frontend: &Frontend| matches!(frontend, Frontend::NodePort { .. });
        let (node_ports, mut addresses): (BTreeMap<_, _>, BTreeMap<_, _>) =
            reconsidered.0.into_iter().partition(|(frontend, _)| is_node_port(frontend));
        for (node_port, before) in node_ports {
            let winner = self.decide_one(&node_port, None, &rank);
            if winner != before {
                for address in at_node_addresses(&node_port, node_addresses) {
                    let served = self.winner(&address).cloned();
                    changed.extend(served.clone());
                    addresses.entry(address).or_insert(served);
                }
                changed.extend(before.into_iter().chain(winner));
            }
        }
        for (address, before) in addresses {
            let node_port = node_port_at(&address, node_addresses);
            let owner = node_port.and_then(|node_port| self.winner(&node_port).cloned());
            let winner = self.decide_one(&address, owner.as_ref(), &rank);
            if winner != before {
                changed.extend(before.into_iter().chain(winner));
            }
        }
        changed
    }

    /// Decides who is served at a frontend. `owner`: the Service whose node port it is, too.
    fn decide_one(
        &mut self,
        frontend: &Frontend,
        owner: Option<&NamespacedName>,
        rank: impl Fn(&NamespacedName, &Frontend) -> Option<Rank>,
    ) -> Option<NamespacedName> {
        if let Some(Claimants::Several(contest)) = self.0.get_mut(frontend) {
            let ranks = contest.all.iter().filter_map(|name| rank(name, frontend));
            let ranks = ranks.map(|rank| match owner {
                Some(owner) if *owner == rank.name => {
                    Rank { kind: rank.kind.min(FrontendKind::NodePort), ..rank }
                }
                _ => rank,
            });
            if let Some(best) = ranks.min() {
                contest.winner = best.name;
            }
        }
        self.winner(frontend).cloned()
    }

    fn add(&mut self, name: &NamespacedName, frontend: Frontend) {
        match self.0.entry(frontend) {
            Entry::Vacant(vacant) => {
                vacant.insert(Claimants::One(name.clone()));
            }
            Entry::Occupied(mut occupied) => match occupied.get_mut() {
                Claimants::One(only) if only == name => {}
                Claimants::One(only) => {
                    let winner = only.clone();
                    let all = BTreeSet::from([winner.clone(), name.clone()]);
                    occupied.insert(Claimants::Several(Box::new(Contest { winner, all })));
                }
                Claimants::Several(contest) => {
                    contest.all.insert(name.clone());
                }
            },
        }
    }

    fn remove(&mut self, name: &NamespacedName, frontend: &Frontend) {
        let last = match self.0.get_mut(frontend) {
            Some(Claimants::One(only)) if only == name => None,
            Some(Claimants::Several(contest)) => {
                contest.all.remove(name);
                match contest.all.first() {
                    Some(last) if contest.all.len() == 1 => Some(last.clone()),
                    _ => return,
                }
            }
            _ => return,
        };
        match last {
            Some(last) => self.0.insert(*frontend, Claimants::One(last)),
            None => self.0.remove(frontend),
        };
    }
}

/// The node port that is reached at an address of this node.
fn node_port_at(frontend: &Frontend, node_addresses: &[IpAddr]) -> Option<Frontend> {
    match *frontend {
        Frontend::Address { protocol, ip, port } if node_addresses.contains(&ip) => {
            Some(Frontend::NodePort { protocol, family: Family::from_address(ip), port })
        }
        _ => None,
    }
}

/// The addresses of this node with the port of a node port.
fn at_node_addresses(node_port: &Frontend, node_addresses: &[IpAddr]) -> Vec<Frontend> {
    let Frontend::NodePort { protocol, family, port } = *node_port else { return Vec::new() };
    let own = node_addresses.iter().filter(|ip| Family::from_address(**ip) == family);
    own.map(|ip| Frontend::address(protocol, *ip, port)).collect()
}
