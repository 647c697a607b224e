//! Translation of the API's rules to compiled rules. Rules that can never match are omitted.

use ipnet::IpNet;
use portcullis_cluster::cluster_network_policy::{
    ClusterNetworkPolicy, ClusterNetworkPolicyAction, ClusterNetworkPolicyPeer, ClusterNetworkPolicyPort,
};
use portcullis_cluster::label_selector::LabelSelector;
use portcullis_cluster::network_policy::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, PortNumber};
use portcullis_cluster::{Index, Name, NamespacedName, Protocol};

use super::address_ranges::AddressRanges;
use super::named_port::NamedPortId;
use super::peer_set::{NamespaceScope, PeerSelector, PeerSetId};
use super::policy_id::{Direction, PolicyId, RulesId};
use super::ports::{NumericPorts, ProtocolPorts, RulePorts};
use super::rule::{PolicyRule, RuleAction, RulePeers};

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// Returns the compiled rules of a policy in the index in one direction.
pub(super) fn rules(index: &Index, id: &RulesId) -> Vec<PolicyRule> {
    match &id.policy {
        PolicyId::Network(key) => {
            let policy = index.network_policy(key);
            policy.map(|policy| network_policy_rules(policy, id.direction)).unwrap_or_default()
        }
        PolicyId::Cluster(name) => {
            let key = NamespacedName { namespace: Name::new(""), name: name.clone() };
            let policy = index.cluster_network_policy(&key);
            policy.map(|policy| cluster_policy_rules(policy, id.direction)).unwrap_or_default()
        }
    }
}

/// Returns the compiled rules of a NetworkPolicy; empty if it does not apply to the direction.
fn network_policy_rules(policy: &NetworkPolicy, direction: Direction) -> Vec<PolicyRule> {
    let rules = match direction {
        Direction::Ingress => &policy.ingress,
        Direction::Egress => &policy.egress,
    };
    let compiled = rules.iter().flatten().enumerate().map(|(index, rule)| PolicyRule {
        index,
        name: None,
        action: RuleAction::Accept,
        peers: match &rule.peers {
            None => RulePeers { any: true, ..RulePeers::default() },
            Some(peers) => network_peers(peers, &policy.key.namespace),
        },
        ports: match &rule.ports {
            None => RulePorts::Any,
            Some(ports) => network_ports(ports, direction),
        },
    });
    compiled.filter(can_match).collect()
}

/// Returns the compiled rules of a ClusterNetworkPolicy.
fn cluster_policy_rules(policy: &ClusterNetworkPolicy, direction: Direction) -> Vec<PolicyRule> {
    compiled_cluster_rules(policy, direction).collect()
}

/// Returns true if a ClusterNetworkPolicy has a rule that can match.
pub(super) fn has_cluster_policy_rules(policy: &ClusterNetworkPolicy, direction: Direction) -> bool {
    compiled_cluster_rules(policy, direction).next().is_some()
}

fn compiled_cluster_rules(
    policy: &ClusterNetworkPolicy,
    direction: Direction,
) -> impl Iterator<Item = PolicyRule> {
    let rules = match direction {
        Direction::Ingress => &policy.ingress,
        Direction::Egress => &policy.egress,
    };
    let compiled = rules.iter().enumerate().map(move |(index, rule)| PolicyRule {
        index,
        name: rule.name.clone(),
        action: match rule.action {
            ClusterNetworkPolicyAction::Accept => RuleAction::Accept,
            ClusterNetworkPolicyAction::Deny => RuleAction::Deny,
            ClusterNetworkPolicyAction::Pass => RuleAction::Pass,
        },
        peers: cluster_peers(&rule.peers),
        ports: match &rule.ports {
            None => RulePorts::Any,
            Some(ports) => cluster_ports(ports, direction),
        },
    });
    compiled.filter(can_match)
}

fn can_match(rule: &PolicyRule) -> bool {
    !rule.peers.is_empty() && !rule.ports.is_empty()
}

fn network_peers(peers: &[NetworkPolicyPeer], own: &Name) -> RulePeers {
    let (mut selectors, mut blocks) = (Vec::new(), Vec::<(&IpNet, &[IpNet])>::new());
    for peer in peers {
        match peer {
            NetworkPolicyPeer::Pods { pods, namespaces } => {
                let namespaces = match namespaces {
                    None => NamespaceScope::One(own.clone()),
                    Some(selector) => NamespaceScope::Selected(selector.clone()),
                };
                selectors.push(PeerSelector::Pods { namespaces, pods: pods.clone().unwrap_or_default() });
            }
            NetworkPolicyPeer::Block { cidr, except } => blocks.push((cidr, except)),
            NetworkPolicyPeer::Invalid => {}
        }
    }
    RulePeers { any: false, pods: peer_set(selectors), blocks: AddressRanges::union(blocks) }
}

fn cluster_peers(peers: &[ClusterNetworkPolicyPeer]) -> RulePeers {
    let (mut selectors, mut blocks) = (Vec::new(), Vec::<(&IpNet, &[IpNet])>::new());
    for peer in peers {
        match peer {
            ClusterNetworkPolicyPeer::Pods(found) => {
                let namespaces = NamespaceScope::Selected(found.namespaces.clone());
                selectors.push(PeerSelector::Pods { namespaces, pods: found.pods.clone() });
            }
            ClusterNetworkPolicyPeer::Nodes(selector) => {
                selectors.push(PeerSelector::Nodes(selector.clone()))
            }
            ClusterNetworkPolicyPeer::Networks(nets) => {
                blocks.extend(nets.iter().map(|net| (net, &[] as &[IpNet])))
            }
        }
    }
    RulePeers { any: false, pods: peer_set(selectors), blocks: AddressRanges::union(blocks) }
}

/// Returns the peer set of the valid selectors, if there are any.
fn peer_set(mut selectors: Vec<PeerSelector>) -> Option<PeerSetId> {
    selectors.retain(|selector| match selector {
        PeerSelector::Pods { namespaces: NamespaceScope::One(_), pods } => pods.is_valid(),
        PeerSelector::Pods { namespaces: NamespaceScope::Selected(namespaces), pods } => {
            namespaces.is_valid() && pods.is_valid()
        }
        PeerSelector::Nodes(nodes) => LabelSelector::is_valid(nodes),
    });
    (!selectors.is_empty()).then(|| PeerSetId::new(selectors))
}

fn network_ports(ports: &[NetworkPolicyPort], direction: Direction) -> RulePorts {
    let mut collected = Collected::new(direction);
    for port in ports {
        match &port.number {
            PortNumber::Any => collected.all.push(port.protocol),
            PortNumber::Range(first, last) => collected.ranges.push((port.protocol, *first, *last)),
            PortNumber::Named(name) => collected.name(name, port.protocol),
            PortNumber::Invalid => {}
        }
    }
    collected.finish()
}

fn cluster_ports(ports: &[ClusterNetworkPolicyPort], direction: Direction) -> RulePorts {
    let mut collected = Collected::new(direction);
    for port in ports {
        match port {
            ClusterNetworkPolicyPort::Range { protocol, first, last } => {
                collected.ranges.push((*protocol, *first, *last))
            }
            // The protocol is that of the pod's port with this name.
            ClusterNetworkPolicyPort::Named(name) => PROTOCOLS.iter().for_each(|p| collected.name(name, *p)),
        }
    }
    collected.finish()
}

/// Collects a rule's ports.
struct Collected {
    direction: Direction,
    all: Vec<Protocol>,
    ranges: Vec<(Protocol, u16, u16)>,
    named: Vec<NamedPortId>,
}

impl Collected {
    fn new(direction: Direction) -> Self {
        Collected { direction, all: Vec::new(), ranges: Vec::new(), named: Vec::new() }
    }

    fn name(&mut self, name: &Name, protocol: Protocol) {
        self.named.push(NamedPortId { direction: self.direction, name: name.clone(), protocol });
    }

    fn finish(mut self) -> RulePorts {
        let mut numeric = NumericPorts::default();
        for protocol in PROTOCOLS {
            let own = self.ranges.iter().filter(|(range_protocol, ..)| *range_protocol == protocol);
            let ranges = own.map(|(_, first, last)| (*first, *last)).collect();
            *numeric.by_protocol_mut(protocol) = match self.all.contains(&protocol) {
                true => ProtocolPorts::All,
                false => ProtocolPorts::from_ranges(ranges),
            };
        }
        self.named.sort();
        self.named.dedup();
        RulePorts::Listed { numeric, named: self.named.into() }
    }
}
